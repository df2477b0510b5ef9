// Fine-tuning on a CUDA device, emulated or real: weights go there and come back, memory that is missing is told in time.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "lathe/runtime/error.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/finetune.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class CudaFinetune : public testing::Test {
 protected:
  CudaFinetune() {
    write_tiny_model(folder_ / "model", 1, 64, 2);
    write_tiny_data(folder_ / "train.tsv", 32, 1);
  }
  std::unique_ptr<Classifier> load(const DeviceRef& device, DType dtype, ArenaUse use = ArenaUse::training) const {
    const DataSet data = read_records(folder_ / "train.tsv");
    return Classifier::load(folder_ / "model", device, choose_labels(data.records, LabelSet()).labels, Classifier::Head::renewed,
                            1, use, dtype);
  }
  LabelledSamples samples(const Classifier& classifier) const {
    const DataSet data = read_records(folder_ / "train.tsv");
    return {.samples = tokenize(classifier, data.records, TextKind::single, 32, 1).samples,
            .labels = classifier.labels().ids_of(data.records)};
  }
  std::string saved(const Classifier& classifier) const {
    classifier.save_weights(folder_.path());
    return contents(folder_ / "model.safetensors");
  }

  TemporaryFolder folder_;
};

DeviceRef cpu() { return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26}); }
DeviceRef cuda(std::int64_t limit_bytes = 0) { return Device::cuda({.index = 0, .limit_bytes = limit_bytes}); }

TEST_F(CudaFinetune, WeightsComeBackAsTheyWere) {
  const std::string expected = saved(*load(cpu(), DType::f32));
  EXPECT_GT(expected.size(), 100'000U);
  EXPECT_EQ(saved(*load(cuda(), DType::f32)), expected);
  EXPECT_EQ(saved(*load(cuda(), DType::bf16)), expected) << "bf16 keeps an fp32 master";
}

TEST_F(CudaFinetune, PredictsAsTheCpuDoes) {
  const auto on_cpu = load(cpu(), DType::f32, ArenaUse::inference);
  const auto on_cuda = load(cuda(), DType::f32, ArenaUse::inference);
  const auto in_bf16 = load(cuda(), DType::bf16, ArenaUse::inference);
  const TokenizedSamples texts = samples(*on_cpu).samples;
  const std::vector<float> expected = predict_probabilities(*on_cpu, texts, 12);
  const std::vector<float> actual = predict_probabilities(*on_cuda, texts, 12);
  const std::vector<float> rounded = predict_probabilities(*in_bf16, texts, 12);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-5);
    EXPECT_NEAR(rounded[i], expected[i], 0.01);
  }
  EXPECT_LT(in_bf16->device()->memory().now, on_cuda->device()->memory().now) << "weights of half the size";
}

TEST_F(CudaFinetune, TooLittleMemoryIsToldBeforeARunWithWhatFits) {
  const auto classifier = load(cuda(5 << 18), DType::bf16);
  const LabelledSamples train = samples(*classifier);
  FinetuneSettings settings;
  settings.batch_size = 32;
  try {
    rehearse(*classifier, train, settings);
    FAIL() << "32 texts fit into " << classifier->device()->memory().peak << " bytes";
  } catch (const OutOfMemoryError& failure) {
    const std::string line = failure.what();
    EXPECT_NE(line.find("no memory for a step of 32 texts"), std::string::npos) << line;
    EXPECT_NE(line.find("--batch-size "), std::string::npos) << line;
    settings.batch_size = std::stoi(line.substr(line.find("--batch-size ") + 13));
  }
  EXPECT_LT(settings.batch_size, 32);
  EXPECT_NO_THROW(rehearse(*classifier, train, settings));
}

TEST_F(CudaFinetune, TheSameSeedGivesTheSameBytes) {
  const auto weights_after = [&](std::uint32_t seed) {
    const auto classifier = load(cuda(), DType::bf16);
    FinetuneSettings settings;
    settings.batch_size = 8;
    settings.max_steps = 3;
    settings.seed = seed;
    FinetuneObserver nobody;
    finetune(*classifier, samples(*classifier), nullptr, settings, nobody);
    return saved(*classifier);
  };
  const std::string first = weights_after(1);
  EXPECT_EQ(weights_after(1), first);
  EXPECT_NE(weights_after(2), first);
}

}  // namespace
}  // namespace lathe
