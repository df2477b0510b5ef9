#pragma once
// What the tests of the emulation share: a device with two tensors, all orders, and what the device says.
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#include "tests/kernels/emulation/planted.h"

namespace lathe::test {

using emulation::Order;

/// Each order of threads with each of blocks; streams take that of the threads.
inline std::vector<emulation::Settings> all_orders() {
  std::vector<emulation::Settings> result;
  for (const Order threads : {Order::forward, Order::reverse, Order::random}) {
    for (const Order blocks : {Order::forward, Order::reverse, Order::random}) {
      result.push_back({.threads = threads, .blocks = blocks, .streams = threads, .seed = 7});
    }
  }
  return result;
}

/// "tests/kernels/emulation/planted.cu:57", where that line of the file beside this one ends with "LINE marker".
inline std::string line_of(const std::string& marker, const std::string& file = "planted.cu") {
  std::ifstream source(std::string(LATHE_TEST_SOURCES "/") + file);
  int number = 0;
  for (std::string line; std::getline(source, line);) {
    ++number;
    if (line.ends_with("LINE " + marker)) return "tests/kernels/emulation/" + file + ":" + std::to_string(number);
  }
  ADD_FAILURE() << file << " has no line marked " << marker;
  return "";
}

/// A message with addresses (not masks) as "@".
inline std::string without_addresses(const std::string& message) {
  return std::regex_replace(message, std::regex("0x[0-9a-f]{9,16}"), "@");
}

/// What is thrown by `work` or by the device when it then runs what is enqueued; empty where nothing is wrong.
template <class Work>
std::string fault(const Work& work) {
  try {
    work();
    emulation::cuda::cudaDeviceSynchronize();
    return "";
  } catch (const emulation::Fault& found) {
    emulation::cuda::cudaDeviceSynchronize();  // from here on the host knows that nothing runs
    return without_addresses(found.what());
  }
}

class EmulatedDevice : public testing::Test {
 protected:
  static constexpr std::size_t kCount = 256;

  void SetUp() override {
    y_ = allocate<float>(kCount, "y");
    x_ = allocate<float>(kCount, "x");
  }
  void TearDown() override {
    emulation::configure({});
    for (void* memory : memory_) emulation::cuda::cudaFree(memory);
    emulation::expect_nothing_alive();
  }

  /// Zeroes.
  template <class T>
  T* allocate(std::size_t count, const char* name) {
    T* memory = nullptr;
    EXPECT_EQ(emulation::cuda::cudaMalloc(&memory, count * sizeof(T)), emulation::cuda::cudaSuccess);
    emulation::name_memory(memory, count * sizeof(T), name);
    EXPECT_EQ(emulation::cuda::cudaMemset(memory, 0, count * sizeof(T)), emulation::cuda::cudaSuccess);
    memory_.push_back(memory);
    return memory;
  }
  template <class T>
  static std::vector<T> read(const T* memory, std::size_t count) {
    std::vector<T> host(count);
    EXPECT_EQ(emulation::cuda::cudaMemcpy(host.data(), memory, count * sizeof(T), emulation::cuda::cudaMemcpyDeviceToHost),
              emulation::cuda::cudaSuccess);
    return host;
  }

  float* y_ = nullptr;
  float* x_ = nullptr;
  std::vector<void*> memory_;
};

}  // namespace lathe::test
