#include "lathe/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class Case>
class OptimizerTest : public ::testing::Test {};
// Arenas are fp32 on a GPU, whatever the model computes in.
#ifdef LATHE_HAS_CUDA
using OptimizerCases = ::testing::Types<Case<CudaStream, float>>;
#else
using OptimizerCases = Cases;
#endif
TYPED_TEST_SUITE(OptimizerTest, OptimizerCases, CaseNames);

/// Structs where a stream's kernels find them.
template <class V, class Stream>
class Structs {
 public:
  explicit Structs(std::vector<V> structs) : structs_(std::move(structs)) {}
  V* data() { return structs_.data(); }
  const std::vector<V>& values(const std::string& /*what*/) const { return structs_; }

 private:
  std::vector<V> structs_;
};
#ifdef LATHE_HAS_CUDA
template <class V>
class Structs<V, CudaStream> : public DeviceBuffer<V> {
 public:
  using DeviceBuffer<V>::DeviceBuffer;
};
#endif

/// Sizes in blocks: none, one, few, and enough for threads.
constexpr std::array<std::int64_t, 4> kBlocks{0, 1, 7, 131};

TYPED_TEST(OptimizerTest, SquaredNormsAreExactEnough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t blocks : kBlocks) {
    SCOPED_TRACE(::testing::Message() << blocks << " blocks");
    const std::vector<T> gradients = random_values<T>(blocks * kArenaBlock, 1);
    std::vector<Reference<T>> exact(static_cast<std::size_t>(blocks), 0);
    std::vector<T> plain(static_cast<std::size_t>(blocks), 0);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const std::size_t block = i / static_cast<std::size_t>(kArenaBlock);
      exact[block] += static_cast<Reference<T>>(gradients[i]) * static_cast<Reference<T>>(gradients[i]);
      plain[block] += gradients[i] * gradients[i];
    }
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> g(gradients);
          Buffer<T, Stream> sums(blocks);
          squared_norms(stream, SquaredNorms<T>{.block_sums = sums.data(), .gradients = g.data(), .blocks = blocks});
          Outputs outputs;
          outputs.add("block_sums", sums.values("block_sums"));
          return outputs;
        },
        [&](const Outputs& outputs) { expect_accurate<T>("block_sums", outputs.get<T>("block_sums"), plain, exact); });
  }
}

TYPED_TEST(OptimizerTest, SquaredNormsLetNotANumberAndInfinityThroughToTheirBlock) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  std::vector<T> gradients(3 * kArenaBlock, T{1});
  gradients[5] = std::numeric_limits<T>::quiet_NaN();
  gradients[3 * kArenaBlock - 1] = -std::numeric_limits<T>::infinity();
  on_every_way<Stream>(
      [&](Stream stream) {
        const Buffer<T, Stream> g(gradients);
        Buffer<T, Stream> sums(3);
        squared_norms(stream, SquaredNorms<T>{.block_sums = sums.data(), .gradients = g.data(), .blocks = 3});
        Outputs outputs;
        outputs.add("block_sums", sums.values("block_sums"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        const std::vector<T>& sums = outputs.get<T>("block_sums");
        EXPECT_TRUE(std::isnan(sums[0]));
        EXPECT_EQ(sums[1], T{1024});
        EXPECT_EQ(sums[2], std::numeric_limits<T>::infinity());
      });
}

/// What clip_scale() makes of a step.
template <class Stream, class T>
OptimizerStep clipped(Stream stream, const OptimizerStep& before, const std::vector<T>& block_sums) {
  Structs<OptimizerStep, Stream> step(std::vector<OptimizerStep>{before});
  const Buffer<T, Stream> sums(block_sums);
  clip_scale(stream, ClipScale<T>{.step = step.data(), .block_sums = sums.data(), .blocks = sums.size()});
  return step.values("step").front();
}

/// Calls check(clip) in every way of the backend, where clip(step, block_sums) is what clip_scale() makes of the step.
template <class Stream, class T, class Check>
void on_every_clip(const Check& check) {
  on_every_way<Stream>(
      [&](Stream stream) {
        check([&](const OptimizerStep& step, const std::vector<T>& sums) { return clipped<Stream, T>(stream, step, sums); });
        return Outputs();
      },
      [](const Outputs&) {});
}

TYPED_TEST(OptimizerTest, ClipScaleIsThatOfClipGradNorm) {
  on_every_clip<typename TypeParam::Stream, typename TypeParam::T>([](const auto& clip) {
    const OptimizerStep above = clip({.max_norm = 1.0F, .updates = 4}, {9, 0, 16});
    EXPECT_EQ(above.norm, 5.0F);
    EXPECT_EQ(above.scale, static_cast<float>(1.0 / (5.0 + 1e-6)));
    EXPECT_EQ(above.updates, 5);
    EXPECT_EQ(above.skip, 0);
    EXPECT_EQ(above.skips, 0);
    EXPECT_EQ(above.first_skip, -1);

    EXPECT_EQ(clip({.max_norm = 6.0F}, {9, 0, 16}).scale, 1.0F) << "below the limit";
    EXPECT_EQ(clip({.max_norm = 0.0F}, {9, 0, 16}).scale, 1.0F) << "no limit";
    EXPECT_EQ(clip({.max_norm = 1.0F}, {}).scale, 1.0F) << "no gradients";
    EXPECT_EQ(clip({.max_norm = 1.0F}, {0, 0}).norm, 0.0F);
  });
}

TYPED_TEST(OptimizerTest, ClipScaleSumsInDoublePrecision) {
  // Ones after 2^24: each would be lost in fp32.
  std::vector<typename TypeParam::T> sums(4097, 1);
  sums[0] = 16777216;
  on_every_clip<typename TypeParam::Stream, typename TypeParam::T>([&](const auto& clip) {
    EXPECT_EQ(clip({.max_norm = 0.0F}, sums).norm, static_cast<float>(std::sqrt(16777216.0 + 4096.0)));
  });
}

TYPED_TEST(OptimizerTest, ANormThatIsNotFiniteSkipsTheStepAndIsCounted) {
  using T = typename TypeParam::T;
  const T infinity = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  on_every_clip<typename TypeParam::Stream, T>([&](const auto& clip) {
    OptimizerStep step{.max_norm = 1.0F, .step = 11, .updates = 7};
    step = clip(step, {1, infinity});
    EXPECT_EQ(step.skip, 1);
    EXPECT_EQ(step.skips, 1);
    EXPECT_EQ(step.first_skip, 11);
    EXPECT_EQ(step.updates, 7);
    EXPECT_FALSE(std::isfinite(step.norm));
    step.step = 12;
    step = clip(step, {nan, 1});
    EXPECT_EQ(step.skip, 1);
    EXPECT_EQ(step.skips, 2);
    EXPECT_EQ(step.first_skip, 11);
    EXPECT_EQ(step.updates, 7);
    step.step = 13;
    step = clip(step, {4, 0});
    EXPECT_EQ(step.skip, 0);
    EXPECT_EQ(step.skips, 2);
    EXPECT_EQ(step.updates, 8);
    EXPECT_EQ(step.norm, 2.0F);
  });
}

TEST(OptimizerStepTest, ANormBeyondFp32IsNotFinite) {
  EXPECT_EQ((clipped<CpuStream, double>({}, {.max_norm = 1.0F}, {1e300}).skip), 1);
}

/// AdamW as its paper has it, element by element in F, from gradients in T.
template <class F, class T>
struct Definition {
  std::vector<F> w, m, v;

  explicit Definition(const std::vector<T>& weights)
      : w(weights.begin(), weights.end()), m(weights.size(), F{0}), v(weights.size(), F{0}) {}

  void update(const std::vector<T>& gradients, const AdamW<T>& a, const OptimizerStep& step, const std::vector<ArenaBlock>& table,
              const std::vector<AdamWGroup>& groups) {
    if (step.skip != 0) return;
    const bool corrected = a.correction == BiasCorrection::corrected;
    const auto t = static_cast<F>(step.updates);
    const auto beta1 = static_cast<F>(a.beta1);
    const auto beta2 = static_cast<F>(a.beta2);
    const F unbias1 = corrected ? 1 - std::pow(static_cast<F>(a.beta1), t) : F{1};
    const F unbias2 = corrected ? 1 - std::pow(static_cast<F>(a.beta2), t) : F{1};
    for (std::size_t i = 0; i < w.size(); ++i) {
      const AdamWGroup& group = groups[static_cast<std::size_t>(table[i / kArenaBlock].group)];
      const F rate = static_cast<F>(step.learning_rate) * static_cast<F>(group.learning_rate_factor);
      const F decay = group.weight_decay;
      const F g = static_cast<F>(gradients[i]) * static_cast<F>(step.scale);
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

enum class Working { absent, present };

template <class Stream, class T>
void train(std::int64_t blocks, BiasCorrection correction, Working working) {
  SCOPED_TRACE(::testing::Message() << blocks << " blocks");
  const std::int64_t count = blocks * kArenaBlock;
  const std::vector<AdamWGroup> groups{{.learning_rate_factor = 1.0F, .weight_decay = 0.01F},
                                       {.learning_rate_factor = 0.5F, .weight_decay = 0.0F}};
  std::vector<ArenaBlock> table(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i].group = i % 3 == 1 ? 1 : 0;
  const std::vector<T> start = random_values<T>(count, 7, 0.0, 0.05);
  const std::vector<T> zeros(start.size(), 0);
  AdamW<T> settings{};
  settings.beta1 = 0.9;
  settings.beta2 = 0.999;
  settings.epsilon = 1e-8;
  settings.correction = correction;
  settings.blocks = blocks;
  const auto gradients_of = [&](int number) { return random_values<T>(count, 100 + static_cast<unsigned>(number), 0.0, 0.01); };
  std::vector<OptimizerStep> steps;
  for (int number = 1; number <= 6; ++number) {
    OptimizerStep step = steps.empty() ? OptimizerStep{.learning_rate = 1e-3F} : steps.back();
    step.step = number;
    step.skip = number == 3 ? 1 : 0;
    if (step.skip == 0) ++step.updates;
    step.scale = number == 4 ? 0.25F : 1.0F;
    steps.push_back(step);
  }
  Definition<Reference<T>, T> exact(start);
  Definition<T, T> plain(start);
  for (const OptimizerStep& step : steps) {
    exact.update(gradients_of(step.step), settings, step, table, groups);
    plain.update(gradients_of(step.step), settings, step, table, groups);
  }
  on_every_way<Stream>(
      [&](Stream stream) {
        Buffer<T, Stream> w(start);
        Buffer<T, Stream> m(zeros);
        Buffer<T, Stream> v(zeros);
        Buffer<Bf16, Stream> copy(working == Working::present ? count : 0);
        Structs<ArenaBlock, Stream> blocks_of(table);
        Structs<AdamWGroup, Stream> groups_of(groups);
        for (const OptimizerStep& step : steps) {
          Structs<OptimizerStep, Stream> device_step(std::vector<OptimizerStep>{step});
          const Buffer<T, Stream> g(gradients_of(step.step));
          AdamW<T> args = settings;
          args.weights = w.data();
          args.m = m.data();
          args.v = v.data();
          args.working = working == Working::present ? copy.data() : nullptr;
          args.gradients = g.data();
          args.table = blocks_of.data();
          args.groups = groups_of.data();
          args.step = device_step.data();
          const std::vector<T> before = w.values("weights");
          const std::vector<T> copy_of_before = m.values("m");
          adamw(stream, args);
          if (step.skip != 0) {
            EXPECT_EQ(w.values("weights"), before) << "a skipped step";
            EXPECT_EQ(m.values("m"), copy_of_before) << "a skipped step";
          }
          EXPECT_EQ(g.values("gradients"), gradients_of(step.step));
        }
        Outputs outputs;
        outputs.add("w", w.values("weights"));
        outputs.add("m", m.values("m"));
        outputs.add("v", v.values("v"));
        if (working == Working::present) outputs.add("working", copy.values("working"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        const std::vector<T>& w = outputs.get<T>("w");
        expect_accurate<T>("w", w, plain.w, exact.w);
        expect_accurate<T>("m", outputs.get<T>("m"), plain.m, exact.m);
        expect_accurate<T>("v", outputs.get<T>("v"), plain.v, exact.v);
        if (working == Working::absent) return;
        const std::vector<Bf16>& copy = outputs.get<Bf16>("working");
        for (std::size_t i = 0; i < w.size(); ++i) {
          ASSERT_EQ(copy[i].bits, Bf16(w[i]).bits) << "working copy, index " << i << " of " << w[i];
        }
      });
}

TYPED_TEST(OptimizerTest, AdamWFollowsItsDefinitionOverStepsOneOfThemSkipped) {
  for (const std::int64_t blocks : kBlocks) {
    train<typename TypeParam::Stream, typename TypeParam::T>(blocks, BiasCorrection::corrected, Working::present);
  }
}

TYPED_TEST(OptimizerTest, UncorrectedAdamWIsThatOfGooglesBert) {
  for (const std::int64_t blocks : kBlocks) {
    train<typename TypeParam::Stream, typename TypeParam::T>(blocks, BiasCorrection::uncorrected, Working::absent);
  }
}

TYPED_TEST(OptimizerTest, ASkippedStepLeavesTheWorkingCopyAlone) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::vector<T> ones(kArenaBlock, T{1});
  const std::vector<Bf16> before(kArenaBlock, Bf16(3.0F));
  on_every_way<Stream>(
      [&](Stream stream) {
        Buffer<T, Stream> arena(ones);
        Buffer<T, Stream> m(ones);
        Buffer<T, Stream> v(ones);
        const Buffer<T, Stream> g(ones);
        Buffer<Bf16, Stream> working(before);
        Structs<ArenaBlock, Stream> table(std::vector<ArenaBlock>{{.tensor = 0, .group = 0}});
        Structs<AdamWGroup, Stream> groups(std::vector<AdamWGroup>{{}});
        Structs<OptimizerStep, Stream> step(std::vector<OptimizerStep>{{.learning_rate = 1.0F, .updates = 1, .skip = 1}});
        adamw(stream, AdamW<T>{.weights = arena.data(),
                               .m = m.data(),
                               .v = v.data(),
                               .working = working.data(),
                               .gradients = g.data(),
                               .table = table.data(),
                               .groups = groups.data(),
                               .step = step.data(),
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .epsilon = 1e-8,
                               .correction = BiasCorrection::corrected,
                               .blocks = 1});
        Outputs outputs;
        outputs.add("working", working.values("working"));
        outputs.add("v", v.values("v"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        EXPECT_EQ(plain_values(outputs.get<Bf16>("working")), plain_values(before));
        EXPECT_EQ(outputs.get<T>("v"), ones);
      });
}

}  // namespace
}  // namespace lathe::test
