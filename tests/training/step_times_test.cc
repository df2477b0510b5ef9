#include "lathe/training/step_times.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "lathe/runtime/device.h"
#include "lathe/training/step_trace.h"

namespace lathe {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

RankSteps rank_steps(const StepSeconds& seconds, const std::vector<double>& work) {
  RankSteps steps{.seconds = seconds, .steps = static_cast<std::int64_t>(work.size()), .work = {}};
  for (std::size_t i = 0; i < work.size(); ++i) steps.work[i % RankSteps::kCompared] = work[i];
  return steps;
}

TEST(MeanOverRanks, TellsWaitingFromTheSumsThemselves) {
  // The ranks take turns at being slow: over both steps their work is the same, and each has waited 2 s for the other.
  const std::array ranks = {
      rank_steps({.data = 1.0, .compute = 7.0, .communication = 3.0, .optimizer = 0.5, .other = 0.25}, {3.0, 5.0}),
      rank_steps({.data = 1.0, .compute = 7.0, .communication = 5.0, .optimizer = 1.5, .other = 0.75}, {5.0, 3.0})};
  const StepSeconds mean = mean_over_ranks(ranks);
  EXPECT_EQ(mean.ranks, 2);
  EXPECT_DOUBLE_EQ(mean.data, 1.0);
  EXPECT_DOUBLE_EQ(mean.compute, 7.0);
  EXPECT_DOUBLE_EQ(mean.communication, 4.0);
  EXPECT_DOUBLE_EQ(mean.optimizer, 1.0);
  EXPECT_DOUBLE_EQ(mean.other, 0.5);
  EXPECT_DOUBLE_EQ(mean.waiting, 2.0);
  EXPECT_DOUBLE_EQ(mean.imbalance(), 0.25);
  EXPECT_DOUBLE_EQ(mean.total(), 13.5) << "waiting is a part of communication";
}

TEST(MeanOverRanks, TheComparedStepsStandForAll) {
  // Of 200 steps the last 64 are there, and of one rank 16 of them are unknown.
  std::vector<double> fast(200, 1.0);
  std::vector<double> slow(200, 3.0);
  for (std::size_t i = 150; i < 166; ++i) slow[i] = kUnknown;
  const std::array ranks = {rank_steps({.compute = 200.0}, fast), rank_steps({.compute = 600.0}, slow)};
  const StepSeconds mean = mean_over_ranks(ranks);
  EXPECT_DOUBLE_EQ(mean.waiting, 200.0);
  EXPECT_DOUBLE_EQ(mean.imbalance(), 0.5);
}

TEST(MeanOverRanks, NothingIsKnownOfNoSteps) {
  const std::array ranks = {RankSteps{}, RankSteps{}};
  EXPECT_EQ(mean_over_ranks(ranks).total(), 0.0);
  EXPECT_EQ(mean_over_ranks(ranks).imbalance(), 0.0);
}

TEST(StepTimes, PartsAndTheRestAreTheWallTime) {
  StepTimes times(Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 20}));
  for (int step = 0; step < 20; ++step) {
    times.begin();
    for (const StepPhase phase : {StepPhase::packed, StepPhase::uploaded, StepPhase::computed, StepPhase::uploaded,
                                  StepPhase::computed, StepPhase::summed, StepPhase::updated})
      times.reached(phase);
  }
  constexpr double kElapsed = 1000.0;
  const StepSeconds seconds = times.take(nullptr, kElapsed);
  EXPECT_DOUBLE_EQ(seconds.total(), kElapsed);
  for (const double part : {seconds.data, seconds.compute, seconds.communication, seconds.optimizer}) EXPECT_GT(part, 0.0);
  EXPECT_EQ(seconds.waiting, 0.0);
  EXPECT_EQ(seconds.ranks, 1);
  const StepSeconds after = times.take(nullptr, 1.0);
  EXPECT_EQ(after.other, 1.0) << "what was taken is gone";
}

TEST(StepSeconds, AddUp) {
  StepSeconds sum;
  sum += {.data = 1, .compute = 2, .communication = 3, .optimizer = 4, .other = 5, .waiting = 2, .ranks = 2};
  sum += {.data = 1, .compute = 2, .communication = 3, .optimizer = 4, .other = 5, .waiting = 1, .ranks = 2};
  EXPECT_EQ(sum.total(), 30.0);
  EXPECT_EQ(sum.waiting, 3.0);
  EXPECT_EQ(sum.ranks, 2);
  EXPECT_EQ(sum.imbalance(), 0.5);
}

TEST(ClockOffset, IsTheMedianDistance) {
  // 100 s behind, but for a rank that left a barrier late, and rank 0 another.
  const std::array<double, 5> first = {110.0, 120.0, 130.5, 140.0, 150.0};
  const std::array<double, 5> own = {10.0, 27.0, 30.0, 40.0, 50.0};
  EXPECT_DOUBLE_EQ(clock_offset(first, own).seconds, 100.0);
  EXPECT_DOUBLE_EQ(clock_offset(first, own).spread, 0.0);
  const std::array<double, 5> jitter = {10.25, 19.5, 30.0, 40.5, 49.75};
  EXPECT_DOUBLE_EQ(clock_offset(first, jitter).seconds, 100.25);
  EXPECT_DOUBLE_EQ(clock_offset(first, jitter).spread, 0.75);
}

}  // namespace
}  // namespace lathe
