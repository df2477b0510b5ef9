#include "lathe/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/kernels/products_test.h"

namespace lathe::testing {
namespace {

template <class T>
class OptimizerTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(OptimizerTest, Types);

std::vector<CpuStream> streams() {
  std::vector<CpuStream> all;
  for (const CpuTarget target : targets()) {
    for (const int threads : {1, 2, 3}) all.push_back({.threads = threads, .target = target, .plans = nullptr});
  }
  return all;
}

/// Sizes in blocks: none, one, few, and enough for threads.
constexpr std::array<std::int64_t, 4> kBlocks{0, 1, 7, 131};

TYPED_TEST(OptimizerTest, SquaredNormsAreExactEnoughAndTheSameForEveryThreadCount) {
  using T = TypeParam;
  std::mt19937 random(1);
  for (const std::int64_t blocks : kBlocks) {
    Guarded<T> gradients(blocks * kArenaBlock, normal_values<T>(random, blocks * kArenaBlock));
    std::vector<Wide<T>> exact(static_cast<std::size_t>(blocks), 0);
    std::vector<T> plain(static_cast<std::size_t>(blocks), 0);
    for (std::int64_t i = 0; i < blocks * kArenaBlock; ++i) {
      const auto block = static_cast<std::size_t>(i / kArenaBlock);
      exact[block] += static_cast<Wide<T>>(gradients[i]) * static_cast<Wide<T>>(gradients[i]);
      plain[block] += gradients[i] * gradients[i];
    }
    std::array<std::vector<T>, 2> first;
    for (const CpuStream stream : streams()) {
      Guarded<T> sums(blocks);
      squared_norms(stream, SquaredNorms<T>{.block_sums = sums.data(), .gradients = gradients.data(), .blocks = blocks});
      sums.expect_guards_whole("block_sums");
      expect_exact_enough<T>(sums.values(), exact, largest_error<T>(plain, exact), name_of(stream));
      std::vector<T>& reference = first[static_cast<std::size_t>(stream.target)];
      if (stream.threads == 1) reference = sums.copy();
      expect_same_bits(reference, sums.copy(), name_of(stream));
    }
  }
}

TYPED_TEST(OptimizerTest, SquaredNormsLetNotANumberAndInfinityThroughToTheirBlock) {
  using T = TypeParam;
  for (const CpuStream stream : streams()) {
    Guarded<T> gradients(3 * kArenaBlock, std::vector<T>(3 * kArenaBlock, T{1}));
    gradients[5] = std::numeric_limits<T>::quiet_NaN();
    gradients[3 * kArenaBlock - 1] = -std::numeric_limits<T>::infinity();
    Guarded<T> sums(3);
    squared_norms(stream, SquaredNorms<T>{.block_sums = sums.data(), .gradients = gradients.data(), .blocks = 3});
    EXPECT_TRUE(std::isnan(sums[0]));
    EXPECT_EQ(sums[1], T{1024});
    EXPECT_EQ(sums[2], std::numeric_limits<T>::infinity());
  }
}

template <class T>
OptimizerStep clipped(CpuStream stream, OptimizerStep step, std::vector<T> sums) {
  clip_scale(stream, ClipScale<T>{.step = &step, .block_sums = sums.data(), .blocks = static_cast<std::int64_t>(sums.size())});
  return step;
}

TYPED_TEST(OptimizerTest, ClipScaleIsThatOfClipGradNorm) {
  using T = TypeParam;
  for (const CpuStream stream : streams()) {
    const OptimizerStep above = clipped<T>(stream, {.max_norm = 1.0F, .updates = 4}, {9, 0, 16});
    EXPECT_EQ(above.norm, 5.0F);
    EXPECT_EQ(above.scale, static_cast<float>(1.0 / (5.0 + 1e-6)));
    EXPECT_EQ(above.updates, 5);
    EXPECT_EQ(above.skip, 0);
    EXPECT_EQ(above.skips, 0);
    EXPECT_EQ(above.first_skip, -1);

    EXPECT_EQ(clipped<T>(stream, {.max_norm = 6.0F}, {9, 0, 16}).scale, 1.0F) << "below the limit";
    EXPECT_EQ(clipped<T>(stream, {.max_norm = 0.0F}, {9, 0, 16}).scale, 1.0F) << "no limit";
    EXPECT_EQ(clipped<T>(stream, {.max_norm = 1.0F}, {}).scale, 1.0F) << "no gradients";
    EXPECT_EQ(clipped<T>(stream, {.max_norm = 1.0F}, {0, 0}).norm, 0.0F);
  }
}

TYPED_TEST(OptimizerTest, ClipScaleSumsInDoublePrecision) {
  // Ones after 2^24: each would be lost in fp32.
  std::vector<TypeParam> sums(4097, 1);
  sums[0] = 16777216;
  const OptimizerStep step = clipped<TypeParam>({}, {.max_norm = 0.0F}, sums);
  EXPECT_EQ(step.norm, static_cast<float>(std::sqrt(16777216.0 + 4096.0)));
}

TYPED_TEST(OptimizerTest, ANormThatIsNotFiniteSkipsTheStepAndIsCounted) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const CpuStream stream : streams()) {
    OptimizerStep step{.max_norm = 1.0F, .updates = 7, .step = 11};
    step = clipped<T>(stream, step, {1, infinity});
    EXPECT_EQ(step.skip, 1);
    EXPECT_EQ(step.skips, 1);
    EXPECT_EQ(step.first_skip, 11);
    EXPECT_EQ(step.updates, 7);
    EXPECT_FALSE(std::isfinite(step.norm));
    step.step = 12;
    step = clipped<T>(stream, step, {nan, 1});
    EXPECT_EQ(step.skip, 1);
    EXPECT_EQ(step.skips, 2);
    EXPECT_EQ(step.first_skip, 11);
    EXPECT_EQ(step.updates, 7);
    step.step = 13;
    step = clipped<T>(stream, step, {4, 0});
    EXPECT_EQ(step.skip, 0);
    EXPECT_EQ(step.skips, 2);
    EXPECT_EQ(step.updates, 8);
    EXPECT_EQ(step.norm, 2.0F);
  }
}

TEST(OptimizerStepTest, ANormBeyondFp32IsNotFinite) { EXPECT_EQ(clipped<double>({}, {.max_norm = 1.0F}, {1e300}).skip, 1); }

/// AdamW as its paper has it, element by element in F, from gradients in T.
template <class F, class T>
struct Reference {
  std::vector<F> w, m, v;

  explicit Reference(const std::vector<T>& weights)
      : w(weights.begin(), weights.end()), m(weights.size(), F{0}), v(weights.size(), F{0}) {}

  void update(const std::vector<T>& gradients, const AdamW<T>& a, const std::vector<ArenaBlock>& table,
              const std::vector<AdamWGroup>& groups) {
    if (a.step->skip != 0) return;
    const bool corrected = a.correction == BiasCorrection::corrected;
    const auto t = static_cast<F>(a.step->updates);
    const auto beta1 = static_cast<F>(a.beta1);
    const auto beta2 = static_cast<F>(a.beta2);
    const F unbias1 = corrected ? 1 - std::pow(static_cast<F>(a.beta1), t) : F{1};
    const F unbias2 = corrected ? 1 - std::pow(static_cast<F>(a.beta2), t) : F{1};
    for (std::size_t i = 0; i < w.size(); ++i) {
      const AdamWGroup& group = groups[static_cast<std::size_t>(table[i / kArenaBlock].group)];
      const F rate = static_cast<F>(a.step->learning_rate) * static_cast<F>(group.learning_rate_factor);
      const F decay = group.weight_decay;
      const F g = static_cast<F>(gradients[i]) * static_cast<F>(a.step->scale);
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      if (corrected) {
        w[i] = w[i] * (1 - rate * decay) - rate * (m[i] / unbias1) / (std::sqrt(v[i] / unbias2) + static_cast<F>(a.epsilon));
      } else {
        w[i] = w[i] - rate * (m[i] / (std::sqrt(v[i]) + static_cast<F>(a.epsilon)) + decay * w[i]);
      }
    }
  }
};

template <class T>
void train(std::int64_t blocks, BiasCorrection correction) {
  const std::int64_t count = blocks * kArenaBlock;
  const std::vector<AdamWGroup> groups{{.learning_rate_factor = 1.0F, .weight_decay = 0.01F},
                                       {.learning_rate_factor = 0.5F, .weight_decay = 0.0F}};
  std::vector<ArenaBlock> table(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i].group = i % 3 == 1 ? 1 : 0;
  std::array<std::vector<T>, 2> first;
  for (const CpuStream stream : streams()) {
    std::mt19937 random(7);
    const std::vector<T> start = normal_values<T>(random, count, 0.05);
    Guarded<T> w(count, start);
    Guarded<T> m(count, std::vector<T>(start.size(), 0));
    Guarded<T> v(count, std::vector<T>(start.size(), 0));
    Reference<Wide<T>, T> exact(start);
    Reference<T, T> plain(start);
    OptimizerStep step{.learning_rate = 1e-3F};
    for (int number = 1; number <= 6; ++number) {
      step.step = number;
      step.skip = number == 3 ? 1 : 0;
      if (step.skip == 0) ++step.updates;
      step.scale = number == 4 ? 0.25F : 1.0F;
      const std::vector<T> gradients = normal_values<T>(random, count, 0.01);
      Guarded<T> g(count, gradients);
      const AdamW<T> args{.weights = w.data(),
                          .m = m.data(),
                          .v = v.data(),
                          .gradients = g.data(),
                          .table = table.data(),
                          .groups = groups.data(),
                          .step = &step,
                          .beta1 = 0.9,
                          .beta2 = 0.999,
                          .epsilon = 1e-8,
                          .correction = correction,
                          .blocks = blocks};
      const std::vector<T> before = w.copy();
      adamw(stream, args);
      exact.update(gradients, args, table, groups);
      plain.update(gradients, args, table, groups);
      if (step.skip != 0) expect_same_bits(before, w.copy(), "a skipped step");
      expect_same_bits(gradients, g.copy(), "gradients");
    }
    const std::string name = std::to_string(blocks) + " blocks, " + name_of(stream);
    for (Guarded<T>* buffer : {&w, &m, &v}) buffer->expect_guards_whole(name);
    expect_exact_enough<T>(w.values(), exact.w, largest_error<T>(plain.w, exact.w), "w, " + name);
    expect_exact_enough<T>(m.values(), exact.m, largest_error<T>(plain.m, exact.m), "m, " + name);
    expect_exact_enough<T>(v.values(), exact.v, largest_error<T>(plain.v, exact.v), "v, " + name);
    std::vector<T>& reference = first[static_cast<std::size_t>(stream.target)];
    if (stream.threads == 1) reference = w.copy();
    expect_same_bits(reference, w.copy(), name);
  }
}

TYPED_TEST(OptimizerTest, AdamWFollowsItsDefinitionOverStepsOneOfThemSkipped) {
  for (const std::int64_t blocks : kBlocks) train<TypeParam>(blocks, BiasCorrection::corrected);
}

TYPED_TEST(OptimizerTest, UncorrectedAdamWIsThatOfGooglesBert) {
  for (const std::int64_t blocks : kBlocks) train<TypeParam>(blocks, BiasCorrection::uncorrected);
}

}  // namespace
}  // namespace lathe::testing
