#include "lathe/training/pretrain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/error.h"
#include "lathe/text/documents.h"
#include "lathe/text/masking.h"
#include "lathe/training/classifier.h"
#include "lathe/training/upload.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Keeps what it is told, and the model in a folder.
class Recorder final : public PretrainObserver {
 public:
  explicit Recorder(fs::path folder) : folder_(std::move(folder)) { fs::create_directories(folder_); }
  void stepped(std::int64_t step, std::int64_t, std::int64_t tokens) override {
    most_tokens = std::max(most_tokens, tokens);
    if (on_step) on_step(step);
  }
  void logged(const StepLog& log) override { steps.push_back(log); }
  void evaluated(const MaskedLmEvaluation& log) override { evaluations.push_back(log); }
  void save(const MaskedLm& model) override {
    model.save_weights(folder_);
    ++saves;
  }
  std::function<void(std::int64_t)> on_step;
  std::vector<StepLog> steps;
  std::vector<MaskedLmEvaluation> evaluations;
  std::int64_t most_tokens = 0;
  int saves = 0;

 private:
  fs::path folder_;
};

class PretrainTest : public testing::Test {
 protected:
  PretrainTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_text(folder_ / "train.txt", 300, 1);
    write_tiny_text(folder_ / "dev.txt", 40, 2);
    settings_.batch_tokens = 256;
    settings_.learning_rate = 3e-3;
    settings_.epochs = 6;
    settings_.log_steps = 5;
  }
  static DeviceRef device(int threads = 2) { return Device::cpu({.threads = threads, .target = {}, .reserved_bytes = 1 << 28}); }
  WordPieceTokenizer tokenizer() const { return WordPieceTokenizer::load(folder_ / "model"); }
  std::unique_ptr<MaskedLm> create(int threads = 2, std::uint32_t seed = 1) const {
    BertConfig config;
    config.vocabulary_size = tokenizer().vocabulary_size();
    config.layers = 2;
    config.hidden_size = 32;
    config.heads = 4;
    config.intermediate_size = 64;
    config.max_positions = 64;
    return MaskedLm::create(std::move(config), tokenizer(), device(threads), seed);
  }
  TokenizedSamples sequences(const char* name, std::int64_t max_length = 24) const {
    return make_sequences(tokenizer(), read_documents(std::vector{folder_ / name}), {.max_length = max_length, .threads = 1})
        .samples;
  }

  TemporaryFolder folder_;
  PretrainSettings settings_;
};

TEST_F(PretrainTest, LearnsFromScratch) {
  const auto model = create();
  const TokenizedSamples train = sequences("train.txt");
  const TokenizedSamples dev = sequences("dev.txt");
  const auto before = evaluate_masked_lm(*model, dev, settings_);
  EXPECT_NEAR(before->loss, std::log(20.0), 0.1) << "nothing is known of 20 words";
  EXPECT_DOUBLE_EQ(before->perplexity(), std::exp(before->loss));
  Recorder recorder(folder_ / "run");
  const PretrainResult result = pretrain(*model, train, &dev, settings_, recorder);
  EXPECT_EQ(result.epochs, 6.0);
  EXPECT_EQ(result.steps, pretrain_steps(settings_, train).total);
  EXPECT_EQ(result.tokens, 6 * static_cast<std::int64_t>(train.ids.size())) << "real tokens, each once an epoch";
  EXPECT_LE(recorder.most_tokens, 256);
  EXPECT_EQ(recorder.evaluations.size(), 6U);
  EXPECT_EQ(recorder.saves, 6);
  EXPECT_LT(result.dev->score.loss, 0.5 * before->loss);
  EXPECT_EQ(result.dev->score.tokens, before->tokens) << "the same masks";
  EXPECT_LT(recorder.steps.back().loss, 0.6 * recorder.steps.front().loss);

  // What was saved, opened anew, has the same loss, to the bit.
  model->save_description(folder_ / "run");
  const auto saved = MaskedLm::load(folder_ / "run", device(), 9);
  EXPECT_TRUE(saved->report().initialised.empty());
  EXPECT_TRUE(saved->report().unused.empty());
  EXPECT_EQ(evaluate_masked_lm(*saved, dev, settings_)->loss, result.dev->score.loss);
}

TEST_F(PretrainTest, RecomputingTrainsToTheSameBytes) {
  const TokenizedSamples train = sequences("train.txt");
  settings_.max_steps = 8;
  settings_.micro_batch_tokens = 100;
  const auto run = [&](Recompute recompute, const char* name) {
    const auto model = create();
    settings_.recompute = recompute;
    Recorder recorder(folder_ / name);
    pretrain(*model, train, nullptr, settings_, recorder);
    return std::pair(contents(folder_ / name / "model.safetensors"), model->device()->memory().peak);
  };
  const auto [kept, peak] = run(Recompute::none, "kept");
  const auto [recomputed, lower_peak] = run(Recompute::blocks, "recomputed");
  EXPECT_EQ(recomputed, kept);
  EXPECT_LT(lower_peak, peak);
}

TEST_F(PretrainTest, TheSameSeedGivesTheSameBytesAndAnotherSeedOthers) {
  const TokenizedSamples train = sequences("train.txt");
  settings_.max_steps = 12;
  const auto weights_after = [&](std::uint32_t seed, const char* name) {
    const auto model = create();
    PretrainSettings settings = settings_;
    settings.seed = seed;
    Recorder recorder(folder_ / name);
    pretrain(*model, train, nullptr, settings, recorder);
    return contents(folder_ / name / "model.safetensors");
  };
  const std::string first = weights_after(1, "a");
  EXPECT_GT(first.size(), 10000U);
  EXPECT_EQ(first, weights_after(1, "b"));
  EXPECT_NE(first, weights_after(2, "c"));
}

TEST_F(PretrainTest, TheDevLossDependsOnNeitherBatchesNorStep) {
  const auto model = create();
  const TokenizedSamples dev = sequences("dev.txt");
  const auto score = evaluate_masked_lm(*model, dev, settings_);
  PretrainSettings smaller = settings_;
  smaller.batch_tokens = 50;
  const auto in_pieces = evaluate_masked_lm(*model, dev, smaller);
  EXPECT_EQ(in_pieces->tokens, score->tokens);
  EXPECT_NEAR(in_pieces->loss, score->loss, 1e-5 * score->loss);
  PretrainSettings other = settings_;
  other.seed = 43;
  EXPECT_NE(evaluate_masked_lm(*model, dev, other)->loss, score->loss);
}

TEST_F(PretrainTest, RowsThatOnlyRoundUpChangeNothing) {
  const auto model = create(1);
  const TokenizedSamples train = sequences("train.txt");
  const std::vector<std::int32_t> members = {0, 1, 2, 3, 4};
  const Masking masking(model->tokenizer(), 0.15);
  const auto gradients = [&](bool rounded) {
    PackedBatch packed;
    pack_masked(train, members, masking, {.seed = 1, .step = 0}, 0, WithoutChoice::least_draw, packed);
    const auto rows = static_cast<double>(packed.row_token.size());
    if (rounded) {
      round_up(packed);
      EXPECT_GT(static_cast<double>(packed.row_token.size()), rows);
    }
    Tape tape(model->device());
    model->arena().watch(tape, Use::write);
    const RandomKey key{.seed = 1, .step = 0};
    const Batch batch = upload(model->device(), DType::f32, packed, {.random_key = &key, .loss_denominator = rows});
    tape.backward(cross_entropy_loss(tape, model->model().forward(tape, batch), batch, model->model().loss_settings()));
    const Tensor& all = model->arena().gradients();
    return std::vector<float>(all.data<float>(), all.data<float>() + all.size());
  };
  const auto exact = gradients(false);
  const auto rounded = gradients(true);
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    difference += std::pow(static_cast<double>(exact[i]) - rounded[i], 2);
    norm += std::pow(static_cast<double>(exact[i]), 2);
  }
  EXPECT_GT(norm, 0.0);
  EXPECT_LE(std::sqrt(difference), 1e-6 * std::sqrt(norm));
}

TEST_F(PretrainTest, TheFolderIsBertForMaskedLm) {
  const auto model = create();
  fs::create_directories(folder_ / "run");
  model->save_description(folder_ / "run");
  model->save_weights(folder_ / "run");
  const BertConfig config = BertConfig::load(folder_ / "run" / "config.json");
  EXPECT_EQ(config.architectures, std::vector<std::string>{"BertForMaskedLM"});
  EXPECT_TRUE(config.tied_words);
  EXPECT_EQ(config.model_type, "bert");
  // Hugging Face's names and shapes, as its own save_pretrained writes them: no pooler, and the tied decoder left out.
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> expected = {
      {"bert.embeddings.word_embeddings.weight", {20, 32}},
      {"bert.embeddings.position_embeddings.weight", {64, 32}},
      {"bert.embeddings.token_type_embeddings.weight", {2, 32}},
      {"bert.embeddings.LayerNorm.weight", {32}},
      {"bert.embeddings.LayerNorm.bias", {32}},
      {"cls.predictions.bias", {20}},
      {"cls.predictions.transform.dense.weight", {32, 32}},
      {"cls.predictions.transform.dense.bias", {32}},
      {"cls.predictions.transform.LayerNorm.weight", {32}},
      {"cls.predictions.transform.LayerNorm.bias", {32}}};
  for (const char* layer : {"bert.encoder.layer.0.", "bert.encoder.layer.1."}) {
    const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
      expected.emplace_back(std::string(layer) + name + ".weight", shape);
      expected.emplace_back(std::string(layer) + name + ".bias", std::vector<std::int64_t>{shape[0]});
    };
    for (const char* name : {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"})
      add(name, {32, 32});
    add("attention.output.LayerNorm", {32});
    add("intermediate.dense", {64, 32});
    add("output.dense", {32, 64});
    add("output.LayerNorm", {32});
  }
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> found;
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "run" / "model.safetensors");
  for (const TensorEntry& tensor : file.tensors()) found.emplace_back(tensor.name, tensor.shape);
  std::ranges::sort(expected);
  std::ranges::sort(found);
  EXPECT_EQ(found, expected);

  // finetune's side: everything but pooler and classifier is there.
  const auto classifier = Classifier::load(folder_ / "run", device(), LabelSet({"a", "b"}), Classifier::Head::kept, 1);
  EXPECT_EQ(classifier->report().initialised,
            (std::vector<std::string>{"pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"}));
}

TEST_F(PretrainTest, GoesOnFromPublishedWeightsWithANewHead) {
  const auto model = MaskedLm::load(folder_ / "model", device(), 5);
  EXPECT_EQ(model->report().initialised.size(), 5U) << "the head";
  EXPECT_TRUE(model->report().unused.empty() || std::ranges::all_of(model->report().unused, [](const std::string& name) {
                return name.find("pooler") != std::string::npos;
              }));
  EXPECT_EQ(MaskedLm::load(folder_ / "model", device(), 5, 0.25)->model().bert().settings().hidden_dropout, 0.25);
  // A decoder of its own is no tied one.
  std::string config = contents(folder_ / "model" / "config.json");
  config.replace(config.find('{'), 1, R"({"tie_word_embeddings": false, )");
  std::ofstream(folder_ / "model" / "config.json") << config;
  EXPECT_THROW(MaskedLm::load(folder_ / "model", device(), 5), MismatchError);
}

TEST_F(PretrainTest, AnInterruptedRunKeepsWhatWasLearnt) {
  const auto model = create();
  const TokenizedSamples train = sequences("train.txt");
  std::atomic<int> stop = 0;
  Recorder recorder(folder_ / "run");
  recorder.on_step = [&](std::int64_t step) { stop = step == 3 ? 2 : 0; };
  const PretrainResult result = pretrain(*model, train, nullptr, settings_, recorder, &stop);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.steps, 3);
  EXPECT_EQ(recorder.saves, 1);
  EXPECT_EQ(recorder.steps.back().step, 3);
}

TEST_F(PretrainTest, RefusesWhatDoesNotFit) {
  const TokenizedSamples train = sequences("train.txt");
  settings_.batch_tokens = 10;
  EXPECT_THROW(pretrain_steps(settings_, train), UsageError);
  settings_.batch_tokens = 256;
  settings_.epochs = 1e12;
  EXPECT_THROW(pretrain_steps(settings_, train), UsageError);
  settings_.epochs = 1;
  settings_.learning_rate = 1e30;
  settings_.warmup_share.reset();
  const auto model = create();
  Recorder recorder(folder_ / "run");
  EXPECT_THROW(pretrain(*model, train, nullptr, settings_, recorder), NonFiniteError);
}

}  // namespace
}  // namespace lathe
