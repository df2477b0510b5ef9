#include "lathe/training/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
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
