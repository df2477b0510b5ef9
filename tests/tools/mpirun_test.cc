// The command as several ranks: it comes to what one process does, prints and writes once, and where ranks don't fit together, all end before
// anything is written and one line says why. On the emulated GPU in a build that has it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/processors.h"
#include "tests/tools/mpirun.h"
#include "tests/tools/refusal.h"
#include "tests/training/tiny_text.h"

namespace lathe {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

bool emulated() { return cuda_backend() == CudaBackend::emulated; }

Strings operator+(Strings a, const Strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class MpirunTest : public RefusalTest {
 protected:
  MpirunTest() {
    write_tiny_data(folder_ / "dev.tsv", emulated() ? 12 : 30, 2);
    write_tiny_text(folder_ / "text.txt", 40, 1);
    write_tiny_text(folder_ / "dev.txt", 8, 2);
  }
  static Strings on_device() {
    return emulated() ? Strings{"--device", "emulated", "--precision", "fp32"} : Strings{"--device", "cpu"};
  }
  Strings finetuning(const std::string& output) const {
    return Strings{"finetune",
                   "--model",
                   path("model"),
                   "--train",
                   path("train.tsv"),
                   "--dev",
                   path("dev.tsv"),
                   "--test",
                   path("dev.tsv"),
                   "--output",
                   path(output),
                   "--batch-size",
                   "12",
                   "--max-steps",
                   emulated() ? "2" : "15",
                   "--lr",
                   "1e-3",
                   "--log-steps",
                   "2",
                   "--threads",
                   "1"} +
           on_device();
  }
  Strings pretraining(const std::string& output) const {
    return Strings{"pretrain",
                   "--task",
                   "mlm",
                   "--model",
                   path("model"),
                   "--train",
                   path("text.txt"),
                   "--dev",
                   path("dev.txt"),
                   "--output",
                   path(output),
                   "--batch-tokens",
                   "128",
                   "--max-length",
                   "32",
                   "--max-steps",
                   emulated() ? "2" : "10",
                   "--lr",
                   "1e-3",
                   "--log-steps",
                   "2",
                   "--threads",
                   "1"} +
           on_device();
  }
  CommandResult alone(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  CommandResult together(const std::vector<Strings>& ranks) const { return run_ranks(folder_.path(), ranks); }

  /// A refusal by all ranks: rank 0 says one line, beside its progress, and nothing is written.
  std::string expect_refused_together(const std::vector<Strings>& ranks, const Strings& facts) const {
    const CommandResult result = together(ranks);
    EXPECT_EQ(result.status, 2) << result.error;
    EXPECT_EQ(result.out, "");
    const auto begin = result.error.find("lathe: ");
    EXPECT_NE(begin, std::string::npos) << result.error;
    if (begin == std::string::npos) return {};
    std::string line = result.error.substr(begin);
    EXPECT_EQ(std::ranges::count(line, '\n'), 1) << "the last line, and the only one: " << line;
    EXPECT_LT(line.size(), 300U) << line;
    for (const std::string& fact : facts)
      EXPECT_NE(line.find(fact), std::string::npos) << "\"" << fact << "\" is missing in: " << line;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run")) << line;
    return line;
  }
  Json results(const std::string& run) const { return Json::parse(contents_of(folder_ / run / "results.json")); }
};

Strings lines_of(const std::string& text) {
  std::istringstream stream(text);
  Strings lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// What a message says but for numbers, which speak of time and memory too.
std::string without_numbers(const std::string& text) { return std::regex_replace(text, std::regex("[0-9][-+.0-9e]*"), "N"); }

/// The same tensors, by |a - b| <= tolerance * max(|b|, 1e-4 * |all|).
void expect_same_model(const std::filesystem::path& together, const std::filesystem::path& alone, double tolerance) {
  const SafetensorsFile a = SafetensorsFile::open(together / "model.safetensors");
  const SafetensorsFile b = SafetensorsFile::open(alone / "model.safetensors");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  struct Norms {
    std::string name;
    double distance = 0.0, length = 0.0;
  };
  std::vector<Norms> norms;
  double all = 0.0;
  for (std::size_t i = 0; i < b.tensors().size(); ++i) {
    const TensorEntry& entry = b.tensors()[i];
    ASSERT_EQ(a.tensors()[i].name, entry.name);
    ASSERT_EQ(a.tensors()[i].shape, entry.shape);
    std::vector<float> x(static_cast<std::size_t>(entry.elements()));
    std::vector<float> y(x.size());
    a.read_f32(a.tensors()[i], x);
    b.read_f32(entry, y);
    Norms& norm = norms.emplace_back(Norms{.name = entry.name});
    for (std::size_t j = 0; j < x.size(); ++j) {
      norm.distance += std::pow(static_cast<double>(x[j]) - static_cast<double>(y[j]), 2);
      norm.length += std::pow(static_cast<double>(y[j]), 2);
    }
    all += norm.length;
  }
  for (const Norms& norm : norms)
    EXPECT_LE(std::sqrt(norm.distance), tolerance * std::max(std::sqrt(norm.length), 1e-4 * std::sqrt(all))) << norm.name;
}

/// run.toml and results.json of ranks are those of one process, which also say how many there were.
void expect_same_records(const std::filesystem::path& together, const std::filesystem::path& alone) {
  const auto settings = [](const std::filesystem::path& run, const std::string& name) {
    Strings lines;
    for (const std::string& line : lines_of(contents_of(run / "run.toml"))) {
      if (line.starts_with("ranks = ") || line.starts_with("transport = ")) continue;
      lines.push_back(std::regex_replace(line, std::regex("/" + name + "\""), "/RUN\""));
    }
    return lines;
  };
  EXPECT_EQ(settings(together, "together"), settings(alone, "alone"));
  const std::string transport = emulated() ? "NCCL emulated" : "Open MPI v";
  EXPECT_NE(contents_of(together / "run.toml").find("\nranks = 2\ntransport = \"" + transport), std::string::npos);
  EXPECT_EQ(contents_of(alone / "run.toml").find("\nranks"), std::string::npos);

  const auto metrics = [](const std::filesystem::path& run) {
    std::vector<Json> found;
    for (const std::string& line : lines_of(contents_of(run / "metrics.jsonl"))) found.push_back(Json::parse(line));
    return found;
  };
  const std::vector<Json> ours = metrics(together);
  const std::vector<Json> theirs = metrics(alone);
  ASSERT_EQ(ours.size(), theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const bool evaluation = theirs[i].contains("metrics");
    const double loss = (evaluation ? theirs[i]["metrics"] : theirs[i])["loss"].get<double>();
    EXPECT_NEAR((evaluation ? ours[i]["metrics"] : ours[i])["loss"].get<double>(), loss, 1e-4 * loss) << "line " << i + 1;
    EXPECT_EQ(ours[i].value("tokens", 0), theirs[i].value("tokens", 0)) << "the global batches'";
  }
  const Json a = Json::parse(contents_of(together / "results.json"));
  const Json b = Json::parse(contents_of(alone / "results.json"));
  for (const char* key : {"steps", "total_steps", "epochs", "tokens", "skipped_steps", "device", "precision"})
    EXPECT_EQ(a["train"][key], b["train"][key]) << key;
  EXPECT_EQ(a["train"]["ranks"], 2);
  EXPECT_TRUE(a["train"]["transport"].get<std::string>().starts_with(transport)) << a["train"]["transport"];
  EXPECT_FALSE(b["train"].contains("ranks"));
  // What is said to be needed is of the larger part of a batch, and of all its memory.
  EXPECT_LT(a["train"]["estimated_memory_bytes"], b["train"]["estimated_memory_bytes"]);
}

/// Both say the same, in the same order, but for numbers of seconds, bytes and last digits, and what only several ranks have to say.
void expect_same_words(const CommandResult& together, const CommandResult& alone) {
  EXPECT_EQ(lines_of(without_numbers(together.out)), lines_of(without_numbers(alone.out)));
  const auto said = [](const std::string& text) {
    auto lines = lines_of(std::regex_replace(without_numbers(text), std::regex("wrote .*"), "wrote"));
    std::erase_if(lines, [](const std::string& line) { return line.starts_with("ranks: "); });
    return lines;
  };
  EXPECT_EQ(said(together.error), said(alone.error));
}

TEST_F(MpirunTest, FineTuningComesToWhatOneProcessDoes) {
  const CommandResult one = alone(finetuning("alone"));
  ASSERT_EQ(one.status, 0) << one.error;
  const CommandResult two = together({finetuning("together"), finetuning("together")});
  ASSERT_EQ(two.status, 0) << two.error;
  EXPECT_EQ(two.out, one.out) << "the scores";
  expect_same_words(two, one);
  expect_same_records(folder_ / "together", folder_ / "alone");
  expect_same_model(folder_ / "together", folder_ / "alone", 1e-4);
  EXPECT_EQ(results("together")["dev"]["confusion"], results("alone")["dev"]["confusion"]);
  // Nothing else lies there: no rank has written files of its own.
  const auto files = [](const std::filesystem::path& folder) {
    Strings names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  };
  EXPECT_EQ(files(folder_ / "together"), files(folder_ / "alone"));
}

TEST_F(MpirunTest, PreTrainingComesToWhatOneProcessDoes) {
  const CommandResult one = alone(pretraining("alone"));
  ASSERT_EQ(one.status, 0) << one.error;
  const CommandResult two = together({pretraining("together"), pretraining("together")});
  ASSERT_EQ(two.status, 0) << two.error;
  expect_same_words(two, one);
  expect_same_records(folder_ / "together", folder_ / "alone");
  expect_same_model(folder_ / "together", folder_ / "alone", 1e-4);
}

#ifndef LATHE_MPIRUN_EMULATED  // what comes before a device computes is the same in every build

TEST_F(MpirunTest, OtherRanksPathsMayDiffer) {
  std::filesystem::create_directories(folder_ / "a" / "z");
  std::filesystem::copy(folder_ / "model", folder_ / "a" / "model");
  for (const char* file : {"train.tsv", "dev.tsv"}) std::filesystem::copy(folder_ / file, folder_ / "a" / "z" / file);
  Strings other = finetuning("elsewhere") + Strings{"--dry-run"};
  for (std::string& word : other) {
    if (word == path("model")) word = path("a/model");
    if (word == path("train.tsv")) word = path("a/z/train.tsv");
    if (word == path("dev.tsv")) word = path("a/z/dev.tsv");
  }
  const CommandResult result = together({finetuning("run") + Strings{"--dry-run"}, other});
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_EQ(lines_of(result.out).size(), 5U) << "a dry run's estimate, once: " << result.out;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "elsewhere"));
}

TEST_F(MpirunTest, WhatIsWrongOnOneRankIsSaidByRank0AndEndsAll) {
  const auto with = [&](const std::string& word, const std::string& other) {
    Strings arguments = finetuning("run");
    std::ranges::replace(arguments, path(word), other);
    return arguments;
  };
  // A file that one rank doesn't have; a call that one rank has otherwise.
  expect_refused_together({finetuning("run"), with("train.tsv", path("nothing.tsv"))},
                          {"lathe: rank 1 (host ", "nothing.tsv: can't open"});
  expect_refused_together({with("train.tsv", path("nothing.tsv")), finetuning("run")}, {"lathe: " + path("nothing.tsv")});
  expect_refused_together({finetuning("run"), with("model", path("no-model"))}, {"lathe: rank 1 (host ", "no-model"});
  expect_refused_together({finetuning("run"), finetuning("run") + Strings{"--bogus"}},
                          {"lathe: rank 1 (host ", "finetune has no option --bogus"});
  expect_refused_together({finetuning("run"), {"finetune", "--config", path("nothing.toml")}},
                          {"lathe: rank 1 (host ", "nothing.toml"});
  // The lowest failing rank's, of several.
  expect_refused_together({finetuning("run"), with("train.tsv", path("first.tsv")), with("train.tsv", path("second.tsv"))},
                          {"lathe: rank 1 (host ", "first.tsv: can't open"});
}

TEST_F(MpirunTest, WhatDiffersBetweenRanksIsNamedWithBothValues) {
  std::filesystem::create_directories(folder_ / "other");
  std::filesystem::copy(folder_ / "model", folder_ / "other" / "model");
  write_tiny_data(folder_ / "other" / "train.tsv", 61, 1);
  {
    std::fstream weights(folder_ / "other" / "model" / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    weights.seekp(-1, std::ios::end);
    weights.put('\x01');  // one bit of one weight or so
  }
  const auto with = [&](const std::string& word) {
    Strings arguments = finetuning("run");
    std::ranges::replace(arguments, path(word), path("other/" + word));
    return arguments;
  };
  const std::string beginning = "has another build, other settings or other files than rank 0 (host ";
  expect_refused_together({finetuning("run"), with("train.tsv")},
                          {"lathe: rank 1 (host ", beginning, "train.tsv = ", ", and not train.tsv = "});
  expect_refused_together({finetuning("run"), with("model")}, {"lathe: rank 1 (host ", beginning, "model.safetensors = "});
  const auto changed = [&](const std::string& option, const std::string& value) {
    Strings arguments = finetuning("run");
    *std::next(std::ranges::find(arguments, option)) = value;
    return arguments;
  };
  expect_refused_together({finetuning("run"), changed("--lr", "2e-3")}, {beginning, "lr = 0.002, and not lr = 0.001"});
  expect_refused_together({finetuning("run"), changed("--threads", "2")}, {beginning, "threads = 2, and not threads = 1"});
}

TEST_F(MpirunTest, AnOutputThatIsThereIsRefusedOnce) {
  std::filesystem::create_directories(folder_ / "kept");
  std::ofstream(folder_ / "kept" / "run.toml") << "# mine\n";
  const CommandResult result = together({finetuning("kept"), finetuning("kept")});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
  EXPECT_EQ(contents_of(folder_ / "kept" / "run.toml"), "# mine\n");
}

TEST_F(MpirunTest, AnEvaluationIsntDoneTwice) {
  const Strings evaluation = {"evaluate", "--model", path("model"), "--data", path("dev.tsv")};
  const CommandResult result = together({evaluation, evaluation});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.error.starts_with("lathe: evaluate is the work of one process, and mpirun announces 2")) << result.error;
  EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
}

/// Two ranks on one core are warned of where there are more.
TEST_F(MpirunTest, RanksThatShareACoreForNothingAreWarnedOfOnce) {
  const Strings bound =
      Strings{"/usr/bin/env", "taskset", "--cpu-list", "0", LATHE_COMMAND} + finetuning("run") + Strings{"--dry-run"};
  const CommandResult result = run_by_mpirun(folder_.path(), {bound, bound});
  ASSERT_EQ(result.status, 0) << result.error;
  const Strings lines = lines_of(result.error);
  const auto warnings = std::ranges::count_if(lines, [](const std::string& line) { return line.starts_with("warning: "); });
  if (reachable_cores() < 2) {
    EXPECT_EQ(warnings, 0) << result.error;
  } else {
    EXPECT_EQ(warnings, 1) << result.error;
    EXPECT_TRUE(std::regex_search(
        lines.front(), std::regex("^warning: rank 0 \\(host .*\\) is bound to 1 of [0-9]+ cores, which 2 ranks share, and "
                                  "its fair share would be [0-9]+; use mpirun --bind-to none, or --map-by slot:PE=")))
        << lines.front();
  }
}

/// Without --threads, ranks that aren't bound divide the cores.
TEST_F(MpirunTest, ThreadsAreDivided) {
  Strings arguments = finetuning("run");
  const auto option = std::ranges::find(arguments, std::string("--threads"));
  arguments.erase(option, option + 2);
  arguments.emplace_back("--dry-run");
  const CommandResult one = alone(arguments);
  const CommandResult two = together({arguments, arguments});
  ASSERT_EQ(two.status, 0) << two.error;
  const auto threads = [](const CommandResult& result) {
    std::smatch found;
    EXPECT_TRUE(std::regex_search(result.error, found, std::regex("([0-9]+) threads? \\("))) << result.error;
    return found.empty() ? 0 : std::stoi(found[1]);
  };
  EXPECT_EQ(threads(two), std::max(1, threads(one) / 2)) << two.error;
  if (threads(one) > 1) {
    EXPECT_NE(two.error.find(", shared by 2 ranks"), std::string::npos) << two.error;
  }
}

#endif  // LATHE_MPIRUN_EMULATED

}  // namespace
}  // namespace lathe
