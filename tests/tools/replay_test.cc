// --config: settings from a file, and the replay of a run by its run.toml.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

class ReplayTest : public testing::Test {
 protected:
  ReplayTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 120, 1);
    write_tiny_data(folder_ / "test.tsv", 40, 2);
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  void write(const char* name, const std::string& text) const { std::ofstream(folder_ / name, std::ios::binary) << text; }
  CommandResult lathe(const std::vector<std::string>& arguments) const { return run_lathe(folder_.path(), arguments); }
  std::string weights(const char* run) const { return contents_of(folder_ / run / "model.safetensors"); }
  CommandResult finetune(const char* output, std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"finetune",        "--model",  path("model"), "--train",
                                          path("train.tsv"), "--output", path(output)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return lathe(arguments);
  }
  /// The last line that begins with "lathe: ", for a call of status 2 that wrote nothing.
  std::string refusal(const std::vector<std::string>& arguments) const {
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 2) << result.error;
    EXPECT_FALSE(fs::exists(folder_ / "new"));
    const auto begin = result.error.rfind("lathe: ");
    return begin == std::string::npos ? result.error : result.error.substr(begin);
  }
  /// The refusal of a file of settings, less what every such message begins with.
  std::string refusal_of(const std::string& settings) const {
    write("settings.toml", settings);
    std::string line = refusal({"finetune", "--model", path("model"), "--train", path("train.tsv"), "--output", path("new"),
                                "--config", path("settings.toml")});
    const std::string begin = "lathe: " + path("settings.toml") + ", ";
    EXPECT_TRUE(line.starts_with(begin)) << line;
    return line.starts_with(begin) ? line.substr(begin.size(), line.size() - begin.size() - 1) : line;
  }

  TemporaryFolder folder_;
};

TEST_F(ReplayTest, ARunTomlGivesTheSameBytesFromAnotherFolder) {
  // Relative paths, a share as --dev, and no setting as it is by default.
  const std::string call =
      "cd " + folder_.path().string() + " && " + LATHE_COMMAND +
      " finetune --model model --train train.tsv --dev 0.2 --test test.tsv --output first --lr 1e-3 --epochs 1.5"
      " --batch-size 7 --max-length 9 --warmup 3 --weight-decay 0.02 --max-grad-norm 0.5 --seed 5 --log-steps 3"
      " --threads 1 --instruction-set avx2 --positive-label negative --new-head 2>errors >/dev/null";
  ASSERT_EQ(std::system(call.c_str()), 0) << contents_of(folder_ / "errors");
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(replay.error.find("warning"), std::string::npos) << replay.error;
  EXPECT_EQ(weights("first"), weights("second"));
  const auto first = nlohmann::json::parse(contents_of(folder_ / "first" / "results.json"));
  const auto second = nlohmann::json::parse(contents_of(folder_ / "second" / "results.json"));
  EXPECT_EQ(first["dev"], second["dev"]);
  EXPECT_EQ(first["test"], second["test"]);
  EXPECT_EQ(first["dev"]["positive_label"], "negative");
  // All that run.toml says is the same, but for the folder, and why things were chosen.
  const auto settings = [&](const char* run) {
    std::istringstream lines(contents_of(folder_ / run / "run.toml"));
    std::vector<std::string> kept;
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("output = ") && line.find("-reason = ") == std::string::npos) kept.push_back(line);
    }
    return kept;
  };
  EXPECT_EQ(settings("first"), settings("second"));
  EXPECT_GT(settings("first").size(), 30U);
}

TEST_F(ReplayTest, FlagsWinOverTheFile) {
  write("settings.toml", "max-steps = 4\n[finetune]\nlr = 1e-3\nseed = 1\ntrain = \"" + path("absent.tsv") + "\"\n");
  ASSERT_EQ(finetune("a", {"--config", path("settings.toml"), "--seed", "2"}).status, 0);
  ASSERT_EQ(finetune("b", {"--max-steps", "4", "--lr", "1e-3", "--seed", "2"}).status, 0);
  EXPECT_EQ(weights("a"), weights("b"));
  // Of two options that exclude each other, the call's wins too.
  ASSERT_EQ(finetune("c", {"--config", path("settings.toml"), "--epochs", "0.5", "--seed", "2"}).status, 0);
  ASSERT_EQ(finetune("d", {"--epochs", "0.5", "--lr", "1e-3", "--seed", "2"}).status, 0);
  EXPECT_EQ(weights("c"), weights("d"));
}

TEST_F(ReplayTest, UnknownSettingsNameFileLineAndTheNearest) {
  EXPECT_EQ(refusal_of("[finetune]\nlr = 1e-3\nlearning_rate = 1e-3\n"),
            "line 3: no setting is called 'learning_rate'; did you mean 'lr'?");
  EXPECT_EQ(refusal_of("batchsize = 8\n"), "line 1: no setting is called 'batchsize'; did you mean 'batch-size'?");
  EXPECT_EQ(refusal_of("frobnicate = 8\n"), "line 1: no setting is called 'frobnicate'; `lathe finetune --help` lists them");
  EXPECT_EQ(refusal_of("[finetunes]\nlr = 1\n"), "line 2: no section is called [finetunes]; did you mean [finetune]?");
}

TEST_F(ReplayTest, ValuesOfAnotherTypeOrOutOfRangeAreRefused) {
  EXPECT_EQ(refusal_of("lr = \"high\"\n"), "line 1: 'lr' is text; it must be a number");
  EXPECT_EQ(refusal_of("lr = true\n"), "line 1: 'lr' is true or false; it must be a number");
  EXPECT_EQ(refusal_of("new-head = 1\n"), "line 1: 'new-head' is an integer; it must be true or false");
  EXPECT_EQ(refusal_of("model = 3\n"), "line 1: 'model' is an integer; it must be text in quotes");
  EXPECT_NE(refusal_of("batch-size = 1.5\n").find("line 1: "), std::string::npos);
  EXPECT_NE(refusal_of("batch-size = 0\n").find("--batch-size"), std::string::npos);
  EXPECT_NE(refusal_of("seed = -1\n").find("--seed"), std::string::npos);
  EXPECT_NE(refusal_of("device = \"gpu\"\n").find("--device: gpu is none of auto, cpu, cuda"), std::string::npos);
  EXPECT_EQ(refusal_of("lr = 1e-3\n[finetune]\nlr = 1e-3\n"), "line 1: 'lr' is there twice");
  EXPECT_NE(refusal_of("epochs = 1\nmax-steps = 4\n").find("exclude each other"), std::string::npos);
  EXPECT_EQ(refusal_of("overwrite = true\n"), "line 1: 'overwrite' is said on the command line, not in a file");
}

TEST_F(ReplayTest, WhereToWriteIsTheCallsToSay) {
  ASSERT_EQ(finetune("first", {"--max-steps", "2"}).status, 0);
  EXPECT_NE(refusal({"finetune", "--config", path("first/run.toml")}).find("--output DIR is missing"), std::string::npos);
  EXPECT_NE(refusal({"finetune", "--config", path("first/run.toml"), "--output", path("first")}).find("--overwrite"),
            std::string::npos);
  EXPECT_NE(refusal({"finetune", "--config", path("nowhere.toml"), "--output", path("new")}).find("nowhere.toml: "),
            std::string::npos);
}

TEST_F(ReplayTest, AChangedInputIsAWarningWithBothHashes) {
  ASSERT_EQ(finetune("first", {"--max-steps", "2", "--test", path("test.tsv")}).status, 0);
  write_tiny_data(folder_ / "test.tsv", 40, 3);
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  const auto begin = replay.error.find("warning: ");
  ASSERT_NE(begin, std::string::npos) << replay.error;
  const std::string line = replay.error.substr(begin, replay.error.find('\n', begin) - begin);
  EXPECT_NE(line.find(path("test.tsv") + " has changed since"), std::string::npos) << line;
  const auto hash_in = [&](const char* run) {
    const std::string text = contents_of(folder_ / run / "run.toml");
    const auto at = text.find("xxh64:", text.find("test.tsv\" = "));
    return text.substr(at, 22);
  };
  EXPECT_NE(hash_in("first"), hash_in("second"));
  EXPECT_NE(line.find(hash_in("first")), std::string::npos) << line;
  EXPECT_NE(line.find(hash_in("second")), std::string::npos) << line;
  EXPECT_EQ(weights("first"), weights("second")) << "the test data teaches nothing";
}

TEST_F(ReplayTest, AModelsRunTomlIsCheckedWhereItGivesDefaults) {
  ASSERT_EQ(finetune("first", {"--max-steps", "2"}).status, 0);
  const auto evaluate = [&](const std::string& settings) {
    write("first/run.toml", settings);
    return refusal({"evaluate", "--model", path("first"), "--data", path("test.tsv")});
  };
  EXPECT_NE(evaluate("[finetune]\nmax-length = \"long\"\n").find("run.toml, line 2: 'max-length' is long; it must be an integer"),
            std::string::npos);
  EXPECT_NE(evaluate("[finetune]\n\nbatch-size = 0\n").find("line 3: 'batch-size' is 0; it must be from 1 to 1048576"),
            std::string::npos);
  EXPECT_NE(evaluate("[finetune]\ntext-column = 1\n").find("line 2: 'text-column' is 1; it must be text"), std::string::npos);
  EXPECT_NE(evaluate("[finetune\n").find("run.toml, line 1: "), std::string::npos);
}

TEST_F(ReplayTest, AFileMayBeGivenTwice) {
  ASSERT_EQ(finetune("first", {"--max-steps", "2", "--test", path("train.tsv"), "--dev", path("train.tsv")}).status, 0);
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(weights("first"), weights("second"));
}

TEST_F(ReplayTest, AnotherBuildIsAWarning) {
  ASSERT_EQ(finetune("first", {"--max-steps", "2"}).status, 0);
  std::string text = contents_of(folder_ / "first" / "run.toml");
  const auto at = text.find("matrix-products = ");
  text.replace(at, text.find('\n', at) - at, "matrix-products = \"Abacus 1.0\"");
  write("first/run.toml", text);
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_NE(replay.error.find("matrix-products Abacus 1.0"), std::string::npos) << replay.error;
}

}  // namespace
}  // namespace lathe
