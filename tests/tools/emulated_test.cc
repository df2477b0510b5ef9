// The command on the emulated GPU: it does what it does on the CPU, and says everywhere that it was emulated.
#include <gtest/gtest.h>

#include <fstream>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

class EmulatedTest : public testing::Test {
 protected:
  EmulatedTest() {
    write_tiny_model(folder_ / "model", 2, 64, 2);
    write_tiny_data(folder_ / "train.tsv", 60, 1);
    write_tiny_data(folder_ / "test.tsv", 24, 2);
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  CommandResult lathe(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  /// A model that has learned, on the CPU, where to look: what fresh weights make of other words than the first is little more than a bf16
  /// rounds off.
  void publish(const char* name) const {
    write_tiny_data(folder_ / "before.tsv", 240, 3);
    const CommandResult result = lathe({"finetune", "--model", path("model"), "--train", path("before.tsv"), "--output",
                                        path(name), "--epochs", "8", "--lr", "2e-3", "--batch-size", "16", "--device", "cpu"});
    ASSERT_EQ(result.status, 0) << result.error;
  }
  CommandResult finetune(const char* model, const char* output, const Strings& more) const {
    Strings arguments = {"finetune",     "--model", path(model), "--train", path("train.tsv"), "--output", path(output),
                         "--batch-size", "12",      "--lr",      "1e-3",    "--warmup",        "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return lathe(arguments);
  }
  std::vector<Json> predictions(const char* model, const Strings& more) const {
    Strings arguments = {"predict", "--model", path(model), "--data", path("test.tsv")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    std::istringstream lines(result.out);
    std::vector<Json> found;
    for (std::string line; std::getline(lines, line);) found.push_back(Json::parse(line));
    return found;
  }
  Json results(const char* run) const { return Json::parse(contents_of(folder_ / run / "results.json")); }

  TemporaryFolder folder_;
};

/// Expects the same labels, and scores that differ by at most `tolerance`.
void expect_same(const std::vector<Json>& actual, const std::vector<Json>& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i]["label"], expected[i]["label"]) << "text " << i;
    for (const auto& [label, score] : expected[i]["scores"].items())
      EXPECT_NEAR(actual[i]["scores"][label].get<double>(), score.get<double>(), tolerance) << "text " << i;
  }
}

TEST_F(EmulatedTest, TheSameCommandGivesTheSamePredictions) {
  const Strings length = {"--max-steps", "8", "--dev", "0.2"};
  const auto with = [&](Strings more) {
    more.insert(more.end(), length.begin(), length.end());
    return more;
  };
  publish("published");
  const CommandResult on_cpu = finetune("published", "cpu", with({"--device", "cpu"}));
  ASSERT_EQ(on_cpu.status, 0) << on_cpu.error;
  const CommandResult full = finetune("published", "fp32", with({"--device", "emulated", "--precision", "fp32"}));
  ASSERT_EQ(full.status, 0) << full.error;
  const CommandResult mixed = finetune("published", "bf16", with({"--device", "emulated"}));
  ASSERT_EQ(mixed.status, 0) << mixed.error;

  const std::vector<Json> expected = predictions("cpu", {"--device", "cpu"});
  ASSERT_EQ(expected.size(), 24U);
  expect_same(predictions("fp32", {"--device", "emulated", "--precision", "fp32"}), expected, 1e-4);
  expect_same(predictions("bf16", {"--device", "emulated"}), expected, 0.05);
  // A model that was trained on one is at home on the other.
  expect_same(predictions("bf16", {"--device", "cpu"}), expected, 0.05);
  EXPECT_NEAR(results("fp32")["dev"]["loss"].get<double>(), results("cpu")["dev"]["loss"].get<double>(), 1e-4);
  EXPECT_EQ(results("fp32")["dev"]["accuracy"], results("cpu")["dev"]["accuracy"]);

  // Everywhere it is said what it was.
  EXPECT_NE(
      mixed.error.find("device: emulated, emulated sm_80 on the CPU, for tests: slow (asked for), products by emulation, bf16 "
                       "(with fp32 master weights); data by "),
      std::string::npos)
      << mixed.error;
  EXPECT_NE(mixed.error.find(" GB of the GPU's memory and "), std::string::npos) << mixed.error;
  const std::string run = contents_of(folder_ / "bf16" / "run.toml");
  for (const char* line :
       {"device = \"emulated\"", "precision = \"bf16\"", "gpu = \"emulated sm_80 on the CPU, for tests: slow\""})
    EXPECT_NE(run.find(std::string("\n") + line + "\n"), std::string::npos) << line << " in\n" << run;
  const Json train = results("bf16")["train"];
  EXPECT_NE(train["device"].get<std::string>().find("emulated"), std::string::npos);
  EXPECT_EQ(train["precision"], "bf16");
  EXPECT_GT(train["peak_gpu_memory_bytes"].get<std::int64_t>(), 1 << 20);
  EXPECT_NE(contents_of(folder_ / "bf16" / "report.html").find("emulated"), std::string::npos);
  const CommandResult evaluated = lathe(
      {"evaluate", "--model", path("fp32"), "--data", path("test.tsv"), "--device", "emulated", "--precision", "fp32", "--json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_TRUE(evaluated.error.starts_with("device: emulated, ")) << evaluated.error;
  EXPECT_EQ(Json::parse(evaluated.out)["device"], "emulated sm_80 on the CPU, for tests: slow");
}

TEST_F(EmulatedTest, PreTrainingHasTheLossesOfTheCpu) {
  write_tiny_text(folder_ / "text.txt", 60, 1);
  write_tiny_text(folder_ / "dev.txt", 10, 2);
  const auto losses = [&](const char* output, const Strings& more) {
    Strings arguments = {"pretrain",
                         "--task",
                         "mlm",
                         "--output",
                         path(output),
                         "--tokenizer",
                         path("model"),
                         "--layers",
                         "2",
                         "--hidden-size",
                         "64",
                         "--heads",
                         "2",
                         "--train",
                         path("text.txt"),
                         "--dev",
                         path("dev.txt"),
                         "--batch-tokens",
                         "128",
                         "--max-length",
                         "32",
                         "--max-steps",
                         "20",
                         "--log-steps",
                         "1",
                         "--lr",
                         "2e-3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    std::istringstream lines(contents_of(folder_ / output / "metrics.jsonl"));
    std::vector<double> found;
    for (std::string line; std::getline(lines, line);) {
      const Json json = Json::parse(line);
      found.push_back(json.contains("loss") ? json["loss"].get<double>() : json["metrics"]["loss"].get<double>());
    }
    return found;
  };
  const std::vector<double> expected = losses("cpu", {"--device", "cpu"});
  const std::vector<double> full = losses("fp32", {"--device", "emulated", "--precision", "fp32"});
  const std::vector<double> mixed = losses("bf16", {"--device", "emulated"});
  ASSERT_GE(expected.size(), 21U) << "twenty steps and an evaluation";
  ASSERT_EQ(full.size(), expected.size());
  ASSERT_EQ(mixed.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(full[i], expected[i], 1e-4) << "line " << i + 1;
    EXPECT_NEAR(mixed[i], expected[i], 0.02 * expected[i]) << "line " << i + 1;
  }
  EXPECT_EQ(results("bf16")["train"]["precision"], "bf16");
}

TEST_F(EmulatedTest, AReplayIsEmulatedTooAndGivesTheSameBytes) {
  ASSERT_EQ(finetune("model", "first", {"--device", "emulated", "--max-steps", "3"}).status, 0);
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(replay.error.find("warning"), std::string::npos) << replay.error;
  EXPECT_EQ(contents_of(folder_ / "second" / "model.safetensors"), contents_of(folder_ / "first" / "model.safetensors"));
}

// Times mean nothing here, and the emulation has one algorithm: what is shown is the way of the choices.
TEST_F(EmulatedTest, TunedProductsAreKeptWithTheRunAndItsReplayTakesThem) {
  const CommandResult first = finetune("model", "first", {"--device", "emulated", "--max-steps", "2", "--tune"});
  ASSERT_EQ(first.status, 0) << first.error;
  const std::string table = contents_of(folder_ / "first" / "products.jsonl");
  EXPECT_NE(table.find("\"algorithm\""), std::string::npos) << table;
  const std::string run = contents_of(folder_ / "first" / "run.toml");
  EXPECT_NE(run.find("\nproduct-table = \"" + path("first/products.jsonl") + "\"\n"), std::string::npos) << run;
  const CommandResult replay = lathe({"finetune", "--config", path("first/run.toml"), "--output", path("second")});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(contents_of(folder_ / "second" / "model.safetensors"), contents_of(folder_ / "first" / "model.safetensors"));

  std::ofstream(folder_ / "other.jsonl") << "{\"matrix products\": \"another library\"}\n";
  const CommandResult other = finetune("model", "third", {"--device", "emulated", "--product-table", path("other.jsonl")});
  EXPECT_EQ(other.status, 2);
  EXPECT_NE(other.error.find("other.jsonl: "), std::string::npos) << other.error;
  EXPECT_NE(other.error.find("another library"), std::string::npos) << other.error;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "third"));
}

TEST_F(EmulatedTest, ADryRunTellsTheGpusMemoryAndTheHosts) {
  const CommandResult result = finetune("model", "run", {"--device", "emulated", "--dry-run", "--max-steps", "4"});
  ASSERT_EQ(result.status, 0) << result.error;
  EXPECT_NE(result.out.find(" GB of the GPU's at most, measured: "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find(" GB of the host's, data and program"), std::string::npos) << result.out;
}

TEST_F(EmulatedTest, TheVersionSaysIt) {
  EXPECT_NE(lathe({"--version"}).out.find("\nbackends: cpu, cuda emulated on the cpu\n"), std::string::npos);
}

}  // namespace
}  // namespace lathe
