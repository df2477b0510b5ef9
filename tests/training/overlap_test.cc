// Gradients are summed over ranks beside the rest of backward: what begins when, that nothing is sent too early, and that no bit depends on it. On
// the emulated device, alone and with NCCL's twin between ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/settings.h"
#include "lathe/kernels/emulation/trace.h"
#include "lathe/layers/bert.h"
#include "lathe/optim/adamw.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "lathe/text/packing.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/training_loop.h"
#include "tests/runtime/communicator_case.h"

namespace lathe {
namespace {

using emulation::Order;

constexpr std::int64_t kVocabulary = 40;
constexpr std::int64_t kBucketBytes = 8 * 4096;
constexpr std::int64_t kSteps = 2;

/// A masked language model, whose decoder is the word embeddings: their gradient has two parts, at backward's beginning and at its end.
BertSettings tiny() {
  return {.vocabulary = kVocabulary,
          .hidden_size = 32,
          .layers = 2,
          .heads = 2,
          .feed_forward = 64,
          .positions = 16,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-12,
          .hidden_dropout = 0.1,
          .attention_dropout = 0.1};
}

/// How steps are taken.
struct Way {
  std::string_view name;
  Replay replay = Replay::graphs;
  std::int64_t micro_batch_tokens = 0;
  Recompute recompute = Recompute::none;
  /// Whether the last rank has no samples.
  bool idle_rank = false;
};
std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

/// When the sums are begun.
enum class Sums : std::uint8_t { beside_backward, after_backward };

/// What a rank has computed.
struct Trained {
  std::vector<double> losses;
  std::vector<float> gradients;
  std::ptrdiff_t buckets = 0;
  std::ptrdiff_t early_buckets = 0;               // that are complete before backward comes to the embeddings, its last function
  std::vector<emulation::TracedOperation> trace;  // of the last step, without its update
};

/// Settings of the emulation while it lives.
class Emulated {
 public:
  explicit Emulated(Order streams) {
    emulation::Settings settings = before_;
    settings.streams = streams;
    settings.trace = true;
    emulation::configure(settings);
    emulation::take_trace();
  }
  ~Emulated() { emulation::configure(before_); }
  Emulated(const Emulated&) = delete;
  Emulated& operator=(const Emulated&) = delete;
  Emulated(Emulated&&) = delete;
  Emulated& operator=(Emulated&&) = delete;

 private:
  emulation::Settings before_ = emulation::settings();
};

class OverlapTest : public testing::Test {
 protected:
  OverlapTest() {
    SampleLists samples;
    for (const std::int64_t length : {5, 9, 3, 12, 2, 7, 11, 4}) {
      for (std::int64_t i = 0; i < length; ++i) {
        samples.ids.push_back(static_cast<std::int32_t>((7 * i + 3 * length) % kVocabulary));
        samples.types.push_back(0);
      }
      labels_.push_back(static_cast<std::int32_t>(5 * length % kVocabulary));
      samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
    }
    samples_ = std::move(samples);
  }
  bool is_last() const { return bootstrap_->rank() == bootstrap_->size() - 1; }

  /// The batches of a step: of this rank's samples, whose labelled rows are first tokens.
  void pack(const Way& way, std::int64_t step, StepBatches& batches) const {
    constexpr std::int32_t kOfStep = 4;
    batches.count = 0;
    batches.rows = kOfStep;
    std::vector<std::int32_t> members(kOfStep);
    for (std::int32_t i = 0; i < kOfStep; ++i)
      members[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(kOfStep * (step % 2)) + i;
    const int ranks = bootstrap_->size() - (way.idle_rank && bootstrap_->size() > 1 ? 1 : 0);
    if (way.idle_rank && is_last()) return;
    const RankPart part = rank_part(samples_, members, bootstrap_->rank(), ranks);
    for_each_part(samples_, part.members, way.micro_batch_tokens, [&](std::span<const std::int32_t> some, std::int32_t first) {
      auto& [packed, bucket] = batches.add();
      pack_sequences(samples_, some, labels_, part.first + first, packed);
      bucket = round_up(packed);
    });
  }

  /// A model and what trains it.
  struct Training {
    Training(const OverlapTest& test, const Way& way)
        : arena(test.device_, DType::f32, parameters),
          sum(test.gpus_.get(), arena, kBucketBytes),
          step(
              arena,
              [this, way](Tape& tape, const Batch& batch) {
                return cross_entropy_loss(tape, model.forward(tape, batch, way.recompute), batch, model.loss_settings());
              },
              way.replay),
          optimizer(arena, {}, way.replay) {
      for (const Parameter& parameter : parameters.all()) ParameterArena::initialise(parameter, 3, 0.1);
    }
    ParameterSet parameters;
    BertMaskedLm model{parameters, tiny()};
    ParameterArena arena;
    GradientSum sum;
    GradientBuckets buckets{arena, kBucketBytes};  // for tests that sum them by hand
    TrainingStep step;
    AdamWOptimizer optimizer;
  };

  Trained train(const Way& way, Sums sums, Order streams) const {
    const Emulated emulated(streams);
    Training training(*this, way);
    if (sums == Sums::beside_backward) training.sum.follow(training.step);
    Trained trained;
    trained.buckets = std::ssize(training.sum.buckets());
    trained.early_buckets = std::ranges::count_if(training.sum.buckets(), [&](const Tensor& bucket) {
      return std::ranges::none_of(training.parameters.all(), [&](const Parameter& parameter) {
        return parameter.name.starts_with("embeddings.") && bucket.overlaps(parameter.gradient);
      });
    });
    StepBatches batches;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      pack(way, step, batches);
      device_->synchronize();
      emulation::take_trace();
      compute_gradients(training.step, batches, {.seed = 9, .step = static_cast<std::uint32_t>(step)});
      training.sum.run();
      trained.losses.push_back(training.step.loss());
      trained.trace = emulation::take_trace();
      trained.gradients.resize(static_cast<std::size_t>(training.arena.gradients().size()));
      training.arena.gradients().copy_to<float>(trained.gradients);
      training.optimizer.step(1e-3);
    }
    gpus_->wait();
    device_->synchronize();
    return trained;
  }

  DeviceRef device_ = Device::cuda({});
  std::unique_ptr<Communicator> bootstrap_ = test::mpi_ranks() > 0 ? make_mpi_communicator({}) : make_single_communicator();
  std::unique_ptr<Communicator> gpus_ = make_nccl_communicator(device_, *bootstrap_, {});
  TokenizedSamples samples_;
  std::vector<std::int32_t> labels_;
};

/// How many sums began before the last kernel of backward. The last is one of the embeddings, as the first of forward is.
std::ptrdiff_t begun_in_backward(const Trained& trained) {
  std::uint64_t last = 0;
  std::vector<std::uint64_t> sums;
  for (const emulation::TracedOperation& operation : trained.trace) {
    if (operation.name.starts_with("embedding")) last = std::max(last, operation.began);
    if (operation.name == "a collective of NCCL") sums.push_back(operation.began);
  }
  EXPECT_EQ(std::ssize(sums), trained.buckets);
  return std::ranges::count_if(sums, [&](std::uint64_t began) { return began < last; });
}

class OverlapWaysTest : public OverlapTest, public testing::WithParamInterface<Way> {};

TEST_P(OverlapWaysTest, SumsBeginWhileBackwardGoesOnAndNoBitDependsOnIt) {
  const Way& way = GetParam();
  const Trained after = train(way, Sums::after_backward, Order::reverse);
  EXPECT_GE(after.early_buckets, 3);
  EXPECT_EQ(begun_in_backward(after), 0);
  for (const Order order : {Order::reverse, Order::forward, Order::random}) {
    const Trained beside = train(way, Sums::beside_backward, order);
    EXPECT_EQ(beside.losses, after.losses);
    EXPECT_EQ(beside.gradients, after.gradients);
    // In reverse order the communicator's stream goes first, as soon as it may; a rank without samples has no backward.
    if (order != Order::reverse || (way.idle_rank && is_last())) continue;
    if (bootstrap_->size() == 1) {
      EXPECT_EQ(begun_in_backward(beside), beside.early_buckets);
    } else {
      EXPECT_GE(begun_in_backward(beside), 1) << "later ones wait for other ranks";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, OverlapWaysTest,
                         testing::Values(Way{.name = "Graphs"}, Way{.name = "KernelByKernel", .replay = Replay::off},
                                         Way{.name = "MicroBatches", .micro_batch_tokens = 12},
                                         Way{.name = "RecomputedBlocks", .recompute = Recompute::blocks},
                                         Way{.name = "KernelByKernelInMicroBatchesRecomputed",
                                             .replay = Replay::off,
                                             .micro_batch_tokens = 12,
                                             .recompute = Recompute::blocks},
                                         Way{.name = "ARankWithoutSamples", .idle_rank = true}),
                         [](const auto& way) { return std::string(way.param.name); });

/// What may be wrong with what a bucket waits for.
enum class Planted : std::uint8_t { recorded_before_backward, of_the_bucket_before, not_awaited };

class OverlapFaultsTest : public OverlapTest, public testing::WithParamInterface<std::tuple<Planted, Replay, Order>> {};

TEST_P(OverlapFaultsTest, AreFoundInAnyOrder) {
  const auto [planted, replay, streams] = GetParam();
  const Emulated emulated(streams);
  const Way way{.name = "", .replay = replay};
  Training training(*this, way);
  GradientBuckets& buckets = training.buckets;
  if (planted == Planted::recorded_before_backward) {
    buckets.all_ready();
  } else {
    training.step.mark(buckets);
  }
  StepBatches batches;
  pack(way, 0, batches);
  compute_gradients(training.step, batches, {.seed = 9, .step = 0});
  if (planted != Planted::not_awaited) gpus_->follow(buckets.complete(0));
  gpus_->all_reduce_sum(buckets.gradients()[planted == Planted::of_the_bucket_before ? 1 : 0]);
  try {
    gpus_->wait();
    device_->synchronize();
    ADD_FAILURE() << "gradients were sent that weren't complete";
  } catch (const emulation::Fault& fault) {
    EXPECT_EQ(fault.kind(), emulation::FaultKind::stream_order) << fault.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Planted, OverlapFaultsTest,
    testing::Combine(testing::Values(Planted::recorded_before_backward, Planted::of_the_bucket_before, Planted::not_awaited),
                     testing::Values(Replay::graphs, Replay::off), testing::Values(Order::forward, Order::reverse)));

}  // namespace
}  // namespace lathe
