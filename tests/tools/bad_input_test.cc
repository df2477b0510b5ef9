// Every mistake of a user: exit status 2, one line that says what and where, nothing written.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/tools/refusal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class BadInputTest : public RefusalTest {};

TEST_F(BadInputTest, WeightsThatAreMissingTruncatedOrMisshapen) {
  const std::string whole = contents_of(folder_ / "model" / "model.safetensors");
  write("model/model.safetensors", whole.substr(0, whole.size() - 100));
  expect_refused(finetune(), {"model.safetensors", std::to_string(whole.size()), std::to_string(whole.size() - 100)});
  fs::remove(folder_ / "model" / "model.safetensors");
  expect_refused(finetune(), {"model.safetensors"});
  write_tiny_model(folder_ / "wide", 2, 64);
  fs::copy_file(folder_ / "wide" / "model.safetensors", folder_ / "model" / "model.safetensors");
  expect_refused(finetune(), {"embeddings.word_embeddings.weight", "64", "32"});
}

TEST_F(BadInputTest, ConfigurationsThatDoNotFit) {
  write_tiny_model(folder_ / "deep", 3, 32);
  fs::copy_file(folder_ / "deep" / "config.json", folder_ / "model" / "config.json", fs::copy_options::overwrite_existing);
  expect_refused(finetune(), {"encoder.layer.2"});
  write("model/config.json", R"({"model_type": "llama"})");
  expect_refused(finetune(), {"config.json", "llama"});
  write("model/config.json", "{");
  expect_refused(finetune(), {"config.json"});
}

TEST_F(BadInputTest, AVocabularyThatDoesNotFitTheEmbeddings) {
  std::ofstream(folder_ / "model" / "vocab.txt", std::ios::app) << "more\nwords\n";
  expect_refused(finetune(), {"22", "20"});
}

TEST_F(BadInputTest, UnknownLabels) {
  write("dev.tsv", "text\tlabel\ngood\tpositive\nbad\tangry\n");
  expect_refused(finetune({"--dev", path("dev.tsv")}), {"dev.tsv", "line 3", "angry", "positive", "negative"});
}

TEST_F(BadInputTest, MissingColumns) {
  write("columns.tsv", "body\tstars\nx\t1\n");
  expect_refused(finetune_on("columns.tsv"), {"columns.tsv", "body", "stars"});
  expect_refused(finetune({"--text-column", "comment"}), {"comment", "text", "label"});
}

TEST_F(BadInputTest, EmptyFilesAndMissingOnes) {
  write("empty.tsv", "");
  expect_refused(finetune_on("empty.tsv"), {"empty.tsv"});
  write("header.tsv", "text\tlabel\n");
  expect_refused(finetune_on("header.tsv"), {"header.tsv"});
  expect_refused(finetune_on("absent.tsv"), {"absent.tsv"});
  expect_refused(finetune_on("model"), {"model"});
}

TEST_F(BadInputTest, PipesThatWouldBeReadTwice) {
  ASSERT_EQ(::mkfifo(path("pipe.tsv").c_str(), 0600), 0);
  expect_refused(finetune_on("pipe.tsv"), {"pipe.tsv", "pipe"});
  expect_refused(finetune({"--dev", path("pipe.tsv")}), {"pipe.tsv", "pipe"});
}

TEST_F(BadInputTest, LabelsThatMakeNoClasses) {
  write("one.tsv", "text\tlabel\na\t1\nb\t1\n");
  expect_refused(finetune_on("one.tsv"), {"one.tsv"});
  write("scores.tsv", "text\tlabel\na\t0.5\nb\t0.25\nc\t1\n");
  expect_refused(finetune_on("scores.tsv"), {"looks like regression"});
}

TEST_F(BadInputTest, OutputFoldersThatMustNotBeTouched) {
  expect_refused({"finetune", "--model", path("model"), "--train", path("train.tsv"), "--output", path("model")}, {"--output"});
  fs::create_directory(folder_ / "run");
  write("run/run.toml", "");
  write("run/results.json", "{}");
  expect_refused(finetune(), {"--overwrite"}, true);
  EXPECT_EQ(contents_of(folder_ / "run" / "results.json"), "{}");
  write("file", "");
  expect_refused({"finetune", "--model", path("model"), "--train", path("train.tsv"), "--output", path("file")}, {"file"}, true);
}

TEST_F(BadInputTest, LossesThatAreNotNumbersKeepWhatWasSaved) {
  const std::vector<std::string> call = finetune({"--lr", "1e30", "--max-grad-norm", "0", "--warmup", "0", "--epochs", "3"});
  expect_refused(call, {"step ", "--lr"}, true);
}

TEST_F(BadInputTest, ModelsWithoutAHead) {
  expect_refused({"evaluate", "--model", path("model"), "--data", path("train.tsv")}, {"head"});
  expect_refused({"predict", "--model", path("model")}, {"head"});
}

TEST_F(BadInputTest, OptionsThatMakeNoSense) {
  expect_refused({}, {"subcommand"});
  expect_refused({"finetune"}, {"--model"});
  expect_refused(finetune({"--no-such-option"}), {"--no-such-option"});
  expect_refused(finetune({"--epochs", "-1"}), {"--epochs"});
  expect_refused(finetune({"--epochs", "1", "--max-steps", "2"}), {"--max-steps"});
  expect_refused(finetune({"--batch-size", "0"}), {"--batch-size"});
  expect_refused(finetune({"--warmup", "1.5"}), {"--warmup"});
  expect_refused(finetune({"--dev", "2.0"}), {"--dev"});
  expect_refused(finetune({"--device", "gpu"}), {"--device", "gpu", "auto, cpu, cuda"});
  expect_refused(finetune({"--precision", "fp16"}), {"--precision", "fp16"});
  expect_refused(finetune({"--max-length", "100"}), {"--max-length", "64"});
  expect_refused(finetune({"--format", "xml"}), {"xml"});
  for (const char* option : {"--epochs", "--lr", "--weight-decay", "--max-grad-norm"}) {
    for (const char* value : {"nan", "inf", "-1", "1e400", "much"})
      expect_refused(finetune({option, value}), {option, value, "expected a finite number"});
  }
  expect_refused(finetune({"--epochs", "1e300"}), {"2e+300", "steps"});
  expect_refused(finetune({"--max-steps", "9000000000000000000"}), {"9000000000000000000", "steps"});
}

TEST_F(BadInputTest, ControlCharactersDoNotReachTheTerminal) {
  write("evil.tsv", "text\tlabel\na\tb\tc\n");
  write("columns.tsv", "bo\x1b[2Jdy\tstars\nx\t1\n");
  const CommandResult result = run_lathe(folder_.path(), finetune_on("columns.tsv"));
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.error.find('\x1b'), std::string::npos) << result.error;
  expect_refused(finetune_on("evil.tsv"), {"evil.tsv", "line 2"});
}

}  // namespace
}  // namespace lathe
