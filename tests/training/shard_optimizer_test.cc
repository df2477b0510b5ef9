// Ranks that keep a part of the optimizer's state each come to what ranks do that keep all of it, bit for bit: on the CPU, and in the emulation on a
// GPU each, between which NCCL's twin goes. And ranks can't drift apart by their norms.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lathe/optim/adamw.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "lathe/runtime/random.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"
#include "lathe/training/memory_estimate.h"
#include "lathe/training/pretrain.h"
#include "tests/runtime/communicator_case.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_samples.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

TEST(ArenaBuckets, AreWholeBlocksOneAfterTheOther) {
  const std::vector<Share> expected = {
      {.begin = 0, .count = 3072}, {.begin = 3072, .count = 3072}, {.begin = 6144, .count = 1024}};
  EXPECT_EQ(arena_buckets(7 * kArenaBlock, 4000), expected);
  EXPECT_EQ(arena_buckets(2 * kArenaBlock, 1).size(), 2U) << "one block at least";
  EXPECT_EQ(arena_buckets(2 * kArenaBlock, 1 << 20), (std::vector<Share>{{.begin = 0, .count = 2048}}));
}

/// What ranks share. Without MPI a process alone.
class ShardOptimizerTest : public testing::Test {
 protected:
  ShardOptimizerTest() {
    if (test::mpi_ranks() == 0) return;
    bootstrap_ = make_mpi_communicator({});
    if (on_gpu()) gpus_ = make_nccl_communicator(device_, *bootstrap_, {});
    communicator_ = gpus_ ? gpus_.get() : bootstrap_.get();
  }
  static bool on_gpu() { return cuda_backend() == CudaBackend::emulated; }
  static DeviceRef make_device() {
    if (on_gpu()) return Device::cuda({});
    return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 28});
  }
  /// What a model computes in: a GPU in bf16 too.
  static std::vector<DType> dtypes() { return on_gpu() ? std::vector{DType::bf16, DType::f32} : std::vector{DType::f32}; }
  int rank() const { return communicator_ == nullptr ? 0 : communicator_->rank(); }
  int size() const { return communicator_ == nullptr ? 1 : communicator_->size(); }
  OptimizerRanks ranks(ShardOptimizer shard, std::int64_t bucket_bytes) const {
    return {.communicator = communicator_, .rank = rank(), .size = size(), .shard = shard, .bucket_bytes = bucket_bytes};
  }

  DeviceRef device_ = make_device();
  std::unique_ptr<Communicator> bootstrap_, gpus_;
  Communicator* communicator_ = nullptr;
};

/// Seven blocks of four tensors, none of them whole blocks, on a device.
class Weights {
 public:
  Weights(const DeviceRef& device, DType dtype) {
    set_.add({.name = "w", .shape = {50, 60}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}});
    set_.add({.name = "b", .shape = {50}, .decay = Decay::no, .initial = Initial::ones, .file_names = {}});
    set_.add({.name = "u", .shape = {40, 50}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}});
    set_.add({.name = "n", .shape = {7}, .decay = Decay::no, .initial = Initial::zeros, .file_names = {}});
    arena_ = std::make_unique<ParameterArena>(device, dtype, set_);
    for (const Parameter& parameter : set_.all()) ParameterArena::initialise(parameter, 3, 0.5);
  }
  ParameterArena& arena() { return *arena_; }
  const ParameterSet& set() const { return set_; }
  /// Writes rank `rank`'s gradients of step `step`.
  void draw(int step, int rank) {
    write(step, [&](const auto& value) { return value(rank); });
  }
  /// Writes what `size` ranks' gradients come to, added in the order of ranks.
  void draw_sum(int step, int size) {
    write(step, [&](const auto& value) {
      float sum = value(0);
      for (int rank = 1; rank < size; ++rank) sum += value(rank);
      return sum;
    });
  }
  /// All parameters' values: full, and as the model reads them.
  std::vector<float> values() const {
    std::vector<float> all;
    for (const Parameter& parameter : set_.all()) {
      std::vector<float> values(static_cast<std::size_t>(parameter.shape.size()));
      get_values(parameter, values);
      all.insert(all.end(), values.begin(), values.end());
    }
    std::vector<float> working(static_cast<std::size_t>(arena_->values().size()));
    arena_->values().copy_to_floats(working);
    all.insert(all.end(), working.begin(), working.end());
    return all;
  }

 private:
  template <class F>
  void write(int step, const F& of_ranks) {
    constexpr int kInfinite = 3;  // step in which a number of the last rank but one isn't finite
    for (const Parameter& parameter : set_.all()) {
      std::vector<float> gradient(static_cast<std::size_t>(parameter.shape.size()));
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] = of_ranks([&](int rank) {
          if (step == kInfinite && rank == 0 && i == gradient.size() - 1) return std::numeric_limits<float>::infinity();
          const auto seed = static_cast<std::uint32_t>(100 * step + rank);
          return static_cast<float>(RandomNumbers(seed, RandomUse::initial_weights, stream_of(parameter.name)).normal(i));
        });
      }
      parameter.gradient.copy_from<float>(gradient);
    }
  }

  ParameterSet set_;
  std::unique_ptr<ParameterArena> arena_;
};

constexpr int kSteps = 5;
constexpr std::int64_t kThreeBlocks = std::int64_t{3} * 4096;  // bytes of gradients
constexpr AdamWSettings kSettings{.weight_decay = 0.1, .max_norm = 2.0};

/// What steps came to, to the bit.
struct Course {
  std::vector<float> values, norms, scales;
  std::vector<std::int32_t> skips;
  bool operator==(const Course&) const = default;

  void add(const OptimizerStep& step) {
    norms.push_back(step.norm);
    scales.push_back(step.scale);
    skips.push_back(step.skips);
  }
};

TEST_F(ShardOptimizerTest, StepsHaveTheBitsOfStepsWithoutAndOfAProcessAlone) {
  // One block a bucket: of each rank 0 owns all, and the others nothing. Three: the ranks have different parts. All of them at once.
  for (const std::int64_t bucket_blocks : {1, 3, 100}) {
    for (const DType dtype : dtypes()) {
      for (const Replay replay : {Replay::off, Replay::graphs}) {
        if (replay == Replay::graphs && !on_gpu()) continue;
        SCOPED_TRACE(testing::Message() << bucket_blocks << " blocks a bucket, " << to_string(dtype)
                                        << (replay == Replay::graphs ? ", graphs" : ""));
        const auto together = [&](ShardOptimizer shard) {
          Weights weights(device_, dtype);
          const OptimizerRanks optimizer_ranks = ranks(shard, bucket_blocks * 4096);
          GradientSum sum(communicator_, weights.arena(), optimizer_ranks.bucket_bytes, shard);
          AdamWOptimizer optimizer(weights.arena(), kSettings, replay, optimizer_ranks);
          Course course;
          for (int step = 0; step < kSteps; ++step) {
            weights.draw(step, rank());
            sum.run();
            optimizer.step(0.01);
            course.add(optimizer.last());
            check_same_weights(communicator_, weights.arena(), "after a step");
            if (step != 1) continue;
            optimizer.gather_master();  // as for a file, in the middle
            optimizer.release_master();
          }
          optimizer.gather_master();
          course.values = weights.values();
          return course;
        };
        Weights weights(device_, dtype);
        AdamWOptimizer optimizer(weights.arena(), kSettings, replay);
        Course alone;
        for (int step = 0; step < kSteps; ++step) {
          weights.draw_sum(step, size());
          optimizer.step(0.01);
          alone.add(optimizer.last());
        }
        alone.values = weights.values();
        EXPECT_LT(alone.scales.front(), 1.0F) << "clipping is at work";
        EXPECT_EQ(alone.skips, (std::vector<std::int32_t>{0, 0, 0, 1, 1}));
        alone.norms[3] = 0.0F;  // infinite
        Course plain = together(ShardOptimizer::no);
        Course sharded = together(ShardOptimizer::yes);
        EXPECT_FALSE(std::isfinite(std::exchange(plain.norms[3], 0.0F)));
        EXPECT_FALSE(std::isfinite(std::exchange(sharded.norms[3], 0.0F)));
        EXPECT_EQ(plain, alone);
        EXPECT_EQ(sharded, alone);
      }
    }
  }
}

TEST_F(ShardOptimizerTest, RanksWhoseGradientsDifferHaveTheFirstRanksScale) {
  for (const float factor : {1.0F, std::numeric_limits<float>::quiet_NaN()}) {
    Weights weights(device_, DType::f32);
    AdamWOptimizer optimizer(weights.arena(), kSettings, Replay::off, ranks(ShardOptimizer::no, kGradientBucketBytes));
    weights.draw(0, 1);
    const Parameter& bias = weights.set().all()[1];
    std::vector<float> gradient(static_cast<std::size_t>(bias.shape.size()), factor * static_cast<float>(rank()));
    bias.gradient.copy_from<float>(gradient);
    optimizer.step(0.01);
    const OptimizerStep step = optimizer.last();
    Weights of_first(device_, DType::f32);
    AdamWOptimizer alone(of_first.arena(), kSettings);
    of_first.draw(0, 1);
    std::ranges::fill(gradient, factor * 0.0F);
    of_first.set().all()[1].gradient.copy_from<float>(gradient);
    alone.step(0.01);
    const OptimizerStep expected = alone.last();
    EXPECT_EQ(step.scale, expected.scale) << "rank " << rank();
    EXPECT_EQ(step.skip, expected.skip) << "rank " << rank();
    EXPECT_EQ(step.updates, expected.updates);
    EXPECT_EQ(std::isnan(step.norm) ? 0.0F : step.norm, std::isnan(expected.norm) ? 0.0F : expected.norm);
  }
}

TEST_F(ShardOptimizerTest, StateIsTakenForWhatARankOwnsAndWhatLiesBetweenTensorsStaysZero) {
  for (const DType dtype : dtypes()) {
    const auto added = [&](ShardOptimizer shard) {
      Weights weights(device_, dtype);
      const std::int64_t before = device_->memory().now;
      const AdamWOptimizer optimizer(weights.arena(), kSettings, Replay::off, ranks(shard, kThreeBlocks));
      return device_->memory().now - before;
    };
    const auto owned = [&] {
      Weights weights(device_, dtype);
      return elements_of(ranks(ShardOptimizer::yes, kThreeBlocks).owned(weights.arena()));
    }();
    constexpr std::int64_t kAll = 7 * kArenaBlock;
    const std::int64_t tables = added(ShardOptimizer::no) - 8 * kAll;  // of blocks, groups, the step
    EXPECT_LT(tables, 1024);
    const std::int64_t master = dtype == DType::bf16 && size() > 1 ? 4 * (owned - kAll) : 0;
    EXPECT_NEAR(static_cast<double>(added(ShardOptimizer::yes)), static_cast<double>(8 * owned + master + tables), 256)
        << "the memory's granularity";

    Weights weights(device_, dtype);
    const OptimizerRanks optimizer_ranks = ranks(ShardOptimizer::yes, kThreeBlocks);
    GradientSum sum(communicator_, weights.arena(), optimizer_ranks.bucket_bytes, ShardOptimizer::yes);
    AdamWOptimizer optimizer(weights.arena(), kSettings, Replay::off, optimizer_ranks);
    for (int step = 0; step < 3; ++step) {
      weights.draw(step, rank());
      sum.run();
      optimizer.step(0.01);
    }
    for (const Tensor& arena : {weights.arena().values(), weights.arena().gradients()}) {
      std::vector<float> values(static_cast<std::size_t>(arena.size()));
      arena.copy_to_floats(values);
      const auto zeros = [&](std::size_t begin, std::size_t end) {
        return std::all_of(values.begin() + static_cast<std::ptrdiff_t>(begin), values.begin() + static_cast<std::ptrdiff_t>(end),
                           [](float value) { return value == 0.0F; });
      };
      // In the arena's order: n, u, b, w.
      EXPECT_TRUE(zeros(7, 1024));
      EXPECT_TRUE(zeros(1024 + 2000, 3072));
      EXPECT_TRUE(zeros(3072 + 50, 4096));
      EXPECT_TRUE(zeros(4096 + 3000, 7168));
    }
  }
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Models as they come from a folder of each rank's own, and what runs leave.
class ShardedRunTest : public ShardOptimizerTest {
 protected:
  ShardedRunTest() {
    // An emulated GPU takes its time.
    write_tiny_model(folder_ / "model", on_gpu() ? 1 : 2);
    write_tiny_data(folder_ / "train.tsv", 4 * batch_, 1);
    write_tiny_data(folder_ / "dev.tsv", on_gpu() ? 5 : 20, 2);
    write_tiny_text(folder_ / "text.txt", on_gpu() ? 12 : 60, 1);
  }
  static void configure(TrainingSettings& settings, ShardOptimizer shard) {
    settings.learning_rate = 1e-3;
    settings.max_steps = 5;
    settings.log_steps = 1;
    settings.gradient_bucket_bytes = std::int64_t{5} * 4096;
    settings.optimizer.max_norm = 0.1;
    settings.shard_optimizer = shard;
  }
  std::unique_ptr<Classifier> classifier(DType dtype) const {
    const DataSet data = read_records(folder_ / "train.tsv");
    return Classifier::load(folder_ / "model", device_, choose_labels(data.records, LabelSet()).labels, Classifier::Head::renewed,
                            1, ArenaUse::training, dtype);
  }
  LabelledSamples samples(const Classifier& classifier, const char* name) const {
    return labelled_samples(classifier, folder_ / name);
  }
  TokenizedSamples sequences() const { return text_sequences(folder_.path()); }
  std::filesystem::path made(const std::string& name) const {
    std::filesystem::create_directories(folder_ / name);
    return folder_ / name;
  }

  std::int32_t batch_ = on_gpu() ? 4 : 16;  // four steps an epoch: evaluated and saved in the middle too
  TemporaryFolder folder_;
};

/// Keeps what is logged, and saves where a run says so, as one rank's observer does; here every rank's.
template <class Observer, class Model>
class Keeper final : public Observer {
 public:
  explicit Keeper(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void logged(const StepLog& log) override {
    numbers.insert(numbers.end(), {log.loss, log.gradient_norm, static_cast<double>(log.tokens)});
  }
  void save(const Model& model) override {
    model.save_weights(folder_);
    ++saved;
  }
  std::vector<double> numbers;
  int saved = 0;

 private:
  std::filesystem::path folder_;
};

TEST_F(ShardedRunTest, FineTuningIsTheSameToTheBitAndSoAreItsFiles) {
  const DType dtype = dtypes().front();
  std::vector<double> numbers;
  std::string file;
  for (const ShardOptimizer shard : {ShardOptimizer::no, ShardOptimizer::yes}) {
    const auto model = classifier(dtype);
    const LabelledSamples train = samples(*model, "train.tsv");
    const LabelledSamples dev = samples(*model, "dev.tsv");
    FinetuneSettings settings;
    configure(settings, shard);
    settings.batch_size = batch_;
    const std::filesystem::path output = made(shard == ShardOptimizer::yes ? "sharded" : "plain");
    model->save_description(output);
    Keeper<FinetuneObserver, Classifier> keeper(output);
    const FinetuneResult result = finetune(*model, train, &dev, settings, keeper, nullptr, communicator_);
    ASSERT_TRUE(result.best.has_value());
    EXPECT_GE(keeper.saved, 1);
    keeper.numbers.push_back(result.best->metrics.loss);
    EXPECT_GT(keeper.numbers[1], settings.optimizer.max_norm) << "clipping is at work";
    model->save_weights(made("after"));
    const std::string after = bytes_of(folder_ / "after" / "model.safetensors");
    EXPECT_EQ(model->arena().master().dtype(), DType::f32) << "whole again after the run";
    if (shard == ShardOptimizer::no) {
      numbers = keeper.numbers;
      file = bytes_of(output / "model.safetensors") + after;
      continue;
    }
    EXPECT_EQ(keeper.numbers, numbers);
    EXPECT_EQ(bytes_of(output / "model.safetensors") + after, file);

    // What is done after a run: the best model again, and to all ranks.
    if (rank() == 0) model->reload(output);
    share_weights(communicator_, model->parameters());
    EXPECT_NO_THROW(check_same_weights(communicator_, model->arena(), "read again,"));
    if (rank() == 0) {
      model->save_weights(made("again"));
      EXPECT_EQ(bytes_of(folder_ / "again" / "model.safetensors"), bytes_of(output / "model.safetensors"));
    }
    // And a second run of the model, whose master lies in the gradients' memory.
    settings.max_steps = 1;
    EXPECT_NO_THROW(finetune(*model, train, nullptr, settings, keeper, nullptr, communicator_));
  }
}

TEST_F(ShardedRunTest, PreTrainingThatIsStoppedKeepsTheSameWeights) {
  const TokenizedSamples train = sequences();
  for (const DType dtype : dtypes()) {
    SCOPED_TRACE(to_string(dtype));
    std::vector<double> numbers;
    std::string file;
    for (const ShardOptimizer shard : {ShardOptimizer::no, ShardOptimizer::yes}) {
      const auto model = MaskedLm::load(folder_ / "model", device_, 1, std::nullopt, ArenaUse::training, dtype);
      PretrainSettings settings;
      configure(settings, shard);
      settings.batch_tokens = on_gpu() ? 48 : 128;
      const std::filesystem::path output = made(shard == ShardOptimizer::yes ? "sharded" : "plain");
      Keeper<PretrainObserver, MaskedLm> keeper(output);
      const std::atomic<int> stop{2};
      const PretrainResult result = pretrain(*model, train, nullptr, settings, keeper, &stop, communicator_);
      EXPECT_TRUE(result.interrupted);
      EXPECT_EQ(result.steps, 1);
      EXPECT_EQ(keeper.saved, 1);
      if (shard == ShardOptimizer::no) {
        numbers = keeper.numbers;
        file = bytes_of(output / "model.safetensors");
        continue;
      }
      EXPECT_EQ(keeper.numbers, numbers);
      EXPECT_EQ(bytes_of(output / "model.safetensors"), file);
    }
  }
}

TEST_F(ShardedRunTest, TheMemoryEstimateIsWhatARankTakes) {
  const Place place = communicator_ == nullptr ? Place() : communicator_->place();
  const auto model = classifier(dtypes().front());
  const LabelledSamples train = samples(*model, "train.tsv");
  FinetuneSettings settings;
  configure(settings, ShardOptimizer::yes);
  settings.batch_size = batch_;
  const MemoryEstimate estimate = estimate_memory(*model, train, nullptr, settings, place);
  const std::int64_t whole = model->arena().gradients().size();
  const std::int64_t owned = elements_of(optimizer_ranks(settings, place).owned(model->arena()));
  EXPECT_LE(owned, whole / size() + 16 * kArenaBlock) << "a block a bucket more, at most";
  const bool parts_master = model->dtype() == DType::bf16 && size() > 1;
  constexpr double kTables = 0.01;
  EXPECT_NEAR(static_cast<double>(estimate.optimizer), static_cast<double>((parts_master ? 12 : 8) * owned),
              kTables * static_cast<double>(8 * whole));
  const std::int64_t weights = model->dtype() == DType::bf16 ? (parts_master ? 6 : 10) : 8;
  EXPECT_NEAR(static_cast<double>(estimate.weights), static_cast<double>(weights * whole), 256) << "the memory's granularity";
  EXPECT_NO_THROW(rehearse(*model, train, settings, place));
  FinetuneObserver nobody;
  finetune(*model, train, nullptr, settings, nobody, nullptr, communicator_);
  EXPECT_NEAR(static_cast<double>(estimate.total()), static_cast<double>(device_->memory().peak),
              0.01 * static_cast<double>(device_->memory().peak));
}

}  // namespace
}  // namespace lathe
