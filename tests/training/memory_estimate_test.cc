// What a run will need of memory, before it begins, beside what it then takes.
#include "lathe/training/memory_estimate.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "lathe/runtime/error.h"
#include "lathe/text/documents.h"
#include "lathe/training/dataset.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

/// A device, and what a model computes in there.
struct Where {
  const char* name;
  DeviceKind kind;
  DType dtype;
  Replay replay;
};

class MemoryEstimateTest : public testing::TestWithParam<Where> {
 protected:
  MemoryEstimateTest() {
    write_tiny_model(folder_ / "model", 3, 32, 2);
    write_tiny_data(folder_ / "train.tsv", 24, 1);
    write_tiny_data(folder_ / "dev.tsv", 8, 2);
    write_tiny_text(folder_ / "train.txt", 24, 1);
    write_tiny_text(folder_ / "dev.txt", 6, 2);
  }
  static DeviceRef device(std::int64_t bytes = 0) {
    if (GetParam().kind == DeviceKind::cuda) return Device::cuda({.index = 0, .limit_bytes = bytes});
    return Device::cpu({.threads = 2, .target = {}, .reserved_bytes = bytes > 0 ? bytes : 1 << 28});
  }
  std::unique_ptr<Classifier> classifier(const DeviceRef& device) const {
    const DataSet data = read_records(folder_ / "train.tsv");
    return Classifier::load(folder_ / "model", device, choose_labels(data.records, LabelSet()).labels, Classifier::Head::renewed,
                            1, ArenaUse::training, GetParam().dtype);
  }
  LabelledSamples texts(const Classifier& model, const char* name = "train.tsv") const {
    const DataSet data = read_records(folder_ / name);
    return {.samples = tokenize(model, data.records, TextKind::single, 64, 1).samples,
            .labels = model.labels().ids_of(data.records)};
  }
  std::unique_ptr<MaskedLm> masked_lm(const DeviceRef& device) const {
    return MaskedLm::load(folder_ / "model", device, 1, std::nullopt, ArenaUse::training, GetParam().dtype);
  }
  TokenizedSamples sequences(const MaskedLm& model, const char* name) const {
    return make_sequences(model.tokenizer(), read_documents(std::vector{folder_ / name}), {.max_length = 32, .threads = 1})
        .samples;
  }
  static void configure(TrainingSettings& settings, Recompute recompute) {
    settings.max_steps = 2;
    settings.log_steps = 100;
    settings.replay = GetParam().replay;
    settings.recompute = recompute;
  }
  /// A tenth is what is asked for; the same code takes the same memory, so that it is less.
  static void expect_near(const MemoryEstimate& estimate, std::int64_t taken) {
    EXPECT_NEAR(static_cast<double>(estimate.total()), static_cast<double>(taken), 0.01 * static_cast<double>(taken));
    EXPECT_GT(estimate.weights, 0);
    EXPECT_GT(estimate.optimizer, 0);
  }

  TemporaryFolder folder_;
};

Where on_cpu() { return {.name = "Cpu", .kind = DeviceKind::cpu, .dtype = DType::f32, .replay = Replay::off}; }
#ifdef LATHE_HAS_CUDA
INSTANTIATE_TEST_SUITE_P(, MemoryEstimateTest,
                         testing::Values(on_cpu(), Where{"CudaGraphs", DeviceKind::cuda, DType::bf16, Replay::graphs},
                                         Where{"CudaKernels", DeviceKind::cuda, DType::f32, Replay::off}),
                         [](const auto& parameter) { return parameter.param.name; });
#else
INSTANTIATE_TEST_SUITE_P(, MemoryEstimateTest, testing::Values(on_cpu()),
                         [](const auto& parameter) { return parameter.param.name; });
#endif

TEST_P(MemoryEstimateTest, IsWhatFinetuningTakes) {
  std::int64_t before = 0;
  for (const auto& [recompute, micro_batch_tokens] :
       {std::pair{Recompute::none, 0}, {Recompute::blocks, 0}, {Recompute::blocks, 40}}) {
    const auto model = classifier(device());
    const LabelledSamples train = texts(*model);
    const LabelledSamples dev = texts(*model, "dev.tsv");
    FinetuneSettings settings;
    configure(settings, recompute);
    settings.batch_size = 10;
    settings.micro_batch_tokens = micro_batch_tokens;
    const MemoryUse now = model->device()->memory();
    const MemoryEstimate estimate = estimate_memory(*model, train, &dev, settings);
    EXPECT_EQ(model->device()->memory().now, now.now) << "nothing is taken for it";
    EXPECT_EQ(model->device()->memory().peak, now.peak) << "nor was";
    EXPECT_NO_THROW(expect_memory(estimate, *model, train, &dev, settings));
    FinetuneObserver nobody;
    finetune(*model, train, &dev, settings, nobody);
    expect_near(estimate, model->device()->memory().peak);
    if (before > 0) {
      EXPECT_LT(estimate.total(), before) << "each of these lowers it";
    }
    before = estimate.total();
  }
}

TEST_P(MemoryEstimateTest, IsWhatPretrainingTakes) {
  for (const Recompute recompute : {Recompute::none, Recompute::blocks}) {
    const auto model = masked_lm(device());
    const TokenizedSamples train = sequences(*model, "train.txt");
    const TokenizedSamples dev = sequences(*model, "dev.txt");
    PretrainSettings settings;
    configure(settings, recompute);
    settings.batch_tokens = 100;
    const MemoryEstimate estimate = estimate_memory(*model, train, &dev, settings);
    PretrainObserver nobody;
    pretrain(*model, train, &dev, settings, nobody);
    expect_near(estimate, model->device()->memory().peak);
  }
}

/// An evaluation may need more than the steps do, whose micro-batches are small.
TEST_P(MemoryEstimateTest, CountsAnEvaluationToo) {
  const auto model = classifier(device());
  const LabelledSamples train = texts(*model);
  FinetuneSettings settings;
  configure(settings, Recompute::blocks);
  settings.batch_size = 24;
  settings.micro_batch_tokens = 1;
  EXPECT_GT(estimate_memory(*model, train, &train, settings).total(), estimate_memory(*model, train, nullptr, settings).total());
}

Place rank_of(int rank, int size) {
  Place place;
  place.rank = rank;
  place.size = size;
  return place;
}

/// Of several ranks each has its part of the batches, and all of the weights.
TEST_P(MemoryEstimateTest, OfSeveralRanksIsThatOfAPart) {
  const auto model = classifier(device());
  const LabelledSamples train = texts(*model);
  FinetuneSettings finetuning;
  configure(finetuning, Recompute::none);
  finetuning.batch_size = 16;
  const auto other = masked_lm(device());
  const TokenizedSamples text = sequences(*other, "train.txt");
  PretrainSettings pretraining;
  configure(pretraining, Recompute::none);
  pretraining.batch_tokens = 200;
  const auto expect_less = [](const MemoryEstimate& part, const MemoryEstimate& whole) {
    EXPECT_EQ(part.weights, whole.weights);
    EXPECT_EQ(part.optimizer, whole.optimizer);
    EXPECT_LT(part.step, whole.step);
    EXPECT_LT(part.tokens, whole.tokens);
  };
  for (const int rank : {0, 1}) {
    const Place place = rank_of(rank, 2);
    expect_less(estimate_memory(*model, train, nullptr, finetuning, place), estimate_memory(*model, train, nullptr, finetuning));
    expect_less(estimate_memory(*other, text, nullptr, pretraining, place), estimate_memory(*other, text, nullptr, pretraining));
  }
  EXPECT_EQ(estimate_memory(*model, train, nullptr, finetuning, rank_of(0, 64)).tokens, 0) << "a rank without samples";
}

/// The value of `option` in a message.
std::int64_t value_in(const std::string& line, const std::string& option) {
  const std::size_t at = line.find(option + " ");
  EXPECT_NE(at, std::string::npos) << line;
  return at == std::string::npos ? 0 : std::atoll(line.c_str() + at + option.size());
}

TEST_P(MemoryEstimateTest, TooLittleIsRefusedWithWhatFits) {
  FinetuneSettings settings;
  configure(settings, Recompute::none);
  settings.batch_size = 16;
  const auto roomy = classifier(device());
  const LabelledSamples train = texts(*roomy);
  const MemoryEstimate needed = estimate_memory(*roomy, train, nullptr, settings);
  FinetuneSettings again = settings;
  again.recompute = Recompute::blocks;
  const MemoryEstimate needed_again = estimate_memory(*roomy, train, nullptr, again);
  ASSERT_LT(needed_again.total(), needed.total());

  const auto tight = classifier(device((needed.total() + needed_again.total()) / 2));
  std::string line;
  try {
    expect_memory(needed, *tight, train, nullptr, settings);
    FAIL() << "there is too little";
  } catch (const OutOfMemoryError& failure) {
    line = failure.what();
    EXPECT_EQ(failure.requested(), needed.total());
    EXPECT_LT(failure.available(), needed.total());
  }
  EXPECT_LE(line.size(), kLongestMessage);
  EXPECT_NE(line.find("--recompute blocks or --micro-batch-tokens "), std::string::npos) << line;
  settings.micro_batch_tokens = value_in(line, "--micro-batch-tokens");
  EXPECT_NO_THROW(expect_memory(estimate_memory(*tight, train, nullptr, settings), *tight, train, nullptr, settings));
  EXPECT_NO_THROW(expect_memory(estimate_memory(*tight, train, nullptr, again), *tight, train, nullptr, again));

  const auto hopeless = classifier(device(needed.weights + needed.optimizer));
  try {
    expect_memory(needed, *hopeless, train, nullptr, settings);
    FAIL() << "there is no memory for a step";
  } catch (const OutOfMemoryError& failure) {
    EXPECT_NE(std::string(failure.what()).find("use a smaller --batch-size, --max-length or model"), std::string::npos)
        << failure.what();
  }
}

}  // namespace
}  // namespace lathe
