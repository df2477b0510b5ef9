// The command from outside: what it prints, writes and returns.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class CommandTest : public testing::Test {
 protected:
  CommandTest() {
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 200, 1);
    write_tiny_data(folder_ / "test.tsv", 60, 2);
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  CommandResult lathe(const std::vector<std::string>& arguments, const std::string& input = "",
                      const std::function<void(pid_t)>& during = {}) const {
    return run_lathe(folder_.path(), arguments, input, during);
  }
  std::vector<std::string> finetune(const char* output, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"finetune", "--model",    path("model"), "--train", path("train.tsv"),
                                          "--output", path(output), "--lr",        "2e-3",    "--batch-size",
                                          "16"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json results(const char* output) const { return Json::parse(contents_of(folder_ / output / "results.json")); }

  TemporaryFolder folder_;
};

TEST_F(CommandTest, FinetunesEvaluatesAndPredicts) {
  const CommandResult trained = lathe(finetune("run", {"--dev", "0.1", "--test", path("test.tsv"), "--epochs", "4"}));
  ASSERT_EQ(trained.status, 0) << trained.error;
  EXPECT_NE(trained.out.find("test: 60 samples"), std::string::npos) << trained.out;
  for (const char* name : {"config.json", "model.safetensors", "vocab.txt", "run.toml", "results.json", "metrics.jsonl",
                           "curves.svg", "report.html"})
    EXPECT_TRUE(fs::exists(folder_ / "run" / name)) << name;
  const Json json = results("run");
  EXPECT_EQ(json["dev"]["samples"], 20);
  EXPECT_GT(json["test"]["accuracy"].get<double>(), 0.9);
  const Json config = Json::parse(contents_of(folder_ / "run" / "config.json"));
  EXPECT_EQ(config["architectures"][0], "BertForSequenceClassification");
  EXPECT_EQ(config["id2label"]["1"], "positive");

  // evaluate gives the run's own figures, to the last digit.
  const CommandResult evaluated = lathe({"evaluate", "--model", path("run"), "--data", path("test.tsv"), "--json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_EQ(Json::parse(evaluated.out), json["test"]);

  const CommandResult predicted = lathe({"predict", "--model", path("run")}, "a good film\nit is very dull .\n\nwarm");
  ASSERT_EQ(predicted.status, 0) << predicted.error;
  std::istringstream lines(predicted.out);
  std::vector<Json> predictions;
  for (std::string line; std::getline(lines, line);) predictions.push_back(Json::parse(line));
  ASSERT_EQ(predictions.size(), 4U);
  EXPECT_EQ(predictions[0]["label"], "positive");
  EXPECT_EQ(predictions[1]["label"], "negative");
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(predictions[i]["line"], i + 1);
    EXPECT_NEAR(predictions[i]["scores"]["positive"].get<double>() + predictions[i]["scores"]["negative"].get<double>(), 1.0,
                1e-6);
    EXPECT_EQ(predictions[i]["score"], predictions[i]["scores"][predictions[i]["label"].get<std::string>()]);
  }
  // The same from a file with a header: the first record is line 2, and it goes to a file.
  const CommandResult from_file =
      lathe({"predict", "--model", path("run"), "--data", path("test.tsv"), "--output", path("predictions.jsonl")});
  ASSERT_EQ(from_file.status, 0) << from_file.error;
  EXPECT_EQ(from_file.out, "");
  std::istringstream file_lines(contents_of(folder_ / "predictions.jsonl"));
  std::string first;
  std::getline(file_lines, first);
  EXPECT_EQ(Json::parse(first)["line"], 2);
}

TEST_F(CommandTest, TheSameCallGivesTheSameBytes) {
  ASSERT_EQ(lathe(finetune("a", {"--max-steps", "10"})).status, 0);
  ASSERT_EQ(lathe(finetune("b", {"--max-steps", "10"})).status, 0);
  EXPECT_EQ(contents_of(folder_ / "a" / "model.safetensors"), contents_of(folder_ / "b" / "model.safetensors"));
}

TEST_F(CommandTest, BothInstructionSetsAgree) {
  for (const char* set : {"avx2", "auto"})
    ASSERT_EQ(lathe(finetune(set, {"--max-steps", "5", "--log-steps", "1", "--instruction-set", set})).status, 0);
  std::istringstream a(contents_of(folder_ / "avx2" / "metrics.jsonl"));
  std::istringstream b(contents_of(folder_ / "auto" / "metrics.jsonl"));
  std::string first;
  std::string second;
  int compared = 0;
  while (std::getline(a, first) && std::getline(b, second)) {
    EXPECT_NEAR(Json::parse(first)["loss"].get<double>(), Json::parse(second)["loss"].get<double>(), 1e-3);
    ++compared;
  }
  EXPECT_EQ(compared, 5);
}

TEST_F(CommandTest, AProfileIsATraceBesideTheModel) {
  const CommandResult refused = lathe(finetune("run", {"--profile-steps", "2"}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.error.find("--profile"), std::string::npos) << refused.error;
  ASSERT_EQ(lathe(finetune("run", {"--max-steps", "5", "--profile", "--profile-steps", "2"})).status, 0);
  const Json trace = Json::parse(contents_of(folder_ / "run" / "trace.json"));
  std::vector<std::string> steps;
  for (const Json& event : trace["traceEvents"])
    if (event.value("cat", "") == "step") steps.push_back(event["name"]);
  EXPECT_EQ(steps, std::vector<std::string>({"step 2", "step 3"}));
  ASSERT_EQ(lathe(finetune("run", {"--max-steps", "5", "--overwrite"})).status, 0);
  EXPECT_FALSE(fs::exists(folder_ / "run" / "trace.json")) << "of another run";
}

TEST_F(CommandTest, MetricsHaveALineAStepAndAnEvaluation) {
  ASSERT_EQ(lathe(finetune("run", {"--dev", path("test.tsv"), "--epochs", "1", "--log-steps", "4"})).status, 0);
  std::istringstream lines(contents_of(folder_ / "run" / "metrics.jsonl"));
  std::vector<Json> steps;
  std::vector<Json> evaluations;
  for (std::string line; std::getline(lines, line);)
    (Json::parse(line).contains("split") ? evaluations : steps).push_back(Json::parse(line));
  ASSERT_EQ(steps.size(), 5U);
  EXPECT_EQ(steps[0]["step"], 1);
  EXPECT_EQ(steps[1]["step"], 4);
  EXPECT_EQ(steps[4]["step"], 13);
  for (const Json& step : steps) {
    for (const char* key : {"step", "epoch", "loss", "lr", "grad_norm", "tokens", "tokens_per_second"})
      EXPECT_TRUE(step.contains(key)) << key;
    for (const char* part : {"data", "compute", "communication", "optimizer", "other"})
      EXPECT_GE(step["seconds"][part].get<double>(), 0.0) << part;
    EXPECT_FALSE(step.contains("imbalance")) << "alone";
  }
  const Json train = results("run")["train"];
  double parts = 0.0;
  for (const auto& [part, seconds] : train["seconds_by_part"].items()) parts += seconds.get<double>();
  EXPECT_NEAR(parts, train["seconds"].get<double>(), 1e-6) << "all of the time went to something";
  ASSERT_EQ(evaluations.size(), 1U);
  EXPECT_EQ(evaluations[0]["split"], "dev");
  EXPECT_EQ(evaluations[0]["metrics"], results("run")["dev"]);
}

TEST_F(CommandTest, AnInterruptEndsTheStepAndKeepsWhatWasSaved) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string name = signal == SIGINT ? "int" : "term";
    const auto interrupt_after_first_save = [&](pid_t child) {
      const auto saved = folder_ / name / "model.safetensors";
      for (int i = 0; i < 3000 && !fs::exists(saved); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ::kill(child, signal);
    };
    const CommandResult result = lathe(finetune(name.c_str(), {"--epochs", "100000"}), "", interrupt_after_first_save);
    EXPECT_EQ(result.status, 128 + signal) << result.error;
    EXPECT_EQ(results(name.c_str())["interrupted"], true);
    EXPECT_TRUE(fs::exists(folder_ / name / "curves.svg"));
    EXPECT_NE(contents_of(folder_ / name / "report.html").find("Interrupted after step"), std::string::npos);
    const CommandResult evaluated = lathe({"evaluate", "--model", path(name.c_str()), "--data", path("test.tsv"), "--json"});
    EXPECT_EQ(evaluated.status, 0) << evaluated.error;
  }
}

TEST_F(CommandTest, AnInterruptDuringTheTestEndsItAndKeepsTheModel) {
  write_tiny_data(folder_ / "long.tsv", 100000, 3);
  const auto interrupt_after_save = [&](pid_t child) {
    const auto saved = folder_ / "run" / "model.safetensors";
    for (int i = 0; i < 60000 && !fs::exists(saved); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ::kill(child, SIGINT);
  };
  // One text at a time: seconds of testing, of which the signal leaves next to nothing.
  const CommandResult result = lathe({"finetune", "--model", path("model"), "--train", path("train.tsv"), "--output", path("run"),
                                      "--max-steps", "1", "--batch-size", "1", "--test", path("long.tsv")},
                                     "", interrupt_after_save);
  EXPECT_EQ(result.status, 130) << result.error;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(results("run")["interrupted"], true);
  EXPECT_TRUE(results("run")["test"].is_null());
}

TEST_F(CommandTest, TheReportPageShowsTheWrongRowsOfTheModelThatWasKept) {
  // A label that the text contradicts is wrong with certainty; it is line 4 of the file.
  std::ofstream(folder_ / "dev.tsv") << "text\tlabel\na good film\tpositive\na bad film\tnegative\nit is <i>dull</i>, very "
                                        "dull\tpositive\nwarm\tpositive\ncold\tnegative\n";
  ASSERT_EQ(lathe(finetune("run", {"--dev", path("dev.tsv"), "--epochs", "6"})).status, 0);
  const std::string page = contents_of(folder_ / "run" / "report.html");
  const std::size_t wrong = page.find("Most confidently wrong");
  const Json json = results("run");
  EXPECT_EQ(json["dev"]["confusion"], Json::parse("[[2, 0], [1, 2]]"));
  EXPECT_NE(page.find("<th scope=\"row\" class=\"number\">4</th><td class=\"text\"><bdi>it is &lt;i&gt;dull&lt;/i&gt;, very dull",
                      wrong),
            std::string::npos)
      << page.substr(wrong);
  // The probability is what predict says of the saved model.
  const CommandResult predicted = lathe({"predict", "--model", path("run")}, "it is <i>dull</i>, very dull");
  char score[16];
  std::snprintf(score, sizeof score, ">%.4f<", Json::parse(predicted.out)["score"].get<double>());
  EXPECT_NE(page.find(score, wrong), std::string::npos) << score;
  EXPECT_NE(page.find(path("dev.tsv")), std::string::npos) << "a setting";

  // A share of the training rows keeps the lines of their file; the only wrong label is one of them.
  std::ofstream rows(folder_ / "mixed.tsv");
  rows << "text\tlabel\n";
  for (int i = 0; i < 200; ++i) rows << (i % 2 == 0 ? "good film\tpositive\n" : "bad film\tnegative\n");
  for (int i = 0; i < 8; ++i) rows << "cold cold cold\tnegative\nvery warm\tpositive\n";
  for (int i = 0; i < 8; ++i) rows << "bad bad\tpositive\n";
  rows.close();
  std::vector<std::string> call = {"finetune", "--model",  path("model"), "--train",      path("mixed.tsv"),
                                   "--dev",    "0.5",      "--output",    path("share"),  "--lr",
                                   "2e-3",     "--epochs", "6",           "--batch-size", "16"};
  ASSERT_EQ(lathe(call).status, 0);
  const std::string shares = contents_of(folder_ / "share" / "report.html");
  std::size_t found = 0;
  for (int line = 218; line < 226; ++line) {
    const std::string cells =
        R"(<th scope="row" class="number">)" + std::to_string(line) + R"(</th><td class="text"><bdi>bad bad</bdi>)";
    if (shares.find(cells) != std::string::npos) ++found;
  }
  EXPECT_GT(found, 0U) << shares.substr(shares.find("Most confidently wrong"));
}

TEST_F(CommandTest, WithoutADevSplitTheReportPageShowsTheTestSplitOrSaysThatNothingWasEvaluated) {
  ASSERT_EQ(lathe(finetune("tested", {"--test", path("test.tsv"), "--max-steps", "2"})).status, 0);
  EXPECT_NE(contents_of(folder_ / "tested" / "report.html").find("test rows that the kept model gets wrong"), std::string::npos);
  ASSERT_EQ(lathe(finetune("bare", {"--max-steps", "2"})).status, 0);
  EXPECT_NE(contents_of(folder_ / "bare" / "report.html").find("Nothing was evaluated"), std::string::npos);
  EXPECT_EQ(contents_of(folder_ / "bare" / "curves.svg"), contents_of(folder_ / "tested" / "curves.svg"));
}

TEST_F(CommandTest, AClosedPipeEndsQuietly) {
  ASSERT_EQ(lathe(finetune("run", {"--max-steps", "2"})).status, 0);
  const std::string call = std::string(LATHE_COMMAND) + " predict --model " + path("run") + " --data " + path("train.tsv") +
                           " 2>" + path("errors") + "; test $? -eq 0 || echo failed >>" + path("errors");
  ASSERT_EQ(std::system(("{ " + call + "; } | head -n 1 >" + path("head")).c_str()), 0);
  EXPECT_EQ(Json::parse(contents_of(folder_ / "head"))["line"], 2);
  EXPECT_EQ(contents_of(folder_ / "errors"), "");
}

TEST_F(CommandTest, AnEmptyStandardInputGivesAnEmptyOutput) {
  ASSERT_EQ(lathe(finetune("run", {"--max-steps", "2"})).status, 0);
  const auto expect_nothing = [&](const std::string& input, const std::vector<std::string>& more) {
    std::vector<std::string> call = {"predict", "--model", path("run")};
    call.insert(call.end(), more.begin(), more.end());
    const CommandResult result = lathe(call, input);
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.out + result.error, "");
  };
  expect_nothing("", {});
  expect_nothing("", {"--format", "csv"});
  expect_nothing("text,label\n", {"--format", "csv"});
  expect_nothing("\n\n", {"--format", "jsonl"});
  // A file that is named should hold something.
  std::ofstream(folder_ / "empty.txt") << "";
  EXPECT_EQ(lathe({"predict", "--model", path("run"), "--data", path("empty.txt")}).status, 2);
}

TEST_F(CommandTest, PredictWritesOverNothingThatItReadsOrCannotReplace) {
  ASSERT_EQ(lathe(finetune("run", {"--max-steps", "2"})).status, 0);
  const auto expect_kept = [&](const std::string& data, const std::string& output) {
    const std::string before = contents_of(folder_ / output);
    const CommandResult result =
        lathe({"predict", "--model", path("run"), "--data", path(data.c_str()), "--output", path(output.c_str())});
    EXPECT_EQ(result.status, 2) << result.error;
    EXPECT_NE(result.error, "");
    EXPECT_EQ(contents_of(folder_ / output), before);
  };
  expect_kept("test.tsv", "test.tsv");
  fs::create_symlink(folder_ / "test.tsv", folder_ / "link.tsv");
  expect_kept("test.tsv", "link.tsv");
  expect_kept("test.tsv", "run/model.safetensors");
  std::ofstream(folder_ / "earlier.jsonl") << "earlier";
  std::ofstream(folder_ / "body.tsv") << "body\tlabel\nx\ty\n";
  expect_kept("body.tsv", "earlier.jsonl");
}

TEST_F(CommandTest, StreamsThatAreClosedOrFull) {
  const auto status_of = [&](const std::vector<std::string>& arguments, const std::string& redirections) {
    std::string call = LATHE_COMMAND;
    for (const std::string& argument : arguments) call += " " + argument;
    const int status = std::system((call + " " + redirections).c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  EXPECT_EQ(status_of(finetune("run", {"--max-steps", "2"}), "<&- >&- 2>&-"), 0);
  EXPECT_EQ(results("run")["interrupted"], false);
  const std::vector<std::string> evaluate = {"evaluate", "--model", path("run"), "--data", path("test.tsv")};
  EXPECT_EQ(status_of(evaluate, "2>&- >" + path("report")), 0);
  EXPECT_NE(contents_of(folder_ / "report").find("accuracy"), std::string::npos);
  EXPECT_EQ(status_of(evaluate, ">/dev/full 2>" + path("errors")), 2);
  EXPECT_NE(contents_of(folder_ / "errors").find("lathe: standard output: cannot be written: No space left"), std::string::npos);
  EXPECT_EQ(status_of(evaluate, ">&- 2>" + path("errors")), 2);
  EXPECT_EQ(status_of({"--help"}, ">/dev/full 2>" + path("errors")), 2);
}

TEST_F(CommandTest, PairsAreTrainedAndPredicted) {
  std::ofstream file(folder_ / "pairs.csv");
  file << "first,second,label\n";
  for (int i = 0; i < 40; ++i)
    file << (i % 2 == 0 ? "a good film,it is great,same\n" : "a good film,\"it is bad, very dull\",other\n");
  file.close();
  const CommandResult trained =
      lathe({"finetune", "--model", path("model"), "--train", path("pairs.csv"), "--output", path("run"), "--text-column",
             "first", "--pair-column", "second", "--epochs", "1", "--batch-size", "8"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  // The columns come from run.toml.
  const CommandResult evaluated = lathe({"evaluate", "--model", path("run"), "--data", path("pairs.csv"), "--json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_EQ(Json::parse(evaluated.out)["samples"], 40);
}

TEST_F(CommandTest, ManyClassesGetMacroAndWeightedScores) {
  std::ofstream file(folder_ / "three.jsonl");
  for (int i = 0; i < 60; ++i)
    file << R"({"text": ")" << std::vector<std::string>{"good", "bad", "film"}[static_cast<std::size_t>(i % 3)]
         << R"(", "label": )" << i % 3 << "}\n";
  file.close();
  const CommandResult trained = lathe({"finetune", "--model", path("model"), "--train", path("three.jsonl"), "--dev", "0.2",
                                       "--output", path("run"), "--epochs", "1", "--batch-size", "8"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Json dev = results("run")["dev"];
  EXPECT_EQ(dev["classes"].size(), 3U);
  EXPECT_EQ(dev["classes"][2]["label"], "2");
  EXPECT_FALSE(dev.contains("precision"));
  EXPECT_TRUE(dev["macro"].contains("f1"));
}

TEST_F(CommandTest, HelpAndVersionSucceedOnStandardOutput) {
  for (const std::vector<std::string>& call : {std::vector<std::string>{"--help"},
                                               {"finetune", "--help"},
                                               {"evaluate", "--help"},
                                               {"predict", "--help"},
                                               {"--version"}}) {
    const CommandResult result = lathe(call);
    EXPECT_EQ(result.status, 0);
    EXPECT_NE(result.out, "");
    EXPECT_EQ(result.error, "");
  }
}

}  // namespace
}  // namespace lathe
