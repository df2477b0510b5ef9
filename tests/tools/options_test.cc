// finetune's options beyond the settings of training: what they change, and what they refuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Strings = std::vector<std::string>;

class OptionsTest : public testing::Test {
 protected:
  OptionsTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 120, 1);
    write_tiny_data(folder_ / "test.tsv", 40, 2);
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  CommandResult lathe(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  Strings finetune(const char* model, const char* train, const char* output, const Strings& more = {}) const {
    Strings arguments = {"finetune", "--model", path(model), "--train", path(train), "--output", path(output), "--lr", "2e-3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json results(const char* output) const { return Json::parse(contents_of(folder_ / output / "results.json")); }
  Json evaluated(const Strings& more) const {
    Strings arguments = {"evaluate", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    return result.status == 0 ? Json::parse(result.out) : Json();
  }
  /// The lines of a call that is refused with status 2; the last one says why.
  std::string refusal(const Strings& arguments) const {
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 2) << result.error;
    const auto begin = result.error.rfind("lathe: ");
    return begin == std::string::npos ? "" : result.error.substr(begin);
  }
  std::vector<fs::path> everything() const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) paths.push_back(entry.path());
    std::ranges::sort(paths);
    return paths;
  }

  TemporaryFolder folder_;
};

/// Files like AG News': a class, a title, a description, and no header.
void write_news(const fs::path& path, char separator) {
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < 60; ++i) {
    file << i % 2 + 1 << separator << (i % 3 == 0 ? "a film" : "it is") << separator << (i % 2 == 0 ? "very good" : "very dull")
         << '\n';
  }
}

TEST_F(OptionsTest, FilesWithoutAHeaderAreReadByNumberedColumns) {
  for (const char* file : {"news.csv", "news.tsv"}) {
    write_news(folder_ / file, fs::path(file).extension() == ".csv" ? ',' : '\t');
    const CommandResult trained = lathe(finetune("model", file, "run",
                                                 {"--no-header", "--label-column", "1", "--text-column", "2", "--pair-column",
                                                  "3", "--epochs", "6", "--overwrite", "--batch-size", "8"}));
    ASSERT_EQ(trained.status, 0) << trained.error;
    // evaluate and predict read the same kind of file by what run.toml says.
    const Json scores = evaluated({"--model", path("run"), "--data", path(file)});
    EXPECT_EQ(scores["samples"], 60) << "the first row is one";
    EXPECT_EQ(scores["positive_label"], "2");
    EXPECT_GT(scores["accuracy"].get<double>(), 0.9);
    const CommandResult predicted = lathe({"predict", "--model", path("run"), "--data", path(file)});
    ASSERT_EQ(predicted.status, 0) << predicted.error;
    EXPECT_EQ(std::count(predicted.out.begin(), predicted.out.end(), '\n'), 60);
    EXPECT_TRUE(predicted.out.starts_with("{\"line\":1,")) << predicted.out.substr(0, 40);
  }
  // A file with a header, for the same model.
  std::ofstream(folder_ / "named.csv") << "class,title,text\n1,a film,very good\n2,it is,very dull\n";
  const Json named = evaluated({"--model", path("run"), "--data", path("named.csv"), "--header", "--label-column", "class",
                                "--text-column", "title", "--pair-column", "text"});
  EXPECT_EQ(named["samples"], 2);
}

TEST_F(OptionsTest, WithoutAHeaderTheColumnsMustBeNumbered) {
  write_news(folder_ / "news.csv", ',');
  const auto says = [&](const Strings& more, const char* fact) {
    const std::string line = refusal(finetune("model", "news.csv", "run", more));
    EXPECT_NE(line.find(fact), std::string::npos) << line;
  };
  says({"--no-header", "--text-column", "2"},
       "line 1: no column 'label'; there are '1', '2', '3'; without a header, columns go by their numbers");
  says({"--no-header", "--label-column", "1"}, "line 1: which column is the text?");
  says({"--no-header", "--text-column", "2", "--label-column", "4"}, "no column '4'");
  says({}, "is this a record, in a file without a header?");
}

TEST_F(OptionsTest, ThePositiveLabelIsChosenWithoutChangingIds) {
  ASSERT_EQ(lathe(finetune("model", "train.tsv", "plain", {"--max-steps", "3", "--test", path("test.tsv")})).status, 0);
  const CommandResult trained = lathe(
      finetune("model", "train.tsv", "run", {"--max-steps", "3", "--test", path("test.tsv"), "--positive-label", "negative"}));
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_NE(trained.error.find("\"negative\" is the positive one"), std::string::npos) << trained.error;
  EXPECT_EQ(contents_of(folder_ / "run" / "model.safetensors"), contents_of(folder_ / "plain" / "model.safetensors"));
  EXPECT_EQ(contents_of(folder_ / "run" / "config.json"), contents_of(folder_ / "plain" / "config.json"));
  const Json test = results("run")["test"];
  EXPECT_EQ(test["positive_label"], "negative");
  EXPECT_EQ(test["classes"][0]["label"], "negative");
  EXPECT_EQ(test["f1"], test["classes"][0]["f1"]);
  EXPECT_EQ(results("plain")["test"]["f1"], test["classes"][1]["f1"]);
  // evaluate takes the run's, unless it is told another.
  EXPECT_EQ(evaluated({"--model", path("run"), "--data", path("test.tsv")}), test);
  EXPECT_EQ(evaluated({"--model", path("run"), "--data", path("test.tsv"), "--positive-label", "positive"}),
            results("plain")["test"]);
  const CommandResult report = lathe({"evaluate", "--model", path("run"), "--data", path("test.tsv")});
  EXPECT_NE(report.out.find("negative (positive)"), std::string::npos) << report.out;
}

TEST_F(OptionsTest, APositiveLabelThatIsNoneIsRefused) {
  const std::string unknown = refusal(finetune("model", "train.tsv", "run", {"--positive-label", "angry"}));
  EXPECT_NE(unknown.find("'angry'"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("'negative', 'positive'"), std::string::npos) << unknown;
  std::ofstream three(folder_ / "three.tsv");
  three << "text\tlabel\n";
  for (int i = 0; i < 60; ++i) three << "good\t" << i % 3 << '\n';
  three.close();
  EXPECT_NE(refusal(finetune("model", "three.tsv", "run", {"--positive-label", "1"})).find("there are 3 classes"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(OptionsTest, AHeadForOtherLabelsNeedsNewHead) {
  ASSERT_EQ(lathe(finetune("model", "train.tsv", "first", {"--max-steps", "3"})).status, 0);
  std::ofstream stars(folder_ / "stars.tsv");
  stars << "text\tlabel\n";
  for (int i = 0; i < 60; ++i) stars << (i % 2 == 0 ? "good\tfive\n" : "bad\tone\n");
  stars.close();
  const std::string refused = refusal(finetune("first", "stars.tsv", "second"));
  for (const char* fact : {"stars.tsv", "'five', 'one'", "'negative', 'positive'", "--new-head"})
    EXPECT_NE(refused.find(fact), std::string::npos) << refused;
  EXPECT_FALSE(fs::exists(folder_ / "second"));
  const CommandResult renewed = lathe(finetune("first", "stars.tsv", "second", {"--max-steps", "3", "--new-head"}));
  ASSERT_EQ(renewed.status, 0) << renewed.error;
  EXPECT_NE(renewed.error.find("new: classifier.weight, classifier.bias"), std::string::npos) << renewed.error;
  EXPECT_EQ(results("second")["labels"], Json({"five", "one"}));
  // The same labels: kept without the flag, made anew with it.
  const CommandResult kept = lathe(finetune("first", "train.tsv", "third", {"--max-steps", "1"}));
  EXPECT_EQ(kept.error.find("new: "), std::string::npos) << kept.error;
  const CommandResult anew = lathe(finetune("first", "train.tsv", "fourth", {"--max-steps", "1", "--new-head"}));
  EXPECT_NE(anew.error.find("new: classifier.weight"), std::string::npos) << anew.error;
}

TEST_F(OptionsTest, AModelIsFoundByNameInTheCache) {
  const fs::path repository = folder_ / "hub" / "models--org--tiny";
  fs::create_directories(repository / "snapshots");
  fs::create_directories(repository / "refs");
  fs::rename(folder_ / "model", repository / "blobs");
  fs::create_directory(repository / "snapshots" / "abc");
  for (const char* name : {"config.json", "model.safetensors", "vocab.txt"})
    fs::create_symlink(fs::path("../../blobs") / name, repository / "snapshots" / "abc" / name);
  std::ofstream(repository / "refs" / "main") << "abc";
  ::setenv("HF_HUB_CACHE", path("hub").c_str(), 1);
  const auto call = [&](const char* model, const char* output) {
    return lathe({"finetune", "--model", model, "--train", path("train.tsv"), "--output", path(output), "--max-steps", "2"});
  };
  const CommandResult trained = call("org/tiny", "run");
  EXPECT_EQ(trained.status, 0) << trained.error;
  const CommandResult absent = call("org/other", "other");
  ::unsetenv("HF_HUB_CACHE");
  EXPECT_EQ(absent.status, 2);
  EXPECT_NE(absent.error.find("Lathe downloads nothing: `hf download org/other`"), std::string::npos) << absent.error;
  // What was found is recorded by its folder, and copies of its files are files.
  EXPECT_NE(contents_of(folder_ / "run" / "run.toml").find("model = \"" + (repository / "snapshots" / "abc").string() + "\""),
            std::string::npos);
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder_ / "run" / "vocab.txt")));
}

TEST_F(OptionsTest, RecomputingIsRecordedAndNeedsLess) {
  const CommandResult kept = lathe(finetune("model", "train.tsv", "kept", {"--max-steps", "2"}));
  ASSERT_EQ(kept.status, 0) << kept.error;
  EXPECT_NE(kept.error.find("memory: "), std::string::npos) << kept.error;
  const CommandResult again = lathe(finetune("model", "train.tsv", "again", {"--max-steps", "2", "--recompute", "blocks"}));
  ASSERT_EQ(again.status, 0) << again.error;
  EXPECT_LT(results("again")["train"]["estimated_memory_bytes"].get<std::int64_t>(),
            results("kept")["train"]["estimated_memory_bytes"].get<std::int64_t>());
  EXPECT_TRUE(contents_of(folder_ / "again" / "model.safetensors") == contents_of(folder_ / "kept" / "model.safetensors"));
  EXPECT_NE(contents_of(folder_ / "again" / "run.toml").find("recompute = \"blocks\""), std::string::npos);
  EXPECT_NE(refusal(finetune("model", "train.tsv", "other", {"--recompute", "all"})).find("--recompute"), std::string::npos);
}

TEST_F(OptionsTest, AProcessAloneKeepsAllOfTheOptimizersState) {
  const CommandResult plain = lathe(finetune("model", "train.tsv", "plain", {"--max-steps", "2"}));
  ASSERT_EQ(plain.status, 0) << plain.error;
  const CommandResult sharded =
      lathe(finetune("model", "train.tsv", "sharded", {"--max-steps", "2", "--shard-optimizer", "--gradient-bucket-mib", "1"}));
  ASSERT_EQ(sharded.status, 0) << sharded.error;
  EXPECT_TRUE(contents_of(folder_ / "sharded" / "model.safetensors") == contents_of(folder_ / "plain" / "model.safetensors"));
  EXPECT_NE(contents_of(folder_ / "plain" / "run.toml").find("shard-optimizer = false"), std::string::npos);
  EXPECT_NE(contents_of(folder_ / "sharded" / "run.toml").find("shard-optimizer = true"), std::string::npos);
  EXPECT_NE(contents_of(folder_ / "plain" / "run.toml").find("gradient-bucket-mib = 25"), std::string::npos);
  EXPECT_NE(contents_of(folder_ / "sharded" / "run.toml").find("gradient-bucket-mib = 1\n"), std::string::npos);
}

TEST_F(OptionsTest, ADryRunTellsMuchAndWritesNothing) {
  const std::vector<fs::path> before = everything();
  const CommandResult result =
      lathe(finetune("model", "train.tsv", "run", {"--dry-run", "--dev", "0.2", "--epochs", "2", "--batch-size", "8"}));
  ASSERT_EQ(result.status, 0) << result.error;
  for (const char* name : {"stdin", "stdout", "stderr"}) fs::remove(folder_ / name);
  std::vector<fs::path> after = everything();
  std::erase_if(
      after, [&](const fs::path& p) { return p.filename() == "stdin" || p.filename() == "stdout" || p.filename() == "stderr"; });
  EXPECT_EQ(before, after);
  EXPECT_TRUE(std::regex_search(result.out, std::regex(R"(parameters  \d{4,}\n)"))) << result.out;
  EXPECT_TRUE(std::regex_search(result.out, std::regex(R"(memory      \d+\.\d\d GB at most, measured: )"))) << result.out;
  EXPECT_TRUE(std::regex_search(result.out, std::regex(R"(steps       24 of 8 texts, 12 an epoch, 3 of warm-up\n)")))
      << result.out;
  EXPECT_TRUE(std::regex_search(result.out,
                                std::regex(R"(time        about \d+ s: .* real steps? \(\d+ tokens/s\), and .* an evaluation)")))
      << result.out;
  // What a run would refuse, it refuses.
  EXPECT_NE(refusal(finetune("model", "train.tsv", "model", {"--dry-run"})).find("--output"), std::string::npos);
  EXPECT_NE(refusal(finetune("model", "absent.tsv", "run", {"--dry-run"})).find("absent.tsv"), std::string::npos);
}

TEST_F(OptionsTest, NumbersThatAreNoneAreRefused) {
  const auto says = [&](const Strings& more, const std::string& line) {
    EXPECT_EQ(refusal(finetune("model", "train.tsv", "run", more)), "lathe: " + line + "\n");
  };
  says({"--weight-decay", "nan"}, "--weight-decay: found nan, expected a finite number of 0 or more");
  says({"--epochs", "inf"}, "--epochs: found inf, expected a finite number above 0");
  says({"--epochs", "0"}, "--epochs: found 0, expected a finite number above 0");
  says({"--lr", "1e-5x"}, "--lr: found 1e-5x, expected a finite number of 0 or more");
  says({"--seed", "-1"}, "--seed: Value -1 not in range 0 to 4294967295");
  says({"--max-steps", "0"}, "--max-steps: Value 0 not in range 1 to 1000000000");
}

TEST_F(OptionsTest, AShareIsAShareWhateverFilesThereAre) {
  std::ofstream(folder_ / "0.2") << "not data";
  const std::string call = "cd '" + folder_.path().string() + "' && " + LATHE_COMMAND +
                           " finetune --model model --train train.tsv --dev 0.2 --output run --max-steps 2 >out 2>&1";
  EXPECT_EQ(std::system(call.c_str()), 0) << contents_of(folder_ / "out");
  EXPECT_EQ(results("run")["dev"]["samples"], 24);
}

}  // namespace
}  // namespace lathe
