#pragma once
// Device memory for the kernels' tests, and the ways in which a device runs a kernel: emulated, or on a GPU.
#ifdef LATHE_HAS_CUDA
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/runtime_api.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"
#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe::test {

/// Where buffers begin: at a multiple of 256 bytes, or one element behind it, since kernels may not expect more than an element's
/// alignment but have faster ways where there is more.
enum class Placement : std::uint8_t { aligned, shifted };
inline Placement& buffer_placement() {
  static Placement value = Placement::shifted;
  return value;
}
inline void place_buffers(Placement placement) { buffer_placement() = placement; }

/// Device memory with a poisoned guard before it. Emulated, it ends with its allocation and nothing is in it until something is put there, so
/// that the emulation sees what is read too early or too far; on a GPU a second guard is behind it, and all is NaN.
template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::int64_t count) : count_(count) {
    const bool shifted = buffer_placement() == Placement::shifted && !std::is_same_v<T, std::byte>;
    front_ = kGuardBytes + (shifted ? static_cast<std::int64_t>(sizeof(T)) : 0);
    check(cudaMalloc(reinterpret_cast<void**>(&memory_), static_cast<std::size_t>(bytes())));
    std::vector<std::byte> image(static_cast<std::size_t>(kEmulated ? front_ : bytes()), std::byte{0xFF});
    check(cudaMemcpy(memory_, image.data(), image.size(), cudaMemcpyHostToDevice));
  }
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(static_cast<std::int64_t>(values.size())) {
    check(cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceBuffer() { static_cast<void>(cudaFree(memory_)); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  DeviceBuffer(DeviceBuffer&&) = delete;
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;

  T* data() const { return reinterpret_cast<T*>(memory_ + front_); }
  std::int64_t size() const { return count_; }

  /// The values, once all that was enqueued has run, after a check of the guards.
  std::vector<T> values(const std::string& what) const {
    expect_intact(what);
    std::vector<T> result(static_cast<std::size_t>(count_));
    check(cudaMemcpy(result.data(), data(), result.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }
  void expect_intact(const std::string& what) const {
    check(cudaDeviceSynchronize());
    expect_poison(what + ": before its first element", memory_, front_);
    const std::int64_t behind = front_ + count_ * static_cast<std::int64_t>(sizeof(T));
    expect_poison(what + ": behind its last element", memory_ + behind, bytes() - behind);
  }

 private:
#ifdef LATHE_EMULATED
  static constexpr bool kEmulated = true;
#else
  static constexpr bool kEmulated = false;
#endif
  static constexpr std::int64_t kGuardBytes = 256;

  std::int64_t bytes() const { return front_ + count_ * static_cast<std::int64_t>(sizeof(T)) + (kEmulated ? 0 : kGuardBytes); }
  static void expect_poison(const std::string& what, const std::byte* begin, std::int64_t count) {
    std::vector<std::byte> image(static_cast<std::size_t>(count));
    check(cudaMemcpy(image.data(), begin, image.size(), cudaMemcpyDeviceToHost));
    for (std::size_t i = 0; i < image.size(); ++i) {
      ASSERT_EQ(image[i], std::byte{0xFF}) << what << " something was written, at byte " << i << " of " << count;
    }
  }

  std::byte* memory_ = nullptr;
  std::int64_t count_;
  std::int64_t front_ = 0;
};

/// How often a GPU runs a kernel whose results must be the same.
inline constexpr int kUsualRuns = 50;

/// A stream, and the ways to run the same kernel on it again.
class DeviceRuns {
 public:
  DeviceRuns() {
    check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking));
#ifdef LATHE_EMULATED
    // Buffers are read by copies alone, thousands of them.
    emulation::Settings quick = before_;
    quick.guard_host = false;
    emulation::configure(quick);
#endif
  }
  ~DeviceRuns() {
#ifdef LATHE_EMULATED
    emulation::configure(before_);
#endif
    static_cast<void>(cudaStreamDestroy(handle_));
  }
  DeviceRuns(const DeviceRuns&) = delete;
  DeviceRuns& operator=(const DeviceRuns&) = delete;
  DeviceRuns(DeviceRuns&&) = delete;
  DeviceRuns& operator=(DeviceRuns&&) = delete;

  CudaStream stream() const { return {.handle = handle_, .plans = nullptr}; }

  /// Calls `kernel` with the name of each further way: emulated, in other orders; on a GPU as one of `runs`.
  template <class Kernel>
  void again(const Kernel& kernel, [[maybe_unused]] int runs = kUsualRuns) const {
#ifdef LATHE_EMULATED
    using emulation::Order;
    const emulation::Settings before = emulation::settings();
    for (const Order order : {Order::reverse, Order::random}) {
      emulation::Settings other = before;
      other.threads = other.blocks = other.streams = order;
      other.seed = 7;
      emulation::configure(other);
      kernel(order == Order::reverse ? "the order of threads and blocks (reverse)" : "the order of threads and blocks (random)");
    }
    emulation::configure(before);
#else
    const int wanted = asked_runs(runs);
    for (int i = 1; i < wanted; ++i) kernel("the run (" + std::to_string(i) + ")");
#endif
  }

 private:
  /// `runs`, or what LATHE_TEST_REPEATS says: under a sanitizer each takes long, and two are enough.
  static int asked_runs(int runs) {
    const char* asked = std::getenv("LATHE_TEST_REPEATS");
    return asked == nullptr ? runs : std::atoi(asked);
  }

  cudaStream_t handle_ = nullptr;
#ifdef LATHE_EMULATED
  emulation::Settings before_ = emulation::settings();
#endif
};

}  // namespace lathe::test
#endif
