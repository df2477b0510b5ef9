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
#include "tests/training/tiny_bert.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe {
namespace {

constexpr std::int64_t kSteps = 20;
constexpr std::uint32_t kSeed = 7;

struct Way {
  DType dtype = DType::f32;
  Replay replay = Replay::graphs;
  std::int64_t micro_batch_tokens = 0;
  Recompute recompute = Recompute::none;
};

/// The losses of training a classifier for so many steps, and the last step's gradients.
struct Trained {
  std::vector<double> losses;
  std::vector<float> gradients;
  std::int64_t graphs = 0;
  std::int64_t peak = 0;  // of the device's memory, bytes
};
Trained train(const DeviceRef& device, const Way& way, const Members& members, std::int64_t steps = kSteps) {
  ParameterSet parameters;
  const BertClassifier model(parameters, tiny(), 2, 0.1);
  ParameterArena arena(device, way.dtype, parameters);
  for (const Parameter& parameter : parameters.all()) ParameterArena::initialise(parameter, 3, 0.05);
  AdamWOptimizer optimizer(arena, {}, way.replay);
  TrainingStep step(
      arena,
      [&](Tape& tape, const Batch& batch) {
        return cross_entropy_loss(tape, model.forward(tape, batch, way.recompute), batch, {});
      },
      way.replay);
  const Data data = make_data(ClassToken::second);
  StepBatches batches;
  Trained trained;
  for (std::int64_t number = 0; number < steps; ++number) {
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
  EXPECT_EQ(optimizer.last().updates, steps);
  trained.gradients.resize(static_cast<std::size_t>(arena.gradients().size()));
  arena.gradients().copy_to<float>(trained.gradients);
  trained.graphs = step.graphs();
  trained.peak = device->memory().peak;
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
  // Of the emulation's detectors one can be switched off.
  void SetUp() override { EXPECT_TRUE(emulation::settings().guard_host); }
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

TEST_F(CudaStep, RecomputingGivesTheSameBits) {
  constexpr std::int64_t kFew = 2;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Replay replay : {Replay::graphs, Replay::off}) {
      Way way{.dtype = dtype, .replay = replay, .micro_batch_tokens = 80};
      const Trained kept = train(cuda(), way, varying, kFew);
      way.recompute = Recompute::blocks;
      const Trained again = train(cuda(), way, varying, kFew);
      EXPECT_EQ(again.losses, kept.losses) << to_string(dtype);
      EXPECT_EQ(again.gradients, kept.gradients) << to_string(dtype);
      EXPECT_EQ(again.graphs, kept.graphs);
      EXPECT_LT(again.peak, kept.peak) << to_string(dtype);
    }
  }
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
  const auto found = train(cuda(), {.dtype = DType::bf16}, same).losses;
  EXPECT_LT(found.back(), 0.9 * found.front());
}

#ifdef LATHE_EMULATED
TEST_F(CudaStep, GivesTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  using emulation::Order;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto expected = train(cuda(), {.dtype = dtype}, varying, 2).losses;
    const emulation::Settings before = emulation::settings();
    for (const Order order : {Order::reverse, Order::random}) {
      emulation::Settings other = before;
      other.threads = other.blocks = other.streams = order;
      emulation::configure(other);
      EXPECT_EQ(train(cuda(), {.dtype = dtype}, varying, 2).losses, expected) << to_string(dtype);
    }
    emulation::configure(before);
  }
}
#endif

}  // namespace
}  // namespace lathe
