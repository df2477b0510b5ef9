// A whole BERT that trains on a CUDA device, emulated or real: the losses of the CPU.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/optim/adamw.h"
#include "lathe/runtime/random.h"
#include "lathe/runtime/tape.h"
#include "lathe/text/packing.h"
#include "lathe/training/training_loop.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe {
namespace {

constexpr std::int64_t kVocabulary = 300;
constexpr std::int64_t kSteps = 20;
constexpr std::uint32_t kSeed = 7;

BertSettings tiny() {
  return {.vocabulary = kVocabulary,
          .hidden_size = 64,
          .layers = 2,
          .heads = 2,
          .feed_forward = 128,
          .positions = 64,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-12,
          .hidden_dropout = 0.1,
          .attention_dropout = 0.1};
}

/// Sequences of 1 to 64 tokens, whose class is that of their second token, an even number or an odd one.
struct Data {
  TokenizedSamples samples;
  std::vector<std::int32_t> labels;
};
Data make_data() {
  const RandomNumbers random(11, RandomUse::split, 0);
  std::uint64_t draw = 0;
  Data data;
  for (const std::int64_t length : {3, 64, 9, 17, 2, 33, 5, 12, 40, 7, 21, 4, 15, 1, 8, 27}) {
    for (std::int64_t i = 0; i < length; ++i) {
      data.samples.ids.push_back(i == 0 ? 1 : static_cast<std::int32_t>(2 + random.bits(draw++) % (kVocabulary - 2)));
      data.samples.types.push_back(i > length / 2 ? 1 : 0);
    }
    data.labels.push_back(length > 1 ? data.samples.ids[data.samples.ids.size() - static_cast<std::size_t>(length) + 1] % 2 : 0);
    data.samples.offsets.push_back(static_cast<std::int64_t>(data.samples.ids.size()));
  }
  return data;
}

/// Which samples a step sees.
using Members = std::function<std::array<std::int32_t, 6>(std::int64_t)>;
/// Some 120 tokens a step, other ones each time.
std::array<std::int32_t, 6> varying(std::int64_t step) {
  std::array<std::int32_t, 6> members{};
  for (std::size_t i = 0; i < members.size(); ++i)
    members[i] = static_cast<std::int32_t>((6 * step + 5 * static_cast<std::int64_t>(i)) % 16);
  return members;
}

struct Way {
  DType dtype = DType::f32;
  Replay replay = Replay::graphs;
  std::int64_t micro_batch_tokens = 0;
};

/// The losses of training a classifier, and the last step's gradients.
struct Trained {
  std::vector<double> losses;
  std::vector<float> gradients;
  std::int64_t graphs = 0;
};
Trained train(const DeviceRef& device, const Way& way, const Members& members) {
  ParameterSet parameters;
  const BertClassifier model(parameters, tiny(), 2, 0.1);
  const ParameterArena arena(device, way.dtype, parameters);
  for (const Parameter& parameter : parameters.all()) ParameterArena::initialise(parameter, 3, 0.05);
  AdamWOptimizer optimizer(arena, {}, way.replay);
  TrainingStep step(
      arena, [&](Tape& tape, const Batch& batch) { return cross_entropy_loss(tape, model.forward(tape, batch), batch, {}); },
      way.replay);
  const Data data = make_data();
  StepBatches batches;
  Trained trained;
  for (std::int64_t number = 0; number < kSteps; ++number) {
    const auto chosen = members(number);
    batches.count = 0;
    batches.rows = std::ssize(chosen);
    for_each_part(data.samples, chosen, way.micro_batch_tokens, [&](std::span<const std::int32_t> part, std::int32_t first) {
      auto& [packed, bucket] = batches.add();
      pack_sequences(data.samples, part, data.labels, first, packed);
      bucket = round_up(packed);
    });
    compute_gradients(step, batches, {.seed = kSeed, .step = static_cast<std::uint32_t>(number)});
    optimizer.step(1e-3);
    trained.losses.push_back(step.loss());
#ifdef LATHE_EMULATED
    if (way.replay == Replay::graphs && device->kind() == DeviceKind::cuda) {
      for (std::size_t i = 0; i < batches.count; ++i)
        step.expect_replay_is_current(batches.micro_batches[i].bucket, i == 0 ? Use::write : Use::add);
    }
#endif
  }
  EXPECT_EQ(optimizer.last().updates, kSteps);
  trained.gradients.resize(static_cast<std::size_t>(arena.gradients().size()));
  arena.gradients().copy_to<float>(trained.gradients);
  trained.graphs = step.graphs();
  return trained;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

DeviceRef cpu() { return Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}); }
DeviceRef cuda() { return Device::cuda({}); }

class CudaStep : public testing::Test {
#ifdef LATHE_EMULATED
 protected:
  void TearDown() override { EXPECT_NO_THROW(emulation::expect_nothing_alive()); }
#endif
};

TEST_F(CudaStep, Fp32HasTheLossesOfTheCpu) {
  const Trained expected = train(cpu(), {}, varying);
  const Trained actual = train(cuda(), {}, varying);
  for (std::size_t step = 0; step < expected.losses.size(); ++step)
    EXPECT_NEAR(actual.losses[step], expected.losses[step], 1e-4) << "step " << step + 1;
  EXPECT_EQ(expected.graphs, 0);
  EXPECT_GE(actual.graphs, 1);
  EXPECT_LT(actual.graphs, kSteps) << "batches of a bucket share a graph";
}

TEST_F(CudaStep, Bf16HasTheLossesOfTheCpuToTwoPercent) {
  const Trained expected = train(cpu(), {}, varying);
  const Trained actual = train(cuda(), {.dtype = DType::bf16}, varying);
  for (std::size_t step = 0; step < expected.losses.size(); ++step)
    EXPECT_NEAR(actual.losses[step], expected.losses[step], 0.02 * expected.losses[step]) << "step " << step + 1;
}

TEST_F(CudaStep, GraphsAndKernelsOneByOneGiveTheSameBits) {
  const Trained graphs = train(cuda(), {.dtype = DType::bf16, .replay = Replay::graphs, .micro_batch_tokens = 80}, varying);
  const Trained kernels = train(cuda(), {.dtype = DType::bf16, .replay = Replay::off, .micro_batch_tokens = 80}, varying);
  EXPECT_EQ(graphs.losses, kernels.losses);
  EXPECT_EQ(graphs.gradients, kernels.gradients);
  EXPECT_EQ(kernels.graphs, 0);
}

TEST_F(CudaStep, MicroBatchesHaveTheGradientsOfTheBatch) {
  for (const DeviceRef& device : {cpu(), cuda()}) {
    const Trained whole = train(device, {}, varying);
    const Trained parts = train(device, {.dtype = DType::f32, .replay = Replay::graphs, .micro_batch_tokens = 50}, varying);
    for (std::size_t step = 0; step < whole.losses.size(); ++step)
      EXPECT_NEAR(parts.losses[step], whole.losses[step], 1e-4) << "step " << step + 1;
    EXPECT_LE(distance(parts.gradients, whole.gradients), 1e-3) << "after 20 steps apart";
  }
}

TEST_F(CudaStep, LearnsABatchThatIsRepeated) {
  const auto same = [](std::int64_t) { return varying(0); };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto found = train(cuda(), {.dtype = dtype}, same).losses;
    EXPECT_LT(found.back(), 0.9 * found.front()) << to_string(dtype);
  }
}

}  // namespace
}  // namespace lathe
