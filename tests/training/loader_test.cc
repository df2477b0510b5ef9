#include "lathe/training/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lathe/runtime/error.h"
#include "lathe/training/finetune.h"

namespace lathe {
namespace {

std::vector<std::int32_t> epoch_of(SampleOrder& order, std::int64_t epoch) {
  std::vector<std::int32_t> seen;
  for (std::int64_t s = 0; s < order.steps_per_epoch(); ++s) {
    const auto batch = order.batch(epoch * order.steps_per_epoch() + s);
    seen.insert(seen.end(), batch.begin(), batch.end());
  }
  return seen;
}

TEST(SampleOrder, AnEpochHoldsEverySampleOnce) {
  SampleOrder order(10, 4, 1);
  EXPECT_EQ(order.steps_per_epoch(), 3);
  EXPECT_EQ(order.batch(2).size(), 2U) << "the last batch is smaller";
  const auto first = epoch_of(order, 0);
  const auto second = epoch_of(order, 1);
  EXPECT_NE(first, second);
  EXPECT_TRUE(std::is_permutation(first.begin(), first.end(), second.begin(), second.end()));
  EXPECT_EQ(*std::max_element(first.begin(), first.end()), 9);
}

TEST(SampleOrder, DependsOnTheSeedAloneNotOnTheBatchSize) {
  SampleOrder a(100, 7, 5);
  SampleOrder b(100, 32, 5);
  SampleOrder c(100, 32, 6);
  EXPECT_EQ(epoch_of(a, 1), epoch_of(b, 1));
  EXPECT_NE(epoch_of(b, 1), epoch_of(c, 1));
}

/// Samples of these lengths.
TokenizedSamples samples_of(const std::vector<std::int64_t>& lengths) {
  SampleLists samples;
  for (const std::int64_t length : lengths) {
    samples.ids.resize(samples.ids.size() + static_cast<std::size_t>(length), 7);
    samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
  }
  samples.types.resize(samples.ids.size(), 0);
  return samples;
}

TEST(TokenBatches, AnEpochHoldsEverySampleOnceInBatchesThatFit) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 200; ++i) lengths.push_back(3 + i * i % 30);
  const TokenizedSamples samples = samples_of(lengths);
  TokenBatches batches(samples, 64, 5);
  SampleOrder order(200, 1, 5);
  std::int64_t step = 0;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int32_t> seen;
    std::int64_t before = 0;  // tokens of the batch before
    do {
      const auto batch = batches.batch(step++);
      std::int64_t tokens = 0;
      for (const std::int32_t member : batch) tokens += samples.length(member);
      EXPECT_LE(tokens, 64);
      EXPECT_TRUE(before == 0 || before + samples.length(batch.front()) > 64) << "the batch before had room";
      before = tokens;
      seen.insert(seen.end(), batch.begin(), batch.end());
      EXPECT_EQ(batches.ends_epoch(step), seen.size() == 200);
    } while (!batches.ends_epoch(step));
    EXPECT_EQ(batches.epochs_at(step), epoch + 1);
    std::vector<std::int32_t> expected;
    for (std::int64_t i = 0; i < 200; ++i) expected.push_back(order.batch(std::int64_t{200} * epoch + i).front());
    EXPECT_EQ(seen, expected) << "in SampleOrder's order";
    if (epoch == 0) {
      EXPECT_EQ(step, batches.first_epoch_steps());
    }
  }
}

TEST(TokenBatches, StepsOfEpochsAreThoseThatCome) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 50; ++i) lengths.push_back(3 + i * 7 % 20);
  const TokenizedSamples samples = samples_of(lengths);
  TokenBatches batches(samples, 40, 2);
  const auto three = static_cast<std::int64_t>(batches.steps_of(3.0, 1e9));
  batches.batch(three - 1);
  EXPECT_EQ(batches.epochs_at(three), 3.0);
  EXPECT_TRUE(batches.ends_epoch(three));
  const auto half = batches.steps_of(0.5, 1e9);
  EXPECT_EQ(half, std::ceil(0.5 * static_cast<double>(batches.first_epoch_steps())));
  EXPECT_GT(batches.steps_of(1e300, 1e9), 1e9) << "at once";
  EXPECT_FALSE(batches.steps_of(std::numeric_limits<double>::quiet_NaN(), 1e9) <= 1e9);
}

TEST(FinetuneSteps, CountsEpochsFractionsAndWarmup) {
  FinetuneSettings settings;
  settings.batch_size = 32;
  settings.epochs = 3.0;
  EXPECT_EQ(finetune_steps(settings, 67349).total, 6315);
  EXPECT_EQ(finetune_steps(settings, 67349).warmup, 632) << "a tenth, rounded up";
  settings.epochs = 0.5;
  EXPECT_EQ(finetune_steps(settings, 320).total, 5);
  settings.max_steps = 7;
  EXPECT_EQ(finetune_steps(settings, 320).total, 7);
  settings.warmup_share.reset();
  settings.warmup_steps = 3;
  EXPECT_EQ(finetune_steps(settings, 320).warmup, 3);
}

TEST(FinetuneSteps, AreBounded) {
  FinetuneSettings settings;
  settings.max_steps = std::numeric_limits<std::int64_t>::max();
  EXPECT_THROW(finetune_steps(settings, 250), UsageError);
  settings.max_steps = 0;
  for (const double epochs : {1e300, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    settings.epochs = epochs;
    EXPECT_THROW(finetune_steps(settings, 250), UsageError) << epochs;
  }
}

}  // namespace
}  // namespace lathe
