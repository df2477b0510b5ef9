#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lathe/optim/adamw.h"
#include "lathe/optim/schedule.h"

namespace lathe {
namespace {

TEST(Schedule, WarmsUpThenDecaysToNothing) {
  const LinearSchedule schedule{.peak = 1.0, .warmup_steps = 4, .total_steps = 12};
  EXPECT_EQ(schedule.rate(0), 0.0);
  EXPECT_EQ(schedule.rate(1), 0.25);
  EXPECT_EQ(schedule.rate(4), 1.0);
  EXPECT_EQ(schedule.rate(8), 0.5);
  EXPECT_EQ(schedule.rate(12), 0.0);
  EXPECT_EQ(schedule.rate(13), 0.0);
  EXPECT_EQ((LinearSchedule{.peak = 2.0, .warmup_steps = 0, .total_steps = 1}.rate(0)), 2.0);
  EXPECT_EQ((LinearSchedule{.peak = 2.0, .warmup_steps = 5, .total_steps = 5}.rate(4)), 1.6);
}

/// Two parameters, one decayed, in an arena of doubles.
struct Fixture {
  Fixture()
      : decayed(set.add({.name = "w", .shape = {3}, .decay = Decay::yes, .initial = Initial::ones, .file_names = {}})),
        bias(set.add({.name = "b", .shape = {2}, .decay = Decay::no, .initial = Initial::ones, .file_names = {}})),
        arena(Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22}), DType::f64, set) {
    ParameterArena::initialise(decayed, 0, 0.0);
    ParameterArena::initialise(bias, 0, 0.0);
  }
  ParameterSet set;
  Parameter& decayed;
  Parameter& bias;
  ParameterArena arena;
};

TEST(AdamW, FollowsItsFormulaWithClippingAndDecay) {
  Fixture f;
  const AdamWSettings settings{
      .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.1, .max_norm = 1.0, .correction = BiasCorrection::corrected};
  AdamWOptimizer optimizer(f.arena, settings);
  std::array<double, 5> w = {1, 1, 1, 1, 1};
  std::array<double, 5> m{};
  std::array<double, 5> v{};
  for (int t = 1; t <= 5; ++t) {
    const std::array<double, 5> g = {0.5 * t, -0.25, 3.0, 0.0, -1.0 / t};
    double squares = 0.0;
    for (const double x : g) squares += x * x;
    for (std::size_t i = 0; i < 3; ++i) f.decayed.gradient.data<double>()[i] = g[i];
    for (std::size_t i = 0; i < 2; ++i) f.bias.gradient.data<double>()[i] = g[3 + i];
    optimizer.step(0.01);
    const double norm = std::sqrt(squares);
    EXPECT_NEAR(optimizer.last().norm, norm, 1e-6 * norm);
    const double scale = std::min(1.0, 1.0 / (norm + 1e-6));
    for (std::size_t i = 0; i < 5; ++i) {
      const double c = g[i] * scale;
      m[i] = 0.8 * m[i] + 0.2 * c;
      v[i] = 0.9 * v[i] + 0.1 * c * c;
      w[i] *= 1.0 - 0.01 * (i < 3 ? 0.1 : 0.0);
      w[i] -= 0.01 * (m[i] / (1.0 - std::pow(0.8, t))) / (std::sqrt(v[i] / (1.0 - std::pow(0.9, t))) + 1e-6);
      const double got = i < 3 ? f.decayed.value.data<double>()[i] : f.bias.value.data<double>()[i - 3];
      EXPECT_NEAR(got, w[i], 1e-7) << "step " << t << ", element " << i;
    }
  }
  EXPECT_EQ(optimizer.last().updates, 5);
}

TEST(AdamW, SkipsWhatIsNotANumberAndCountsIt) {
  Fixture f;
  AdamWOptimizer optimizer(f.arena, {});
  f.bias.gradient.data<double>()[0] = 1.0;
  optimizer.step(0.01);
  const double after_one = f.bias.value.data<double>()[0];
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    f.bias.gradient.data<double>()[0] = bad;
    optimizer.step(0.01);
    EXPECT_EQ(f.bias.value.data<double>()[0], after_one);
  }
  EXPECT_EQ(optimizer.last().skips, 2);
  EXPECT_EQ(optimizer.last().first_skip, 2);
  EXPECT_EQ(optimizer.last().updates, 1) << "the optimizer's own t stays";
  EXPECT_EQ(optimizer.last().step, 3);
  f.bias.gradient.data<double>()[0] = 1.0;
  optimizer.step(0.01);
  EXPECT_NE(f.bias.value.data<double>()[0], after_one);
  EXPECT_EQ(optimizer.last().skip, 0);
}

}  // namespace
}  // namespace lathe
