#include "lathe/training/finetune.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lathe/runtime/error.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/results.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Keeps what it is told, and the model in a folder.
class Recorder final : public FinetuneObserver {
 public:
  explicit Recorder(fs::path folder) : folder_(std::move(folder)) {}
  void stepped(std::int64_t step, std::int64_t, std::int64_t) override {
    if (on_step) on_step(step);
  }
  void logged(const StepLog& log) override {
    steps.push_back(log);
    if (on_log) on_log(log);
  }
  void evaluated(const EvaluationLog& log) override { evaluations.push_back(log); }
  void save(const Classifier& classifier) override {
    classifier.save_weights(folder_);
    ++saves;
  }
  std::function<void(std::int64_t)> on_step;
  std::function<void(const StepLog&)> on_log;
  std::vector<StepLog> steps;
  std::vector<EvaluationLog> evaluations;
  int saves = 0;

 private:
  fs::path folder_;
};

class FinetuneTest : public testing::Test {
 protected:
  FinetuneTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 256, 1);
    write_tiny_data(folder_ / "dev.tsv", 64, 2);
    settings_.batch_size = 16;
    settings_.learning_rate = 2e-3;
    settings_.epochs = 4;
    settings_.log_steps = 5;
  }
  std::unique_ptr<Classifier> load(int threads = 2) const {
    const DataSet data = read_records(folder_ / "train.tsv");
    return Classifier::load(folder_ / "model", Device::cpu({.threads = threads, .target = {}, .reserved_bytes = 1 << 28}),
                            choose_labels(data.records, LabelSet()).labels, Classifier::Head::renewed, 1);
  }
  LabelledSamples samples(const Classifier& classifier, const char* name) const {
    const DataSet data = read_records(folder_ / name);
    return {.samples = tokenize(classifier, data.records, TextKind::single, 32, 1).samples,
            .labels = classifier.labels().ids_of(data.records)};
  }
  fs::path output(const char* name) const {
    fs::create_directories(folder_ / name);
    return folder_ / name;
  }

  TemporaryFolder folder_;
  FinetuneSettings settings_;
};

TEST_F(FinetuneTest, RecomputingTrainsToTheSameBytes) {
  settings_.max_steps = 8;
  const auto run = [&](Recompute recompute, const char* name) {
    const auto classifier = load();
    const LabelledSamples train = samples(*classifier, "train.tsv");
    settings_.recompute = recompute;
    Recorder recorder(output(name));
    finetune(*classifier, train, nullptr, settings_, recorder);
    return std::pair(contents(folder_ / name / "model.safetensors"), classifier->device()->memory().peak);
  };
  const auto [kept, peak] = run(Recompute::none, "kept");
  const auto [recomputed, lower_peak] = run(Recompute::blocks, "recomputed");
  EXPECT_EQ(recomputed, kept);
  EXPECT_LT(lower_peak, peak);
}

TEST_F(FinetuneTest, LearnsAndKeepsTheBest) {
  const auto classifier = load();
  const LabelledSamples train = samples(*classifier, "train.tsv");
  const LabelledSamples dev = samples(*classifier, "dev.tsv");
  Recorder recorder(output("run"));
  const FinetuneResult result = finetune(*classifier, train, &dev, settings_, recorder);
  EXPECT_EQ(result.steps, 64);
  EXPECT_EQ(result.total_steps, 64);
  EXPECT_DOUBLE_EQ(result.epochs, 4.0);
  EXPECT_EQ(recorder.evaluations.size(), 4U);
  EXPECT_GT(result.best->metrics.accuracy, 0.95);
  EXPECT_FALSE(result.interrupted);
  EXPECT_LT(recorder.steps.back().loss, 0.5 * recorder.steps.front().loss);

  std::int64_t tokens = 0;
  for (const StepLog& log : recorder.steps) tokens += log.tokens;
  EXPECT_EQ(tokens, result.tokens);
  EXPECT_EQ(tokens, 4 * static_cast<std::int64_t>(train.samples.ids.size())) << "real tokens, each once an epoch";
  EXPECT_EQ(recorder.steps.front().step, 1);
  EXPECT_EQ(recorder.steps.back().step, 64);
  EXPECT_EQ(recorder.steps.front().learning_rate, 0.0);

  // What was saved, opened anew, scores as it did during training.
  classifier->save_description(folder_ / "run");
  const auto saved = Classifier::load(folder_ / "run", classifier->device(), labels_of_model(folder_ / "run"),
                                      Classifier::Head::required, 0, ArenaUse::inference);
  EXPECT_TRUE(saved->report().initialised.empty());
  const ClassificationMetrics again = evaluate(*saved, dev.samples, dev.labels, settings_.batch_size);
  EXPECT_EQ(again.accuracy, result.best->metrics.accuracy);
  EXPECT_EQ(again.loss, result.best->metrics.loss);
  EXPECT_EQ(saved->labels().names(), (std::vector<std::string>{"negative", "positive"}));
}

TEST_F(FinetuneTest, TheSameSeedGivesTheSameBytesAndAnotherSeedOthers) {
  const auto weights_after = [&](std::uint32_t seed, const char* name) {
    const auto classifier = load();
    FinetuneSettings settings = settings_;
    settings.seed = seed;
    settings.max_steps = 20;
    Recorder recorder(output(name));
    finetune(*classifier, samples(*classifier, "train.tsv"), nullptr, settings, recorder);
    return contents(folder_ / name / "model.safetensors");
  };
  const std::string first = weights_after(1, "a");
  EXPECT_GT(first.size(), 10000U);
  EXPECT_EQ(first, weights_after(1, "b"));
  EXPECT_NE(first, weights_after(2, "c"));
}

TEST_F(FinetuneTest, WithoutADevSplitEachEpochIsKept) {
  const auto classifier = load();
  settings_.epochs = 2;
  Recorder recorder(output("run"));
  const FinetuneResult result = finetune(*classifier, samples(*classifier, "train.tsv"), nullptr, settings_, recorder);
  EXPECT_EQ(recorder.saves, 2);
  EXPECT_FALSE(result.best.has_value());
}

TEST_F(FinetuneTest, StopsAfterTheStepAndEvaluatesNothing) {
  const auto classifier = load();
  const LabelledSamples dev = samples(*classifier, "dev.tsv");
  std::atomic<int> stop{0};
  Recorder recorder(output("run"));
  recorder.on_step = [&](std::int64_t step) {
    if (step == 19) stop = 2;
  };
  const FinetuneResult result = finetune(*classifier, samples(*classifier, "train.tsv"), &dev, settings_, recorder, &stop);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 19);
  EXPECT_EQ(recorder.evaluations.size(), 1U) << "the first epoch's";
  EXPECT_EQ(recorder.saves, 1);
}

TEST_F(FinetuneTest, AStopDuringAnEvaluationEndsItWithoutAResult) {
  const auto classifier = load();
  const LabelledSamples dev = samples(*classifier, "dev.tsv");
  std::atomic<int> stop{0};
  Recorder recorder(output("run"));
  settings_.log_steps = 16;
  // The last step of the first epoch is logged once it has been seen that nothing stops it.
  recorder.on_log = [&](const StepLog& log) {
    if (log.step == 16) stop = 2;
  };
  const FinetuneResult result = finetune(*classifier, samples(*classifier, "train.tsv"), &dev, settings_, recorder, &stop);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 16);
  EXPECT_EQ(recorder.evaluations.size(), 0U);
  EXPECT_EQ(recorder.saves, 0);

  EXPECT_FALSE(evaluate_until(&stop, *classifier, dev.samples, dev.labels, 16).has_value());
  stop = 0;
  const auto metrics = evaluate_until(&stop, *classifier, dev.samples, dev.labels, 16);
  ASSERT_TRUE(metrics.has_value());
  EXPECT_EQ(metrics->loss, evaluate(*classifier, dev.samples, dev.labels, 16).loss);
}

TEST_F(FinetuneTest, AModelWhoseDevLossIsNotANumberIsNotKept) {
  const auto classifier = load();
  const LabelledSamples dev = samples(*classifier, "dev.tsv");
  settings_.learning_rate = 1e30;
  settings_.warmup_share.reset();
  settings_.optimizer.max_norm = 0.0;
  settings_.max_steps = 1;  // its loss is still a number
  Recorder recorder(output("run"));
  try {
    finetune(*classifier, samples(*classifier, "train.tsv"), &dev, settings_, recorder);
    FAIL() << "a rate of 1e30 went well";
  } catch (const NonFiniteError& failure) {
    EXPECT_NE(std::string(failure.what()).find("after step 1: the dev loss"), std::string::npos) << failure.what();
  }
  EXPECT_EQ(recorder.saves, 0);
}

TEST_F(FinetuneTest, ALossThatIsNotANumberEndsTheRunWithTheStep) {
  const auto classifier = load();
  settings_.learning_rate = 1e30;
  settings_.warmup_share.reset();
  settings_.optimizer.max_norm = 0.0;
  Recorder recorder(output("run"));
  try {
    finetune(*classifier, samples(*classifier, "train.tsv"), nullptr, settings_, recorder);
    FAIL() << "a rate of 1e30 went well";
  } catch (const NonFiniteError& failure) {
    EXPECT_EQ(std::string(failure.what()).rfind("step ", 0), 0U) << failure.what();
  }
}

TEST_F(FinetuneTest, ResultsAreReadable) {
  const auto classifier = load();
  const LabelledSamples dev = samples(*classifier, "dev.tsv");
  settings_.epochs = 1;
  Recorder recorder(output("run"));
  RunResults results{.labels = classifier->labels().names(),
                     .dev = std::nullopt,
                     .test = std::nullopt,
                     .train = {},
                     .peak_memory_bytes = peak_memory_bytes()};
  results.train = finetune(*classifier, samples(*classifier, "train.tsv"), &dev, settings_, recorder);
  results.dev = results.train.best->metrics;
  write_results(folder_ / "run", results);
  const auto json = nlohmann::json::parse(contents(folder_ / "run" / "results.json"));
  EXPECT_EQ(json["dev"]["accuracy"].get<double>(), results.dev->accuracy);
  EXPECT_EQ(json["dev"]["positive_label"], "positive");
  EXPECT_TRUE(json["test"].is_null());
  EXPECT_EQ(json["train"]["steps"], 16);
  EXPECT_GT(json["train"]["peak_memory_bytes"].get<std::int64_t>(), 1 << 20);
  EXPECT_NEAR(json["train"]["tokens_per_second"].get<double>(),
              json["train"]["tokens"].get<double>() / json["train"]["seconds"].get<double>(), 1e-6);
  EXPECT_EQ(json["interrupted"], false);
  EXPECT_EQ(json["dev"]["confusion"].size(), 2U);
  MetricsLog log(folder_ / "run");
  log.write(recorder.steps.front());
  log.write(recorder.evaluations.front(), "dev", results.labels);
  std::ifstream lines(folder_ / "run" / "metrics.jsonl");
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(nlohmann::json::parse(line)["step"], 1);
  std::getline(lines, line);
  EXPECT_EQ(nlohmann::json::parse(line)["split"], "dev");
}

}  // namespace
}  // namespace lathe
