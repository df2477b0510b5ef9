// Products take their turn in a stream: what the emulation sees of them.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#include "lathe/kernels/matmul.h"
#include "lathe/kernels/matmul_timer.h"
#include "tests/kernels/device_buffer.h"

namespace lathe::test {
namespace {

/// What the device says of the work that was enqueued; empty where it finds no fault.
std::string fault() {
  try {
    check(cudaDeviceSynchronize());
    return "";
  } catch (const emulation::Fault& found) {
    return found.what();
  }
}

/// c [2, 2] = a [2, 3] b [3, 2], with room for another element behind each row where `stride` says so.
Matmul<float> product(float* c, const float* a, const float* b, std::byte* workspace) {
  return {.c = c,
          .a = a,
          .b = b,
          .bias = nullptr,
          .use = Use::write,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::no,
          .m = 2,
          .n = 2,
          .k = 3,
          .lda = 3,
          .ldb = 2,
          .ldc = 2,
          .workspace = workspace};
}

class EmulatedMatmul : public ::testing::Test {
 protected:
  DeviceRuns runs_, others_;
  CudaMatmulPlans plans_{make_matmul_library()};
  CudaStream stream_{.handle = runs_.stream().handle, .plans = &plans_};
  CudaStream other_{.handle = others_.stream().handle, .plans = &plans_};
  DeviceBuffer<std::byte> workspace_{plans_.library().workspace_bytes()};
  DeviceBuffer<float> a_{std::vector<float>{1, 2, 3, 4, 5, 6}};
  DeviceBuffer<float> b_{std::vector<float>{1, 0, 0, 1, 10, 100}};
  const std::vector<float> expected_{31, 302, 64, 605};
};

TEST_F(EmulatedMatmul, TakesItsTurnAmongWhatElseTheStreamDoes) {
  const DeviceBuffer<float> before(4);
  const DeviceBuffer<float> after(4);
  matmul(stream_, product(before.data(), a_.data(), b_.data(), workspace_.data()));
  check(cudaMemsetAsync(a_.data(), 0, 24, stream_.handle));
  matmul(stream_, product(after.data(), a_.data(), b_.data(), workspace_.data()));
  EXPECT_EQ(before.values("before"), expected_);
  EXPECT_EQ(after.values("after"), std::vector<float>(4, 0.0F));
}

TEST_F(EmulatedMatmul, ReadsAndWritesNothingBetweenRows) {
  // Rows of 4 elements, of which the last is never written.
  const DeviceBuffer<float> a(8);
  const DeviceBuffer<float> c(8);
  for (const std::ptrdiff_t row : {0, 1})
    check(cudaMemcpy(a.data() + 4 * row, a_.data() + 3 * row, 12, cudaMemcpyDeviceToDevice));
  Matmul<float> args = product(c.data(), a.data(), b_.data(), workspace_.data());
  args.lda = 4;
  args.ldc = 4;
  matmul(stream_, args);
  ASSERT_EQ(fault(), "");
  std::vector<float> rows(2);
  check(cudaMemcpy(rows.data(), c.data() + 4, 8, cudaMemcpyDeviceToHost));
  EXPECT_EQ(rows, (std::vector<float>{64, 605}));
  EXPECT_THROW(check(cudaMemcpy(rows.data(), c.data() + 2, 4, cudaMemcpyDeviceToHost)), emulation::Fault) << "a gap was written";

  // Now the gaps are part of a.
  const DeviceBuffer<float> b(std::vector<float>(8, 1.0F));
  args.k = 4;
  args.b = b.data();
  matmul(stream_, args);
  const std::string found = fault();
  EXPECT_TRUE(found.starts_with("emulation: uninitialised: matrix product [2, 4] x [4, 2], f32 to f32: reads ")) << found;
}

TEST_F(EmulatedMatmul, WhatItAddsToMustHaveBeenWritten) {
  const DeviceBuffer<float> c(4);
  Matmul<float> args = product(c.data(), a_.data(), b_.data(), workspace_.data());
  args.use = Use::add;
  matmul(stream_, args);
  EXPECT_NE(fault().find("which nothing has written"), std::string::npos);
}

TEST_F(EmulatedMatmul, TwoStreamsThatShareAWorkspaceAreSeen) {
  const DeviceBuffer<float> c(4);
  const DeviceBuffer<float> d(4);
  matmul(stream_, product(c.data(), a_.data(), b_.data(), workspace_.data()));
  matmul(other_, product(d.data(), a_.data(), b_.data(), workspace_.data()));
  const std::string found = fault();
  EXPECT_NE(found.find("runs in another stream and is not awaited by an event"), std::string::npos) << found;

  const DeviceBuffer<std::byte> another(plans_.library().workspace_bytes());
  matmul(stream_, product(c.data(), a_.data(), b_.data(), workspace_.data()));
  matmul(other_, product(d.data(), a_.data(), b_.data(), another.data()));
  EXPECT_EQ(fault(), "");
}

TEST_F(EmulatedMatmul, IsCapturedAndReplayedOverWhatTheMemoryThenHolds) {
  const DeviceBuffer<float> c(4);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(stream_.handle, cudaStreamCaptureModeGlobal));
  matmul(stream_, product(c.data(), a_.data(), b_.data(), workspace_.data()));
  Matmul<float> adding = product(c.data(), a_.data(), b_.data(), workspace_.data());
  adding.use = Use::add;
  matmul(stream_, adding);
  Matmul<float> nothing = product(c.data(), a_.data(), b_.data(), workspace_.data());
  nothing.use = Use::add;
  nothing.k = 0;
  matmul(stream_, nothing);
  check(cudaStreamEndCapture(stream_.handle, &graph));
  check(cudaGraphInstantiate(&executable, graph));
  for (const float scale : {1.0F, 2.0F}) {
    std::vector<float> a{1, 2, 3, 4, 5, 6};
    for (float& value : a) value *= scale;
    check(cudaMemcpy(a_.data(), a.data(), 24, cudaMemcpyHostToDevice));
    check(cudaGraphLaunch(executable, stream_.handle));
    std::vector<float> twice = expected_;
    for (float& value : twice) value *= 2 * scale;
    EXPECT_EQ(c.values("c"), twice);
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
}

TEST_F(EmulatedMatmul, TheTimerRunsEveryKindOfProblemWithMemoryOfItsOwnAndGivesItBack) {
  std::size_t before = 0;
  std::size_t after = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&before, &total));
  for (const MatmulElement factors : {MatmulElement::f32, MatmulElement::bf16}) {
    for (const int form : {0, 1, 2}) {
      for (const std::int32_t alignment : {4, 16}) {
        plans_.prepare({.factors = factors,
                        .result = MatmulElement::f32,
                        .transpose_a = Transpose::yes,
                        .transpose_b = Transpose::no,
                        .has_bias = form == 1,
                        .adds = form == 2,
                        .m = 9,
                        .n = 5,
                        .k = 12,
                        .lda = 12,
                        .ldb = 16,
                        .ldd = 11,
                        .alignment_a = alignment,
                        .alignment_b = alignment,
                        .alignment_d = alignment,
                        .alignment_bias = alignment});
      }
    }
  }
  {
    const MatmulTimer timer = time_on_device(stream_.handle, plans_.library(), 4096);
    const std::vector<TunedMatmul> report = plans_.tune(timer);
    EXPECT_EQ(report.size(), 12U);
    for (const TunedMatmul& tuned : report) {
      EXPECT_EQ(tuned.candidates, 1U);
      EXPECT_LT(tuned.best_seconds, std::numeric_limits<double>::infinity()) << to_string(tuned.problem);
    }
  }
  check(cudaMemGetInfo(&after, &total));
  EXPECT_EQ(after, before);
}

}  // namespace
}  // namespace lathe::test
