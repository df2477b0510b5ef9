// A published model fine-tuned on real text by 1, 2, 3 and 4 ranks, dropout on, against the same run alone. The run alone comes first (without
// --mpi), and leaves what the others compare with in LATHE_ALONE.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "lathe/runtime/mpi_communicator.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"
#include "lathe/training/loader.h"
#include "tests/runtime/communicator_case.h"
#include "tests/training/near.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSteps = 50;

/// Keeps the losses.
class Losses final : public FinetuneObserver {
 public:
  void logged(const StepLog& log) override { losses.push_back(log.loss); }
  std::vector<double> losses;
};

template <class T>
void write(const fs::path& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  const auto bytes = std::as_bytes(std::span(values));
  file.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  if (!file.flush()) throw std::runtime_error("can't write " + path.string());
}

template <class T>
std::vector<T> read(const fs::path& path) {
  std::vector<T> values(fs::file_size(path) / sizeof(T));
  std::ifstream file(path, std::ios::binary);
  const auto bytes = std::as_writable_bytes(std::span(values));
  if (!file.read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes)))
    throw std::runtime_error("can't read " + path.string());
  return values;
}

class Sst2Ranks : public testing::Test {
 protected:
  void SetUp() override {
    const char* const data = std::getenv("LATHE_TEST_DATA");
    const char* const weights = std::getenv("LATHE_TEST_WEIGHTS");
    if (data == nullptr || weights == nullptr) GTEST_SKIP() << "LATHE_TEST_DATA or LATHE_TEST_WEIGHTS isn't set";
    weights_ = weights;
    if (test::mpi_ranks() > 0) communicator_ = make_mpi_communicator({});
    records_ = read_records(fs::path(data) / "sst2" / "train.tsv").records;
    const auto model = classifier();
    train_ = {.samples = tokenize(*model, records_, TextKind::single, 64, 1).samples, .labels = model->labels().ids_of(records_)};
    settings_.batch_size = 32;
    settings_.log_steps = 1;
    settings_.learning_rate = 5e-5;
    settings_.warmup_share = 0.0;
  }
  std::unique_ptr<Classifier> classifier() const {
    return Classifier::load(weights_, device_, choose_labels(records_, LabelSet()).labels, Classifier::Head::renewed, 1);
  }
  std::vector<double> losses_of(Classifier& model, std::int64_t steps) {
    settings_.max_steps = steps;
    Losses observer;
    finetune(model, train_, nullptr, settings_, observer, nullptr, communicator_.get());
    return observer.losses;
  }
  /// Number, label and tokens of each sample, as the steps of all ranks see them.
  std::vector<std::int32_t> seen() const {
    SampleOrder order(static_cast<std::int32_t>(train_.samples.count()), settings_.batch_size, settings_.seed);
    std::vector<std::int32_t> samples;
    StepBatches batches;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      pack_step(train_, order.batch(step), settings_, batches, communicator_.get());
      std::vector<std::int32_t> mine;
      for (std::size_t i = 0; i < batches.count; ++i) {
        const PackedBatch& packed = batches.micro_batches[i].packed;
        for (std::size_t row = 0; row < packed.label.size() && packed.label[row] >= 0; ++row) {
          mine.insert(mine.end(), {packed.row_sample[row], packed.label[row]});
          mine.insert(mine.end(), packed.token.begin() + packed.cu_seqlens[row],
                      packed.token.begin() + packed.cu_seqlens[row + 1]);
        }
      }
      if (communicator_ == nullptr) {
        samples.insert(samples.end(), mine.begin(), mine.end());
        continue;
      }
      const auto bytes = std::as_bytes(std::span(mine));
      for (const std::string& part : communicator_->gather({reinterpret_cast<const char*>(bytes.data()), bytes.size()})) {
        const std::size_t before = samples.size();
        samples.resize(before + part.size() / sizeof(std::int32_t));
        part.copy(reinterpret_cast<char*>(samples.data() + before), part.size());
      }
    }
    return samples;
  }

  fs::path weights_;
  fs::path alone_ = LATHE_ALONE;
  DeviceRef device_ = Device::cpu({.threads = test::mpi_ranks() > 0 ? 1 : 2, .target = {}, .reserved_bytes = 1 << 30});
  std::unique_ptr<Communicator> communicator_;
  Records records_;
  LabelledSamples train_;
  FinetuneSettings settings_;
};

TEST_F(Sst2Ranks, SamplesComeInTheOrderOfARunAlone) {
  const std::vector<std::int32_t> samples = seen();
  ASSERT_GT(samples.size(), 10'000U);
  if (communicator_ == nullptr) return write(alone_ / "samples", samples);
  EXPECT_EQ(samples, read<std::int32_t>(alone_ / "samples"));
}

TEST_F(Sst2Ranks, GradientsOfAStepAreThoseOfARunAlone) {
  const auto model = classifier();
  losses_of(*model, 1);
  const Tensor& arena = model->arena().gradients();
  std::vector<float> gradients(static_cast<std::size_t>(arena.size()));
  arena.copy_to<float>(gradients);
  if (communicator_ == nullptr) return write(alone_ / "gradients", gradients);
  expect_gradients_near(model->arena(), gradients, read<float>(alone_ / "gradients"), 1e-6);
}

TEST_F(Sst2Ranks, LossesAreThoseOfARunAlone) {
  const std::vector<double> losses = losses_of(*classifier(), kSteps);
  EXPECT_LT(losses.back(), losses.front());
  if (communicator_ == nullptr) return write(alone_ / "losses", losses);
  expect_losses_near(losses, read<double>(alone_ / "losses"));
}

}  // namespace
}  // namespace lathe
