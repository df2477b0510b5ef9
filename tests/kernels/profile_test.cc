// What the CUDA kernels ask of memory, counted by the emulation at BERT's shapes. Their speed on a GPU follows from it: they are bound by bytes.
#include "benchmarks/profile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "benchmarks/cases.h"

namespace lathe::bench {
namespace {

using emulation::GlobalTraffic;
using emulation::KernelProfile;

/// Every family whose kernels are written here.
const std::vector<std::string_view>& memory_bound() {
  static const std::vector<std::string_view> list = {"layernorm", "gelu",    "activation", "cross_entropy", "embedding",
                                                     "gather",    "dropout", "optimizer",  "reduce",        "cast"};
  return list;
}

double share(std::int64_t part, std::int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

/// How often a matrix may be read, beside what stands to reason: the words', positions' and types' gradients are three sums over d_z, by
/// three kernels.
double passes(const Case& profiled, const Operand& operand) {
  return profiled.kernel == "embedding_backward" && operand.name == "d_z" ? 3.0 : 1.0;
}

/// Asked for at most 1.05 times, and at least once: a kernel that didn't touch what it is given would hide behind a zero.
void expect_asked_once(const std::string& what, std::int64_t bytes, std::int64_t expected, double times) {
  if (expected == 0) {
    EXPECT_EQ(bytes, 0) << what;
    return;
  }
  EXPECT_LE(share(bytes, expected), 1.05 * times) << what;
  EXPECT_GE(share(bytes, expected), times) << what;
}

void expect_frugal(const Case& profiled, const std::vector<KernelProfile>& kernels) {
  ASSERT_FALSE(kernels.empty());
  for (const Operand& operand : profiled.operands) {
    if (operand.extent != Extent::matrix) continue;
    SCOPED_TRACE(operand.name);
    const GlobalTraffic traffic = traffic_of(kernels, operand.name);
    expect_asked_once("read", traffic.read_bytes, operand.read_bytes(), passes(profiled, operand));
    expect_asked_once("written", traffic.written_bytes, operand.written_bytes(), 1.0);
    EXPECT_GE(sector_use(traffic), 0.95);
    EXPECT_EQ(traffic.atomics, 0) << "sums have a fixed order";
  }
  for (const KernelProfile& kernel : kernels) {
    SCOPED_TRACE(kernel.kernel);
    EXPECT_FALSE(kernel.tensors.contains("(unnamed)"));
    for (const auto& [line, counted] : kernel.lines)
      EXPECT_EQ(counted.shared.wavefronts, counted.shared.ideal_wavefronts) << "bank conflicts at " << line;
  }
}

class Profile : public testing::TestWithParam<std::string_view> {
 protected:
  static void expect_all_frugal(const Sizes& sizes) {
    const std::vector<Case> cases = make_cases(GetParam(), DeviceKind::cuda, sizes);
    ASSERT_FALSE(cases.empty());
    for (const Case& profiled : cases) {
      SCOPED_TRACE(profiled.kernel + " " + profiled.dtype + " " + profiled.shape_text());
      expect_frugal(profiled, profile(profiled));
    }
  }
};

TEST_P(Profile, EachTensorIsAskedForOnceInWholeSectorsAtBertBasesSizes) {
  expect_all_frugal({.tokens = 257, .channels = kBaseChannels});
}

TEST_P(Profile, EachTensorIsAskedForOnceInWholeSectorsAtBertLargesSizes) {
  expect_all_frugal({.tokens = 257, .channels = kLargeChannels});
}

INSTANTIATE_TEST_SUITE_P(Families, Profile, testing::ValuesIn(memory_bound()),
                         [](const auto& instance) { return std::string(instance.param); });

/// What kernels ask for beside the matrices and the numbers that each row has one of.
std::int64_t bytes_apart(const Case& profiled, const std::vector<KernelProfile>& kernels) {
  std::int64_t sum = 0;
  for (const Operand& operand : profiled.operands) {
    if (operand.extent != Extent::vector) continue;
    const GlobalTraffic traffic = traffic_of(kernels, operand.name);
    sum += traffic.read_bytes + traffic.written_bytes;
  }
  return sum;
}

// Each block reads the vectors of size C anew, and leaves partial sums: how much that is depends on the launched grid, and so on T.
TEST(ProfileOfALargeBatch, VectorsAndPartialSumsAreAFewPercentOfTheRows) {
  const auto expect_few = [](std::string_view family, const Sizes& sizes) {
    for (const Case& profiled : make_cases(family, DeviceKind::cuda, sizes)) {
      if (profiled.dtype != "bf16" || profiled.kernel == "embedding_backward")
        continue;  // fp32 rows are larger, and partial sums are not
      const std::vector<KernelProfile> kernels = profile(profiled);
      std::int64_t rows = 0;
      for (const Operand& operand : profiled.operands) {
        if (operand.extent == Extent::matrix) rows += operand.read_bytes() + operand.written_bytes();
      }
      EXPECT_LE(share(bytes_apart(profiled, kernels), rows), 0.06) << profiled.kernel << ' ' << profiled.shape_text();
      std::cout << profiled.kernel << ' ' << profiled.shape_text() << ' ' << 100 * share(bytes_apart(profiled, kernels), rows)
                << std::endl;
    }
  };
  expect_few("layernorm", {.tokens = 16384, .channels = 1024});
  expect_few("embedding", {.tokens = 16384, .channels = 1024});
  expect_few("reduce", {.tokens = 16384, .channels = 1024});
  expect_few("gelu", {.tokens = 16384, .channels = 256});  // F = 1024
}

TEST(ProfiledFamilies, AreAllThatRunOnCuda) {
  for (const std::string_view family : families()) {
    const bool listed = std::ranges::find(memory_bound(), family) != memory_bound().end();
    if (family == "matmul") continue;  // a library's
    EXPECT_EQ(listed, !make_cases(family, DeviceKind::cuda, {.tokens = 33, .channels = kBaseChannels}).empty()) << family;
  }
}

}  // namespace
}  // namespace lathe::bench
