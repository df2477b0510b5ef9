// Tests on the CUDA backend are skipped by name, with the reason, where there is no GPU to run them. Linked into the programs that have
// such tests; emulated, there always is a device.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "lathe/kernels/device/runtime_api.h"

namespace lathe::test {
namespace {

/// Why no kernel can run here; empty where one can.
std::string missing() {
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (driver == 0) return "no NVIDIA driver was found";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  if (status != cudaSuccess) return "no GPU can be used: " + std::string(cudaGetErrorString(status));
  return count > 0 ? "" : "no GPU was found";
}

/// Tests instantiated for a CudaStream, and those of suites that are named after CUDA.
bool needs_gpu(const ::testing::TestInfo& test) {
  const std::string_view type = test.type_param() == nullptr ? "" : test.type_param();
  return type.find("CudaStream") != std::string_view::npos || std::string_view(test.test_suite_name()).starts_with("Cuda");
}

class SkipWithoutGpu : public ::testing::EmptyTestEventListener {
 public:
  void OnTestStart(const ::testing::TestInfo& test) override {
    if (!missing_.empty() && needs_gpu(test)) GTEST_SKIP() << missing_;
  }

 private:
  std::string missing_ = missing();
};

class Listening : public ::testing::Environment {
 public:
  void SetUp() override { ::testing::UnitTest::GetInstance()->listeners().Append(new SkipWithoutGpu); }
};

const ::testing::Environment* const listening = ::testing::AddGlobalTestEnvironment(new Listening);

}  // namespace
}  // namespace lathe::test
