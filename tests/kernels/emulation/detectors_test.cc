#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "tests/kernels/emulation/planted.h"

namespace lathe::test {
namespace {

using namespace emulation::cuda;  // NOLINT(google-build-using-namespace): the API under its own names

/// What the device says of the work that was enqueued; empty where it finds no fault.
std::string fault() {
  try {
    cudaDeviceSynchronize();
    return "";
  } catch (const emulation::Fault& found) {
    return found.what();
  }
}

TEST(Emulation, KernelsRunAndWhatTheyMayNotTouchIsNamed) {
  float* x = nullptr;
  float* y = nullptr;
  ASSERT_EQ(cudaMalloc(&x, 400), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&y, 400), cudaSuccess);
  emulation::name_memory(x, 400, "x");
  std::vector<float> host(100, 3.0F);
  cudaMemcpy(x, host.data(), 400, cudaMemcpyHostToDevice);
  run_double({}, y, x, 100);
  cudaMemcpy(host.data(), y, 400, cudaMemcpyDeviceToHost);
  EXPECT_EQ(host, std::vector<float>(100, 6.0F));

  run_double({}, y, x, 101);
  const std::string beyond = fault();
  EXPECT_TRUE(beyond.starts_with("emulation: out of bounds: double_kernel, block (1, 0, 0), thread (36, 0, 0): reads 4 bytes at "
                                 "tests/kernels/emulation/planted.cu:"))
      << beyond;
  EXPECT_NE(beyond.find("0 bytes behind the end of 'x' of 400 bytes"), std::string::npos) << beyond;
  run_double({}, y, host.data(), 10);
  EXPECT_TRUE(fault().starts_with("emulation: host pointer: double_kernel, "));
  cudaFree(x);
  cudaFree(y);
  emulation::expect_nothing_alive();
}

}  // namespace
}  // namespace lathe::test
