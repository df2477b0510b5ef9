// A step's gradients: what rounding up and micro-batches must not change.
#include "lathe/training/step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/runtime/error.h"
#include "lathe/training/training_loop.h"

namespace lathe {
namespace {

BertSettings tiny() {
  return {.vocabulary = 40,
          .hidden_size = 16,
          .layers = 2,
          .heads = 2,
          .feed_forward = 32,
          .positions = 16,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-12,
          .hidden_dropout = 0.1,
          .attention_dropout = 0.1};
}

/// Sequences of these lengths, all labelled.
struct Data {
  explicit Data(const std::vector<std::int64_t>& lengths) {
    SampleLists lists;
    for (const std::int64_t length : lengths) {
      for (std::int64_t i = 0; i < length; ++i) {
        lists.ids.push_back(static_cast<std::int32_t>((7 * lists.ids.size() + 3) % 40));
        lists.types.push_back(i > length / 2 ? 1 : 0);
      }
      members.push_back(static_cast<std::int32_t>(labels.size()));
      labels.push_back(static_cast<std::int32_t>(labels.size() % 3));
      lists.offsets.push_back(static_cast<std::int64_t>(lists.ids.size()));
    }
    samples = std::move(lists);
  }
  TokenizedSamples samples;
  std::vector<std::int32_t> labels, members;
};

class StepTest : public testing::Test {
 protected:
  StepTest() {
    for (const Parameter& parameter : parameters_.all()) ParameterArena::initialise(parameter, 3, 0.2);
  }

  TrainingStep step() {
    return {arena_,
            [this](Tape& tape, const Batch& batch) { return cross_entropy_loss(tape, model_.forward(tape, batch), batch, {}); },
            Replay::graphs};
  }
  std::vector<double> gradients() const {
    std::vector<double> values(static_cast<std::size_t>(arena_.gradients().size()));
    arena_.gradients().copy_to<double>(values);
    return values;
  }
  struct Computed {
    double loss = 0.0;
    std::vector<double> gradients;
    std::size_t parts = 0;
  };
  Computed in_parts(const Data& data, std::int64_t budget) {
    TrainingStep training = step();
    StepBatches batches;
    batches.rows = std::ssize(data.members);
    for_each_part(data.samples, data.members, budget, [&](std::span<const std::int32_t> part, std::int32_t first) {
      auto& [packed, bucket] = batches.add();
      pack_sequences(data.samples, part, data.labels, first, packed);
      bucket = round_up(packed);
    });
    // What an earlier step left there is overwritten.
    compute_gradients(training, batches, {.seed = 9, .step = 3});
    compute_gradients(training, batches, {.seed = 9, .step = 4});
    return {.loss = training.loss(), .gradients = gradients(), .parts = batches.count};
  }

  DeviceRef device_ = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  ParameterSet parameters_;
  BertClassifier model_{parameters_, tiny(), 3, 0.1};
  ParameterArena arena_{device_, DType::f64, parameters_};
};

void expect_equal(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  double norm = 0.0;
  for (const double value : expected) norm += value * value;
  EXPECT_GT(norm, 0.0);
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-12 * std::sqrt(norm)) << i;
}

TEST_F(StepTest, MicroBatchesHaveTheGradientsAndTheLossOfTheBatch) {
  const Data data({5, 3, 16, 1, 9, 9, 2, 12});
  const Computed whole = in_parts(data, 0);
  EXPECT_EQ(whole.parts, 1U);
  for (const auto& [budget, parts] : {std::pair{1, 8U}, {10, 6U}, {24, 3U}, {1000, 1U}}) {
    const Computed cut = in_parts(data, budget);
    EXPECT_EQ(cut.parts, parts) << budget;
    EXPECT_NEAR(cut.loss, whole.loss, 1e-12) << budget;
    expect_equal(cut.gradients, whole.gradients);
  }
}

TEST_F(StepTest, NeedsGradients) {
  ParameterSet parameters;
  const BertClassifier model(parameters, tiny(), 3, 0.1);
  const ParameterArena arena(device_, DType::f32, parameters, ArenaUse::inference);
  EXPECT_THROW(TrainingStep(
                   arena, [](Tape&, const Batch&) { return Tensor(); }, Replay::off),
               LogicError);
}

TEST_F(StepTest, ABatchHasNoPlaceWhereOneOfOtherSizesWas) {
  const Data data({5, 3, 16, 16});
  PackedBatch small;
  PackedBatch large;
  pack_sequences(data.samples, std::vector<std::int32_t>{0}, data.labels, 0, small);
  pack_sequences(data.samples, data.members, data.labels, 0, large);
  round_up(small);
  round_up(large);
  const RandomKey key{.seed = 1, .step = 1};
  BatchMemory memory(device_, DType::f64, small, {.random_key = &key, .loss_denominator = 1.0});
  EXPECT_NO_THROW(memory.fill(small, {.random_key = &key, .loss_denominator = 2.0}));
  EXPECT_THROW(memory.fill(large, {.random_key = &key, .loss_denominator = 1.0}), LogicError);
  EXPECT_THROW(memory.fill(small, {.random_key = nullptr, .loss_denominator = 1.0}), LogicError);
}

}  // namespace
}  // namespace lathe
