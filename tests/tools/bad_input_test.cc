// Every mistake of a user: exit status 2, one line that says what and where, nothing written.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class BadInputTest : public testing::Test {
 protected:
  BadInputTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 60, 1);
  }
  std::string path(const fs::path& name) const { return (folder_ / name).string(); }
  void write(const fs::path& name, const std::string& text) const { std::ofstream(folder_ / name, std::ios::binary) << text; }

  /// Expects one line that holds all of `facts`, status 2, and no output folder. What the run prints of its progress stands before it.
  void expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& facts,
                      bool output_may_exist = false) const {
    const CommandResult result = run_lathe(folder_.path(), arguments);
    EXPECT_EQ(result.status, 2) << result.error;
    EXPECT_EQ(result.out, "");
    ASSERT_FALSE(result.error.empty());
    EXPECT_EQ(result.error.back(), '\n');
    const auto begin = result.error.rfind("lathe: ");
    ASSERT_NE(begin, std::string::npos) << result.error;
    const std::string line = result.error.substr(begin);
    EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
    EXPECT_LT(line.size(), 600U) << line;
    for (const std::string& fact : facts)
      EXPECT_NE(line.find(fact), std::string::npos) << "\"" << fact << "\" is missing in: " << line;
    EXPECT_TRUE(output_may_exist || !fs::exists(folder_ / "run")) << line;
  }
  std::vector<std::string> finetune(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"finetune",        "--model",  path("model"), "--train",
                                          path("train.tsv"), "--output", path("run")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> finetune_on(const std::string& file, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"finetune", "--model", path("model"), "--train", path(file), "--output", path("run")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  TemporaryFolder folder_;
};

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
  expect_refused(finetune({"--device", "cuda"}), {"cuda"});
  expect_refused(finetune({"--max-length", "100"}), {"--max-length", "64"});
  expect_refused(finetune({"--format", "xml"}), {"xml"});
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
