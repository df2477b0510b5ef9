// Bytes and operations of the table's cases, against formulas written out by hand.
#include "benchmarks/cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/lengths.h"
#include "benchmarks/measure.h"

namespace lathe::bench {
namespace {

#ifdef LATHE_HAS_CUDA
constexpr DeviceKind kKind = DeviceKind::cuda;
#else
constexpr DeviceKind kKind = DeviceKind::cpu;
#endif

constexpr std::int64_t kT = 384;  // three sequences
constexpr std::int64_t kC = 128;
constexpr std::int64_t kF = 4 * kC;
constexpr Sizes kSizes{.tokens = kT, .channels = kC};
constexpr std::int64_t kDropout = 8 * kT + 8;  // sample and position of each token, and the key

Case find(const std::string& family, const std::string& kernel, const std::string& dtype = "f32") {
  for (Case& made : make_cases(family, kKind, kSizes)) {
    if (made.kernel == kernel && made.dtype == dtype) return made;
  }
  throw std::out_of_range(kernel);
}

void expect(const Case& made, std::int64_t bytes, std::int64_t operations) {
  EXPECT_EQ(made.bytes(), bytes) << made.kernel;
  EXPECT_EQ(made.operations, operations) << made.kernel;
}

TEST(BenchCases, LayerNormReadsTwoMatricesAndWritesTwo) {
  expect(find("layernorm", "layernorm_forward"), 4 * (4 * kT * kC + 2 * kT + 3 * kC) + kDropout, 11 * kT * kC);
  expect(find("layernorm", "layernorm_forward (plain)"), 4 * (2 * kT * kC + 2 * kT + 2 * kC), 8 * kT * kC);
  // gamma in; d_gamma, d_beta and d_bias out. The workspace isn't the mathematics'.
  expect(find("layernorm", "layernorm_backward"), 4 * (4 * kT * kC + 2 * kT + 4 * kC) + kDropout, 15 * kT * kC);
  expect(find("layernorm", "layernorm_backward (plain)"), 4 * (3 * kT * kC + 2 * kT + 3 * kC), 13 * kT * kC);
}

TEST(BenchCases, ActivationsAreOverTheFeedForwardSize) {
  expect(find("gelu", "gelu_erf_forward"), 4 * (2 * kT * kF + kF), 6 * kT * kF);
  expect(find("gelu", "gelu_tanh_backward"), 4 * (3 * kT * kF + 2 * kF), 19 * kT * kF);
  expect(find("activation", "relu_forward"), 4 * (2 * kT * kF + kF), 2 * kT * kF);
}

TEST(BenchCases, CrossEntropyTakesEachLogitOnceAndLeavesThePadding) {
  constexpr std::int64_t kR = kT / 8;
  constexpr std::int64_t kV = 30522;
  expect(find("cross_entropy", "cross_entropy"), 4 * (2 * kR * kV + 2 * kR + 1), 8 * kR * kV);
  expect(find("cross_entropy", "cross_entropy (loss alone)"), 4 * (kR * kV + 2 * kR + 1), 4 * kR * kV);
}

TEST(BenchCases, EmbeddingTakesARowATokenNotTheTable) {
  // y and z out, words in; a sequence's positions and both types; mean and rstd, token and type of each token; gamma and beta.
  expect(find("embedding", "embedding_forward"), 4 * (3 * kT * kC + 128 * kC + 2 * kC + 4 * kT + 2 * kC) + kDropout,
         11 * kT * kC);
  expect(find("embedding", "embedding_norm_backward"), 4 * (3 * kT * kC + 2 * kT + 3 * kC) + kDropout, 14 * kT * kC);
}

TEST(BenchCases, RowsAreMovedOrCombinedOnce) {
  constexpr std::int64_t kR = kT / 8;
  expect(find("gather", "gather_forward"), 4 * (2 * kR * kC + kR), 0);
  expect(find("gather", "gather_backward"), 4 * (kT * kC + kR * kC + kT), 0);
  expect(find("dropout", "dropout_forward"), 8 * kT * kC + kDropout, kT * kC);
  expect(find("reduce", "column_sum"), 4 * (kT * kC + kC), kT * kC);
  expect(find("reduce", "add"), 12 * kT * kC, kT * kC);
  expect(find("cast", "cast", "f32-bf16"), 6 * kT * kC, kT * kC);
  expect(find("cast", "cast", "bf16-f32"), 6 * kT * kC, kT * kC);
}

TEST(BenchCases, OptimizerGoesOverArenasOfTimesC) {
  constexpr std::int64_t kBlocks = kT * kC / 1024;
  constexpr std::int64_t kN = kBlocks * 1024;
  constexpr std::int64_t kGroupsAndStep = 8 + 36;
  expect(find("optimizer", "squared_norms"), 4 * (kN + kBlocks), 2 * kN);
  expect(find("optimizer", "adamw"), 28 * kN + 8 * kBlocks + kGroupsAndStep, 17 * kN);
  expect(find("optimizer", "adamw", "bf16"), 30 * kN + 8 * kBlocks + kGroupsAndStep, 17 * kN);
}

#ifdef LATHE_HAS_CUDA
constexpr std::int64_t kTileLists = 2 * 4 * 3;  // a tile a sequence, each with its number and its first query
#else
constexpr std::int64_t kTileLists = 0;
#endif

TEST(BenchCases, AttentionIsQuadraticWithinSequences) {
  constexpr std::int64_t kScores = std::int64_t{3} * 128 * 128;
  constexpr std::int64_t kLse = kT * kC / 64;
  constexpr std::int64_t kBytes = 4 * (4 * kT * kC + kLse + 4) + kTileLists;
  expect(find("attention", "attention_forward"), kBytes, 4 * kScores * kC);
  // The key and a number of each sequence.
  expect(find("attention", "attention_forward (dropout)"), kBytes + 8 + 12, 4 * kScores * kC);
  constexpr std::int64_t kBackwardBytes = 4 * (8 * kT * kC + kLse + 4) + 2 * kTileLists;
  expect(find("attention", "attention_backward"), kBackwardBytes, 10 * kScores * kC);
  expect(find("attention", "attention_backward (dropout)"), kBackwardBytes + 8 + 12, 10 * kScores * kC);
}

TEST(BenchCases, AttentionOfRealLengthsCountsEachSequencesSquare) {
  const std::vector<std::int64_t> lengths = wiki_lengths().fill(kT);
  std::int64_t scores = 0;
  for (const std::int64_t length : lengths) scores += length * length;
  const Case made = find("attention", "attention_forward (wiki lengths)");
  EXPECT_EQ(made.operations, 4 * scores * kC);
  EXPECT_EQ(made.shape,
            (std::vector<std::pair<std::string, std::int64_t>>{{"T", kT}, {"C", kC}, {"S", std::ranges::max(lengths)}}));
  EXPECT_EQ(find("attention", "attention_backward (wiki lengths, dropout)").operations, 10 * scores * kC);
}

#ifdef LATHE_HAS_CUDA
TEST(BenchCases, Bf16HalvesTheMatricesAndNotTheStatistics) {
  expect(find("layernorm", "layernorm_forward (plain)", "bf16"), 2 * (2 * kT * kC + 2 * kC) + 4 * 2 * kT, 8 * kT * kC);
  expect(find("gelu", "gelu_erf_backward", "bf16"), 2 * (3 * kT * kF + kF) + 4 * kF, 13 * kT * kF);
}
#else
TEST(BenchCases, ProductsAreTheFeedForwardMatrixsThree) {
  constexpr std::int64_t kMatrices = kT * kC + kF * kC + kT * kF;
  expect(find("matmul", "matmul"), 4 * (kMatrices + kF), 2 * kT * kC * kF + kT * kF);
  expect(find("matmul", "matmul (d_input)"), 4 * kMatrices, 2 * kT * kC * kF);
  expect(find("matmul", "matmul (d_weight)"), 4 * kMatrices, 2 * kT * kC * kF);
}

TEST(BenchMeasure, TimesAreOfManyCallsOnMoreMemoryThanTheCacheHas) {
  const MakeDevice device = [] { return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 0}); };
  const Case measured = find("gather", "gather_forward");
  const Time time = measure(measured, device);
  EXPECT_GT(time.seconds, 0.0);
  EXPECT_LT(time.seconds, 1.0);
  EXPECT_GE(time.spread, 0.0);
  EXPECT_GT(time.calls, 1);
  EXPECT_EQ(time.sets, std::min<std::int64_t>(
                           64, (rotation_bytes(DeviceKind::cpu) + Placed::bytes(measured) - 1) / Placed::bytes(measured)));
}
#endif

TEST(BenchCases, EveryFamilyRunsOnTheSmallestSizes) {
  for (const std::string_view family : families()) {
    for (const Case& made : make_cases(family, kKind, {.tokens = 1, .channels = 64})) {
      SCOPED_TRACE(made.kernel);
      EXPECT_EQ(made.family, family);
      const DeviceRef device =
          kKind == DeviceKind::cpu ? Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 0}) : Device::cuda({});
      const Placed placed(made, device);
      placed.call()();
      device->synchronize();
    }
  }
  EXPECT_THROW(make_cases("nothing", kKind, kSizes), std::out_of_range);
}

}  // namespace
}  // namespace lathe::bench
