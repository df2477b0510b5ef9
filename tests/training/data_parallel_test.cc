// Ranks that train one model together come to what a run alone does: on the CPU, and in the emulation on a GPU each, between which NCCL's twin
// goes. Every rank also trains alone, and compares.
#include "lathe/training/data_parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lathe/kernels/optimizer.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/finetune.h"
#include "lathe/training/pretrain.h"
#include "tests/runtime/communicator_case.h"
#include "tests/temporary_folder.h"
#include "tests/training/near.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_samples.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

TokenizedSamples of_lengths(const std::vector<std::int64_t>& lengths) {
  SampleLists samples;
  for (const std::int64_t length : lengths) samples.offsets.push_back(samples.offsets.back() + length);
  return samples;
}

TEST(RankPart, PartsFollowEachOtherAndCarryEqualWork) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 500; ++i) lengths.push_back(1 + (i * i * 7919) % 127);
  const TokenizedSamples samples = of_lengths(lengths);
  std::vector<std::int32_t> members(300);
  for (std::size_t i = 0; i < members.size(); ++i) members[i] = static_cast<std::int32_t>((i * 211) % 500);
  const auto tokens_of = [&](std::span<const std::int32_t> some) {
    return std::accumulate(some.begin(), some.end(), std::int64_t{0},
                           [&](std::int64_t sum, std::int32_t member) { return sum + samples.length(member); });
  };
  const std::int64_t all = tokens_of(members);
  for (const int size : {1, 2, 3, 4, 8, 31}) {
    std::int64_t next = 0;
    for (int rank = 0; rank < size; ++rank) {
      const RankPart part = rank_part(samples, members, rank, size);
      EXPECT_EQ(part.first, next) << rank << " of " << size;
      EXPECT_EQ(part.members.data(), members.data() + next);
      next += std::ssize(part.members);
      EXPECT_LE(std::abs(tokens_of(part.members) * size - all), 127 * size) << rank << " of " << size;
    }
    EXPECT_EQ(next, std::ssize(members));
  }
}

TEST(RankPart, FewerSamplesThanRanksLeaveSomeWithout) {
  const TokenizedSamples samples = of_lengths({5, 90, 5});
  const std::vector<std::int32_t> members = {0, 1, 2};
  std::vector<std::ptrdiff_t> counts;
  counts.reserve(5);
  for (int rank = 0; rank < 5; ++rank) counts.push_back(std::ssize(rank_part(samples, members, rank, 5).members));
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::ptrdiff_t{0}), 3);
  EXPECT_EQ(std::ranges::count(counts, 0), 2);
  EXPECT_TRUE(rank_part(samples, {}, 1, 2).members.empty());
}

/// How much is trained: an emulated device takes its time.
struct Size {
  std::int64_t steps = 50;
  int layers = 2;
  int dev_rows = 70;
  std::int32_t dev_batch = 16;  // so that each of four ranks has one
  int documents = 200;
  std::int32_t batch_size = 16;
  std::int64_t batch_tokens = 256;
};

/// What ranks share, and a folder of each rank's own.
class DataParallelTest : public testing::Test {
 protected:
  DataParallelTest() {
    if (test::mpi_ranks() > 0) {
      bootstrap_ = make_mpi_communicator({});
      if (device_->kind() == DeviceKind::cuda) gpus_ = make_nccl_communicator(device_, *bootstrap_, {});
      communicator_ = gpus_ ? gpus_.get() : bootstrap_.get();
    }
    write_tiny_model(folder_ / "model", size_.layers);
    write_tiny_data(folder_ / "train.tsv", 256, 1);
    write_tiny_data(folder_ / "dev.tsv", size_.dev_rows, 2);
    write_tiny_text(folder_ / "text.txt", size_.documents, 1);
    finetune_.batch_size = size_.batch_size;
    finetune_.learning_rate = 1e-3;
    finetune_.max_steps = size_.steps;
    finetune_.log_steps = 1;
    pretrain_.batch_tokens = size_.batch_tokens;
    pretrain_.learning_rate = 1e-3;
    pretrain_.max_steps = size_.steps;
    pretrain_.log_steps = 1;
    // Several buckets, the last one short.
    finetune_.gradient_bucket_bytes = pretrain_.gradient_bucket_bytes = std::int64_t{3} * 4096;
  }
  static DeviceRef make_device() {
    if (cuda_backend() == CudaBackend::emulated) return Device::cuda({});
    return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 28});
  }
  std::unique_ptr<Classifier> classifier(std::uint32_t seed = 1) const {
    return Classifier::load(folder_ / "model", device_,
                            choose_labels(read_records(folder_ / "train.tsv").records, LabelSet()).labels,
                            Classifier::Head::renewed, seed);
  }
  std::unique_ptr<MaskedLm> masked_lm() const {
    BertConfig config;
    config.vocabulary_size = static_cast<std::int64_t>(tiny_vocabulary().size());
    config.layers = size_.layers;
    config.hidden_size = 32;
    config.heads = 4;
    config.intermediate_size = 64;
    config.max_positions = 64;
    return MaskedLm::create(std::move(config), WordPieceTokenizer::load(folder_ / "model"), device_, 1);
  }
  LabelledSamples samples(const Classifier& classifier, const char* name) const {
    return labelled_samples(classifier, folder_ / name);
  }
  TokenizedSamples sequences() const { return text_sequences(folder_.path()); }
  static std::vector<float> gradients(const ParameterArena& arena) {
    std::vector<float> values(static_cast<std::size_t>(arena.gradients().size()));
    arena.gradients().copy_to<float>(values);
    return values;
  }

  DeviceRef device_ = make_device();
  Size size_ =
      device_->kind() == DeviceKind::cpu
          ? Size{}
          : Size{.steps = 2, .layers = 1, .dev_rows = 10, .dev_batch = 2, .documents = 12, .batch_size = 6, .batch_tokens = 72};
  TemporaryFolder folder_;
  std::unique_ptr<Communicator> bootstrap_, gpus_;
  Communicator* communicator_ = nullptr;
  FinetuneSettings finetune_;
  PretrainSettings pretrain_;
};

/// Keeps the losses; the others' functions are never called on it.
template <class Observer>
class Losses final : public Observer {
 public:
  void logged(const StepLog& log) override {
    losses.push_back(log.loss);
    tokens += log.tokens;
    if (on_log) on_log(log);
  }
  std::function<void(const StepLog&)> on_log;
  std::vector<double> losses;
  std::int64_t tokens = 0;
};

TEST_F(DataParallelTest, FineTuningComesToWhatARunAloneDoes) {
  const auto run = [&](Communicator* communicator, std::int64_t steps) {
    const auto model = classifier();
    FinetuneSettings settings = finetune_;
    settings.max_steps = steps;
    Losses<FinetuneObserver> observer;
    const LabelledSamples train = samples(*model, "train.tsv");
    finetune(*model, train, nullptr, settings, observer, nullptr, communicator);
    return std::tuple(observer.losses, gradients(model->arena()), observer.tokens);
  };
  const auto [first_loss, first_gradients, first_tokens] = run(communicator_, 1);
  const auto [alone_loss, alone_gradients, alone_tokens] = run(nullptr, 1);
  EXPECT_EQ(first_tokens, alone_tokens) << "the global batch's";
  // The bias of the head is a sum of 16 terms that cancel to a quarter of their sizes, and so have their rounding four times.
  expect_gradients_near(classifier()->arena(), first_gradients, alone_gradients, 4e-6);

  const auto [losses, last_gradients, tokens] = run(communicator_, size_.steps);
  expect_losses_near(losses, std::get<0>(run(nullptr, size_.steps)));
  const auto [again_losses, again_gradients, again_tokens] = run(communicator_, size_.steps);
  EXPECT_EQ(losses, again_losses) << "the same bits from run to run";
  EXPECT_EQ(last_gradients, again_gradients);
}

TEST_F(DataParallelTest, PreTrainingComesToWhatARunAloneDoes) {
  const TokenizedSamples train = sequences();
  const auto run = [&](Communicator* communicator, std::int64_t steps, std::int64_t micro_batch) {
    const auto model = masked_lm();
    PretrainSettings settings = pretrain_;
    settings.max_steps = steps;
    settings.micro_batch_tokens = micro_batch;
    Losses<PretrainObserver> observer;
    pretrain(*model, train, nullptr, settings, observer, nullptr, communicator);
    return std::pair(observer.losses, gradients(model->arena()));
  };
  const auto alone = run(nullptr, 1, 0).second;
  expect_gradients_near(masked_lm()->arena(), run(communicator_, 1, 0).second, alone, 1e-6);
  expect_gradients_near(masked_lm()->arena(), run(communicator_, 1, 40).second, alone, 1e-6);
  const auto losses = run(communicator_, size_.steps, 0).first;
  expect_losses_near(losses, run(nullptr, size_.steps, 0).first);
  EXPECT_EQ(losses, run(communicator_, size_.steps, 0).first) << "the same bits from run to run";
}

TEST_F(DataParallelTest, ARankWithoutSamplesTakesPart) {
  const auto model = classifier();
  finetune_.batch_size = 2;
  finetune_.max_steps = 3;
  const LabelledSamples train = samples(*model, "train.tsv");
  Losses<FinetuneObserver> together;
  finetune(*model, train, nullptr, finetune_, together, nullptr, communicator_);
  const auto other = classifier();
  Losses<FinetuneObserver> alone;
  finetune(*other, train, nullptr, finetune_, alone, nullptr, nullptr);
  expect_losses_near(together.losses, alone.losses);
}

TEST_F(DataParallelTest, ABatchInWhichNoTokenIsChosenHasTheOneThatARunAloneTakes) {
  pretrain_.mlm_probability = 2e-5;
  pretrain_.batch_tokens = 64;
  const TokenizedSamples train = sequences();
  std::vector<std::int32_t> members(4);
  std::iota(members.begin(), members.end(), 0);
  const auto model = masked_lm();
  const auto chosen = [&](Communicator* communicator) {
    StepBatches batches;
    pack_step(*model, train, members, pretrain_, 0, batches, communicator);
    EXPECT_EQ(batches.rows, 1);
    std::vector<std::pair<std::int32_t, std::int32_t>> rows;  // sample and position
    for (std::size_t i = 0; i < batches.count; ++i) {
      const PackedBatch& packed = batches.micro_batches[i].packed;
      for (std::size_t row = 0; row < packed.label.size(); ++row)
        if (packed.label[row] >= 0) rows.emplace_back(packed.row_sample[row], packed.row_position[row]);
    }
    return rows;
  };
  const auto alone = chosen(nullptr);
  ASSERT_EQ(alone.size(), 1U);
  const auto mine = chosen(communicator_);
  if (communicator_ == nullptr || communicator_->rank() == 0) {
    EXPECT_EQ(mine, alone);
  } else {
    EXPECT_TRUE(mine.empty());
  }
}

TEST_F(DataParallelTest, EvaluationsAreSharedOut) {
  const auto model = classifier();
  const LabelledSamples dev = samples(*model, "dev.tsv");
  const auto evaluated = [&](Communicator* communicator) {
    return *evaluate_until(nullptr, *model, dev.samples, dev.labels, size_.dev_batch, communicator);
  };
  const ClassificationMetrics together = evaluated(communicator_);
  const ClassificationMetrics alone = evaluated(nullptr);
  EXPECT_EQ(together.confusion, alone.confusion);
  EXPECT_EQ(together.errors.size(), alone.errors.size());
  EXPECT_NEAR(together.loss, alone.loss, 1e-12);

  const auto language_model = masked_lm();
  const TokenizedSamples text = sequences();
  const auto score = evaluate_masked_lm(*language_model, text, pretrain_, nullptr, communicator_);
  const auto score_alone = evaluate_masked_lm(*language_model, text, pretrain_);
  EXPECT_EQ(score->tokens, score_alone->tokens);
  EXPECT_NEAR(score->loss, score_alone->loss, 1e-12);
}

TEST_F(DataParallelTest, OneRankThatIsToldToStopEndsTheRunForAll) {
  const auto model = classifier();
  const LabelledSamples train = samples(*model, "train.tsv");
  finetune_.max_steps = 10;
  std::atomic<int> stop{0};
  Losses<FinetuneObserver> observer;
  const bool mine = communicator_ == nullptr || communicator_->rank() == communicator_->size() - 1;
  observer.on_log = [&](const StepLog& log) {
    if (mine && log.step == 1) stop = 2;
  };
  const FinetuneResult result = finetune(*model, train, nullptr, finetune_, observer, &stop, communicator_);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 2) << "which hears of it";
  if (!mine) stop = 0;
  const LabelledSamples dev = samples(*model, "dev.tsv");
  EXPECT_FALSE(evaluate_until(&stop, *model, dev.samples, dev.labels, size_.dev_batch, communicator_).has_value());
}

TEST_F(DataParallelTest, OtherWeightsAreRefusedByAllAndCanBeShared) {
  if (communicator_ == nullptr) return check_same_weights(nullptr, classifier()->arena(), "alone");
  const int last = communicator_->size() - 1;
  const auto model = classifier(communicator_->rank() == last ? 2 : 1);
  Losses<FinetuneObserver> observer;
  const LabelledSamples train = samples(*model, "train.tsv");
  if (last > 0) {
    try {
      finetune(*model, train, nullptr, finetune_, observer, nullptr, communicator_);
      ADD_FAILURE() << "trained with other weights than another rank";
    } catch (const MismatchError& failure) {
      const std::string message = failure.what();
      EXPECT_NE(message.find("before the first step rank " + std::to_string(last)), std::string::npos) << message;
    }
  }
  share_weights(communicator_, model->parameters());
  EXPECT_NO_THROW(check_same_weights(communicator_, model->arena(), "shared,"));
}

}  // namespace
}  // namespace lathe
