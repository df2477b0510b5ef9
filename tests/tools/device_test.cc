// --device and --precision where there is no GPU to be had: what is chosen, what is said of it, what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "lathe/runtime/device.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

using Json = nlohmann::json;

class DeviceOptionTest : public RefusalTest {
 protected:
  void SetUp() override {
    if (cuda_backend() == CudaBackend::gpu && !Device::why_no_cuda({})) GTEST_SKIP() << "there is a GPU";
  }
  /// Why no GPU is taken.
  static std::string reason() {
    if (cuda_backend() == CudaBackend::emulated) return "this build emulates CUDA, which --device emulated runs";
    return *Device::why_no_cuda({});
  }
};

TEST_F(DeviceOptionTest, AutoTakesTheCpuAndSaysWhatIsMissing) {
  const CommandResult result = run_lathe(folder_.path(), finetune({"--max-steps", "2"}));
  ASSERT_EQ(result.status, 0) << result.error;
  EXPECT_TRUE(result.error.starts_with("device: cpu (" + reason() + "), ")) << result.error;
  EXPECT_NE(result.error.find(", fp32 (what the CPU kernels have)\n"), std::string::npos) << result.error;
  const std::string run = contents_of(folder_ / "run" / "run.toml");
  for (const std::string& line :
       {std::string("device = \"cpu\""), std::string("precision = \"fp32\""), "device-reason = \"" + reason() + "\""})
    EXPECT_NE(run.find("\n" + line + "\n"), std::string::npos) << line << " in\n" << run;
  const Json train = Json::parse(contents_of(folder_ / "run" / "results.json"))["train"];
  EXPECT_EQ(train["device"], "cpu");
  EXPECT_EQ(train["precision"], "fp32");
  EXPECT_FALSE(train.contains("peak_gpu_memory_bytes"));
}

TEST_F(DeviceOptionTest, WhatIsNotThereIsRefusedInOneLine) {
  expect_refused(finetune({"--precision", "bf16"}), {"--precision bf16 needs a GPU", reason(), "use --precision fp32"});
  expect_refused(finetune({"--precision", "bf16", "--device", "cpu"}), {"runs on the CPU (asked for)"});
  expect_refused(finetune({"--device", "cuda:one"}), {"--device", "cuda:one", "cuda:N"});
  expect_refused(finetune({"--device", "cuda:-1"}), {"cuda:-1"});
  expect_refused(finetune({"--device", "cuda:99"}),
                 {cuda_backend() == CudaBackend::emulated ? "GPU 99 was asked for" : reason(), "use --device cpu"});
  expect_refused(finetune({"--tune", "--device", "cpu"}), {"--tune is for a GPU's matrix products", "use --device cuda"});
  expect_refused(finetune({"--product-table", path("run.toml"), "--device", "cpu"}), {"--product-table is for a GPU's"});
  if (cuda_backend() != CudaBackend::emulated) {
    for (const char* device : {"cuda", "cuda:0"}) expect_refused(finetune({"--device", device}), {reason(), "use --device cpu"});
    expect_refused(finetune({"--device", "emulated"}), {"this build doesn't emulate CUDA", "cmake --preset emulated"});
  }
}

}  // namespace
}  // namespace lathe
