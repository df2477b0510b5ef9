// lathe pretrain as a user meets it: what it writes, what it refuses.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/tools/refusal.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Strings = std::vector<std::string>;

class PretrainCommand : public RefusalTest {
 protected:
  PretrainCommand() {
    write_tiny_text(folder_ / "a.txt", 60, 1);
    write_tiny_text(folder_ / "b.txt", 60, 2);
    write_tiny_text(folder_ / "dev.txt", 20, 3);
  }
  Strings pretrain(const Strings& more, const char* output = "run") const {
    Strings arguments = {"pretrain", "--task", "mlm", "--output", path(output)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  /// `more`, and those of `usual` (options with a value each) that it doesn't have.
  static Strings with_usual(const Strings& usual, const Strings& more) {
    Strings all = more;
    for (std::size_t i = 0; i < usual.size(); i += 2) {
      if (std::ranges::find(more, usual[i]) == more.end()) all.insert(all.end(), {usual[i], usual[i + 1]});
    }
    return all;
  }
  Strings from_scratch(const Strings& more, const char* output = "run") const {
    return pretrain(with_usual({"--tokenizer", path("model"), "--layers", "1", "--hidden-size", "32", "--heads", "4", "--train",
                                path("a.txt"), "--batch-tokens", "256", "--max-length", "32"},
                               more),
                    output);
  }
  Strings from_weights(const Strings& more, const char* output = "run") const {
    return pretrain(
        with_usual({"--model", path("model"), "--train", path("a.txt"), "--batch-tokens", "256", "--max-length", "32"}, more),
        output);
  }
  CommandResult lathe(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  std::string weights(const char* run) const { return contents_of(folder_ / run / "model.safetensors"); }
};

TEST_F(PretrainCommand, FromScratchToAModelThatFinetuneTakes) {
  const CommandResult trained = lathe(from_scratch(
      {"--train", path("a.txt"), path("b.txt"), "--dev", path("dev.txt"), "--epochs", "8", "--lr", "5e-3", "--log-steps", "1"}));
  ASSERT_EQ(trained.status, 0) << trained.error;
  for (const char* name :
       {"config.json", "vocab.txt", "model.safetensors", "run.toml", "results.json", "metrics.jsonl", "curves.svg"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
  EXPECT_NE(trained.error.find("perplexity"), std::string::npos) << trained.error;
  const Json results = Json::parse(contents_of(folder_ / "run" / "results.json"));
  const double loss = results["dev"]["loss"];
  EXPECT_DOUBLE_EQ(results["dev"]["perplexity"].get<double>(), std::exp(loss));
  EXPECT_LT(loss, 0.7 * std::log(20.0));
  EXPECT_EQ(results["train"]["epochs"], 8.0);
  EXPECT_FALSE(results["interrupted"].get<bool>());
  EXPECT_TRUE(trained.out.starts_with("dev: loss ")) << trained.out;
  std::istringstream lines(contents_of(folder_ / "run" / "metrics.jsonl"));
  int steps = 0;
  int evaluations = 0;
  Json last;
  for (std::string line; std::getline(lines, line);) {
    last = Json::parse(line);
    ++(last.contains("split") ? evaluations : steps);
  }
  EXPECT_EQ(steps, results["train"]["steps"].get<int>());
  EXPECT_EQ(evaluations, 8);
  EXPECT_EQ(last["metrics"]["loss"].get<double>(), loss);

  const CommandResult classifier = lathe(
      {"finetune", "--model", path("run"), "--train", path("train.tsv"), "--output", path("classifier"), "--max-steps", "2"});
  EXPECT_EQ(classifier.status, 0) << classifier.error;
  // And its own training goes on.
  const CommandResult more = lathe(pretrain({"--model", path("run"), "--train", path("b.txt"), "--max-steps", "1",
                                             "--batch-tokens", "512", "--dev", path("dev.txt"), "--lr", "0"},
                                            "more"));
  ASSERT_EQ(more.status, 0) << more.error;
  EXPECT_EQ(more.error.find("model: new"), std::string::npos) << more.error;
  EXPECT_EQ(weights("more"), weights("run")) << "a rate of 0";
}

TEST_F(PretrainCommand, TheSameBytesAgainFromItsRunToml) {
  ASSERT_EQ(lathe(from_scratch({"--train", path("a.txt"), path("b.txt"), "--dev", "0.1", "--max-steps", "5", "--dropout", "0.2",
                                "--mlm-probability", "0.3", "--seed", "9", "--intermediate-size", "48"}))
                .status,
            0);
  const CommandResult replay = lathe({"pretrain", "--config", path("run/run.toml"), "--output", path("again")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(replay.error.find("warning"), std::string::npos) << replay.error;
  EXPECT_EQ(weights("again"), weights("run"));
  EXPECT_EQ(contents_of(folder_ / "again" / "config.json"), contents_of(folder_ / "run" / "config.json"));
  EXPECT_NE(contents_of(folder_ / "run" / "config.json").find("\"hidden_dropout_prob\": 0.2"), std::string::npos);
  EXPECT_NE(contents_of(folder_ / "run" / "run.toml").find("lathe pretrain --config"), std::string::npos);
  const CommandResult other = lathe({"pretrain", "--config", path("run/run.toml"), "--output", path("other"), "--seed", "10"});
  ASSERT_EQ(other.status, 0) << other.error;
  EXPECT_NE(weights("other"), weights("run"));
}

TEST_F(PretrainCommand, FromWeightsAndADryRun) {
  const CommandResult dry = lathe(from_weights({"--dry-run", "--dev", "0.1", "--max-steps", "30"}));
  ASSERT_EQ(dry.status, 0) << dry.error;
  EXPECT_NE(dry.out.find("steps       30 of up to 256 tokens"), std::string::npos) << dry.out;
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  const CommandResult trained = lathe(from_weights({"--max-steps", "3"}));
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_NE(trained.error.find("new: cls.predictions.transform.dense.weight"), std::string::npos) << trained.error;
  EXPECT_NE(trained.error.find("no --dev"), std::string::npos);
  EXPECT_EQ(trained.out, "");
}

TEST_F(PretrainCommand, InterruptedItKeepsTheModel) {
  const CommandResult result =
      run_lathe(folder_.path(), from_scratch({"--max-steps", "100000000", "--log-steps", "1"}), "", [&](pid_t child) {
        const auto log = folder_ / "run" / "metrics.jsonl";
        for (int i = 0; i < 3000 && (!fs::exists(log) || fs::file_size(log) == 0); ++i) ::usleep(10'000);
        ::kill(child, SIGINT);
      });
  EXPECT_EQ(result.status, 128 + SIGINT) << result.error;
  EXPECT_NE(result.error.find("the model is kept as that step left it"), std::string::npos) << result.error;
  EXPECT_GT(weights("run").size(), 1000U);
  EXPECT_TRUE(Json::parse(contents_of(folder_ / "run" / "results.json"))["interrupted"].get<bool>());
}

TEST_F(PretrainCommand, WhatToStartFromMustBeSaidOnce) {
  expect_refused(pretrain({"--train", path("a.txt")}), {"--model", "--tokenizer", "missing"});
  expect_refused(from_scratch({"--model", path("model")}), {"--tokenizer", "--model"});
  expect_refused(from_weights({"--layers", "2"}), {"--layers is for a model from scratch"});
  expect_refused(pretrain({"--tokenizer", path("model"), "--train", path("a.txt"), "--layers", "2"}),
                 {"--hidden-size, --heads missing"});
  expect_refused(from_scratch({"--heads", "5"}), {"--heads 5", "--hidden-size 32"});
  expect_refused(from_scratch({"--hidden-size", "2048", "--heads", "1"}), {"heads of 2048", "256"});
  expect_refused(from_scratch({"--task", "clm"}), {"--task", "clm", "mlm"});
}

TEST_F(PretrainCommand, TextThatIsNone) {
  const auto on = [&](const char* file) { return pretrain({"--model", path("model"), "--train", path(file)}); };
  write("empty.txt", "");
  expect_refused(on("empty.txt"), {"empty.txt", "no text"});
  write("latin.txt", "good film\n\ncaf\xE9\n");
  expect_refused(on("latin.txt"), {"latin.txt, line 3", "UTF-8"});
  write("wide.txt", std::string("\xFF\xFEg\0", 4));
  expect_refused(on("wide.txt"), {"wide.txt", "UTF-16"});
  write("special.txt", "[SEP] [MASK]\n");
  expect_refused(on("special.txt"), {"special.txt", "no token that could be guessed"});
  expect_refused(on("absent.txt"), {"absent.txt"});
  expect_refused(on("model"), {"model"});
  write("one.txt", "good\n");
  expect_refused(pretrain({"--model", path("model"), "--train", path("one.txt"), "--dev", "0.5"}), {"1 document"});
  expect_refused(from_weights({"--dev", "1.5"}), {"--dev 1.5"});
  expect_refused(from_weights({"--dev", path("empty.txt")}), {"empty.txt"});
}

TEST_F(PretrainCommand, ATextOfOneWordIsEnough) {
  write("one.txt", "good");
  const CommandResult result = lathe(pretrain({"--model", path("model"), "--train", path("one.txt"), "--max-steps", "3"}));
  EXPECT_EQ(result.status, 0) << result.error;
}

TEST_F(PretrainCommand, TokenizersThatDoNotServe) {
  const std::string vocabulary = contents_of(folder_ / "model" / "vocab.txt");
  std::string without = vocabulary;
  without.replace(without.find("[MASK]"), 6, "[MUSK]");
  fs::create_directory(folder_ / "tokens");
  write("tokens/vocab.txt", without);
  const auto with = [&](const char* tokenizer) {
    return pretrain(
        {"--tokenizer", path(tokenizer), "--layers", "1", "--hidden-size", "32", "--heads", "4", "--train", path("a.txt")});
  };
  expect_refused(with("tokens"), {"vocab.txt", "[MASK]"});
  write("tokens/words.txt", vocabulary);
  expect_refused(with("tokens/words.txt"), {"words.txt", "vocab.txt"});
  expect_refused(with("nowhere"), {"nowhere"});
  write("tokens/vocab.txt", vocabulary);
  const CommandResult result = lathe(from_scratch({"--tokenizer", path("tokens/vocab.txt"), "--max-steps", "1"}));
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_EQ(contents_of(folder_ / "run" / "vocab.txt"), vocabulary);
}

TEST_F(PretrainCommand, NumbersThatDoNotFit) {
  expect_refused(from_weights({"--batch-tokens", "16"}), {"16 tokens", "--batch-tokens", "--max-length"});
  expect_refused(from_weights({"--max-length", "65"}), {"65", "64 positions"});
  expect_refused(from_weights({"--max-length", "2"}), {"--max-length"});
  for (const char* p : {"0", "1.5", "nan", "-1", "half"})
    expect_refused(from_weights({"--mlm-probability", p}), {"--mlm-probability", p});
  expect_refused(from_weights({"--mlm-probability", "1e-9"}), {"1e-09"});
  expect_refused(from_weights({"--dropout", "1"}), {"--dropout"});
  expect_refused(from_weights({"--epochs", "1e12"}), {"steps are asked for"});
  expect_refused(from_weights({"--epochs", "1", "--max-steps", "2"}), {"--epochs", "--max-steps"});
  expect_refused(from_scratch({"--layers", "0"}), {"--layers"});
  expect_refused(from_scratch({"--layers", "1000", "--hidden-size", "65536", "--heads", "512"}),
                 {"parameters", "GiB", "--layers", "--hidden-size"});
  expect_refused(from_weights({"--lr", "1e30", "--warmup", "0"}), {"step ", "not numbers to go on with"}, true);
}

TEST_F(PretrainCommand, NothingIsWrittenWhereSomethingIs) {
  expect_refused(pretrain({"--model", path("model"), "--train", path("a.txt")}, "model"), {"--model folder"});
  expect_refused(
      pretrain({"--tokenizer", path("model"), "--layers", "1", "--hidden-size", "32", "--heads", "4", "--train", path("a.txt")},
               "model"),
      {"model"});
  ASSERT_EQ(lathe(from_weights({"--max-steps", "1"})).status, 0);
  expect_refused(from_weights({"--max-steps", "1"}), {"--overwrite"}, true);
  EXPECT_EQ(lathe(from_weights({"--max-steps", "1", "--overwrite"})).status, 0);
}

}  // namespace
}  // namespace lathe
