// `lathe bench`: what it prints, and what it refuses.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/tools/run_command.h"

namespace lathe {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

class BenchTest : public testing::Test {
 protected:
  CommandResult lathe(const Strings& arguments) const { return run_lathe(folder_.path(), arguments); }
  Json json(Strings arguments) const {
    arguments.insert(arguments.begin(), "bench");
    arguments.emplace_back("--json");
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 0) << result.error;
    return Json::parse(result.out);
  }
  void expect_refused(Strings arguments, const std::string& message) const {
    arguments.insert(arguments.begin(), "bench");
    const CommandResult result = lathe(arguments);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
    EXPECT_NE(result.error.find(message), std::string::npos) << result.error;
  }

  TemporaryFolder folder_;
};

TEST_F(BenchTest, RowsOnTheCpuHaveTimesRatesAndFractions) {
  const Json all = json({"gather", "cast", "--device", "cpu", "--shape", "256x768", "--threads", "1"});
  EXPECT_EQ(all["emulated"], false);
  EXPECT_NE(all["device"].get<std::string>().find("cpu, 1 thread, x86-64-v"), std::string::npos) << all["device"];
  const double copy = all["copy_bytes_per_second"];
  EXPECT_GT(copy, 0.0);
  EXPECT_GT(all["product_operations_per_second"]["f32"].get<double>(), 0.0);
  ASSERT_EQ(all["rows"].size(), 4U);
  const Json& row = all["rows"][0];
  EXPECT_EQ(row["kernel"], "gather_forward");
  EXPECT_EQ(row["family"], "gather");
  EXPECT_EQ(row["shape"], Json({{"T", 256}, {"R", 32}, {"C", 768}}));
  const double bytes = row["bytes"];
  EXPECT_EQ(bytes, 4 * (2 * 32 * 768 + 32));
  EXPECT_DOUBLE_EQ(row["bytes_per_second"].get<double>(), bytes / row["seconds"].get<double>());
  EXPECT_DOUBLE_EQ(row["fraction_of_copy"].get<double>(), bytes / row["seconds"].get<double>() / copy);
  EXPECT_TRUE(all["rows"][2]["fraction_of_product"].is_null()) << "no product has a cast's types";
}

TEST_F(BenchTest, ATableForPeopleNamesTheCeilings) {
  const CommandResult result = lathe({"bench", "gather", "--device", "cpu", "--shape", "256x768"});
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_NE(result.out.find("ceilings: a copy reads and writes "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("\ngather_backward             f32      T=256 R=32 C=768"), std::string::npos) << result.out;
}

TEST_F(BenchTest, WhatMakesNoSenseIsRefusedInALine) {
  expect_refused({"gelus"}, "family: gelus not in {layernorm,gelu,");
  for (const char* shape : {"12x13", "x64", "64x", "0x64", "64", "1x64x", "-1x64", "9999999999999999999x64", "1x16384"})
    expect_refused({"--shape", shape}, "--shape is '" + std::string(shape) + "'; it must be tokens");
  expect_refused({"--profile", "gpu"}, "--profile: gpu not in {emulated}");
}

TEST_F(BenchTest, StepsOnTheCpuHaveTokensSharesAndPhases) {
  const Json all = json({"step", "--device", "cpu", "--threads", "1", "--model-size", "tiny", "--tokens", "64", "--lengths",
                         "fixed:16", "real", "--steps", "3"});
  EXPECT_EQ(all["emulated"], false);
  EXPECT_EQ(all["complete"], true);
  EXPECT_EQ(all["formula"], "6 N T + 12 L d sum(s^2) + 6 R (d^2 + d V), N = 12 L d^2");
  EXPECT_EQ(all["peak_source"], "what a large f32 product reaches here, measured in this run");
  const double peak = all["peak_operations_per_second"];
  EXPECT_EQ(peak, all["product_operations_per_second"]["f32"].get<double>());
  Strings names;
  for (const Json& row : all["rows"]) {
    names.push_back(row["task"].get<std::string>() + " " + row["lengths"].get<std::string>());
    EXPECT_EQ(row["model"], "tiny");
    EXPECT_EQ(row["dtype"], "f32");
    EXPECT_EQ(row["graphs"], false) << "the CPU has none";
    EXPECT_EQ(row["dropout"], 0.1);
    EXPECT_EQ(row["steps"], 3);
    EXPECT_GT(row["seconds"].get<double>(), 0.0);
    EXPECT_GT(row["tokens_per_second"].get<double>(), 0.0);
    EXPECT_DOUBLE_EQ(row["mfu"].get<double>(), row["operations_per_second"].get<double>() / peak);
    for (const char* phase : {"data", "upload", "forward_backward", "optimizer"})
      EXPECT_GT(row["phases"][phase].get<double>(), 0.0) << phase;
  }
  EXPECT_EQ(names, (Strings{"mlm fixed:16", "mlm wiki", "classify fixed:16", "classify sst2"}));
  const Json& fixed = all["rows"][2];
  EXPECT_EQ(fixed["sequences"], 4.0);
  EXPECT_EQ(fixed["tokens"], 64.0);
  EXPECT_EQ(fixed["operations"], 6 * 98304 * 64 + 12 * 2 * 64 * 4 * 16 * 16);
  EXPECT_EQ(fixed["quantiles"], Json({{0.0, 16}, {1.0, 16}}));
  EXPECT_DOUBLE_EQ(fixed["tokens_per_second"].get<double>(), 64.0 / fixed["seconds"].get<double>());
}

TEST_F(BenchTest, ATableOfStepsSaysWhatItsSharesAreOf) {
  const CommandResult result = lathe({"bench", "step", "--device", "cpu", "--model-size", "tiny", "--tokens", "64", "--lengths",
                                      "fixed:16", "--task", "mlm", "--steps", "3", "--dropout", "0"});
  EXPECT_EQ(result.status, 0) << result.error;
  EXPECT_NE(result.out.find("MFU: 6 N T + 12 L d sum(s^2) + 6 R (d^2 + d V), N = 12 L d^2 over the step's time, of "),
            std::string::npos)
      << result.out;
  EXPECT_NE(result.out.find("\nmlm      tiny  fixed:16 "), std::string::npos) << result.out;
}

TEST_F(BenchTest, OfTheUsualLengthsThoseThatFitAreMeasured) {
  const Json all = json({"step", "--device", "cpu", "--model-size", "tiny", "--tokens", "130", "--task", "mlm", "--steps", "1"});
  ASSERT_EQ(all["rows"].size(), 2U);
  EXPECT_EQ(all["rows"][0]["lengths"], "fixed:128");
  EXPECT_EQ(all["rows"][1]["lengths"].get<std::string>().substr(0, 4), "wiki");
}

TEST_F(BenchTest, StepsOfLengthsFromAFile) {
  std::ofstream(folder_.path() / "lengths") << "5\n9\n";
  const Json all = json({"step", "--device", "cpu", "--model-size", "tiny", "--tokens", "32", "--task", "classify", "--steps",
                         "3", "--lengths-from", (folder_.path() / "lengths").string()});
  ASSERT_EQ(all["rows"].size(), 1U);
  EXPECT_EQ(all["rows"][0]["lengths"], "lengths");
  EXPECT_LE(all["rows"][0]["tokens"].get<double>(), 9.0 * all["rows"][0]["sequences"].get<double>());
  std::ofstream(folder_.path() / "lengths") << "5\nnine\n";
  expect_refused({"step", "--lengths-from", (folder_.path() / "lengths").string()}, "line 2: a length in tokens was expected");
}

TEST_F(BenchTest, RowsThatWerePrintedOutliveASignal) {
  // Stopped when the first row is there; the second ends early.
  const CommandResult result =
      run_lathe(folder_.path(),
                {"bench", "step", "--device", "cpu", "--model-size", "tiny", "--tokens", "64", "--lengths", "fixed:16",
                 "fixed:17", "fixed:18", "--seconds", "1", "--steps", "100000", "--json"},
                "", [&](pid_t child) {
                  for (int waited = 0;
                       waited < 6000 && contents_of(folder_.path() / "stdout").find("fixed:16") == std::string::npos; ++waited)
                    ::usleep(10000);
                  ::kill(child, SIGINT);
                });
  EXPECT_EQ(result.status, 128 + SIGINT);
  const Json all = Json::parse(result.out);
  EXPECT_EQ(all["complete"], false);
  EXPECT_GE(all["rows"].size(), 1U);
  EXPECT_LT(all["rows"].size(), 6U);
}

TEST_F(BenchTest, StepsAndKernelsAreNotMixed) {
  expect_refused({"step", "gelu"}, "`lathe bench step` measures whole steps; kernels are measured by another call");
  expect_refused({"step", "--shape", "64x64"}, "--shape is for kernels");
  expect_refused({"step", "--profile", "emulated"}, "--profile is for kernels");
  expect_refused({"gelu", "--tokens", "5", "--no-graphs"}, "--tokens, --no-graphs are for whole steps: `lathe bench step`");
  expect_refused({"step", "--lengths", "long"}, "--lengths long is none of fixed:N");
  expect_refused({"step", "--lengths", "fixed:128", "--tokens", "64"}, "sequences of 128 tokens and more fit neither");
  expect_refused({"step", "--task", "qa"}, "--task: qa not in {mlm,classify}");
  expect_refused({"step", "--precision", "bf16", "--device", "cpu"}, "--precision bf16 needs a GPU");
  expect_refused({"step", "--tokens", "0"}, "--tokens");
}

#ifdef LATHE_EMULATED
TEST_F(BenchTest, EmulatedStepsAreCountedAndNotTimed) {
  const Json all = json({"step", "--device", "emulated", "--tokens", "48", "--lengths", "fixed:16"});
  EXPECT_EQ(all["emulated"], true);
  EXPECT_EQ(all["notice"], "emulated on the host: steps are counted, no time is measured");
  ASSERT_EQ(all["rows"].size(), 2U);
  for (const Json& row : all["rows"]) {
    EXPECT_EQ(row["model"], "tiny");
    EXPECT_EQ(row["dtype"], "bf16");
    EXPECT_EQ(row["graphs"], true);
    EXPECT_EQ(row["tokens"], 48.0);
    EXPECT_GT(row["peak_bytes"].get<double>(), 0.0);
    for (const char* time : {"seconds", "tokens_per_second", "mfu", "phases"}) EXPECT_FALSE(row.contains(time)) << time;
  }
}

TEST_F(BenchTest, EmulatedRowsSaySoAndHaveNoTime) {
  const Json all = json({"layernorm", "--device", "cuda", "--shape", "33x768"});
  EXPECT_EQ(all["emulated"], true);
  EXPECT_EQ(all["notice"], "emulated on the host: each kernel ran once, no time is measured");
  ASSERT_EQ(all["rows"].size(), 8U);
  for (const Json& row : all["rows"]) EXPECT_FALSE(row.contains("seconds"));
  const CommandResult table = lathe({"bench", "gather", "--device", "cuda", "--shape", "33x768"});
  EXPECT_TRUE(table.out.starts_with("emulated sm_80: emulated on the host")) << table.out;
  EXPECT_EQ(json({"gather", "--shape", "33x768"})["emulated"], false) << "auto takes no emulated device";
}

TEST_F(BenchTest, TheProfileTellsTensorsAndLines) {
  const Json all = json({"layernorm", "matmul", "--profile", "emulated", "--shape", "33x768"});
  EXPECT_EQ(all["emulated"], true);
  ASSERT_EQ(all["cases"].size(), 8U) << "a library's products aren't counted";
  const Json& kernel = all["cases"][0]["kernels"][0];
  EXPECT_NE(kernel["name"].get<std::string>().find("layernorm_forward_kernel"), std::string::npos);
  EXPECT_EQ(kernel["launches"], 1);
  const Json& x = kernel["tensors"]["x"];
  EXPECT_EQ(x["size"], 4 * 33 * 768);
  EXPECT_EQ(x["read_bytes"], 4 * 33 * 768);
  EXPECT_EQ(x["expected_read_bytes"], 4 * 33 * 768);
  EXPECT_EQ(x["used_bytes"], 32 * x["sectors"].get<int>());
  bool found = false;
  for (const auto& [line, counted] : kernel["lines"].items()) found = found || line.starts_with("kernels/layernorm.cu:");
  EXPECT_TRUE(found) << kernel["lines"];
  const CommandResult text = lathe({"bench", "gather", "--profile", "emulated", "--shape", "33x768"});
  EXPECT_TRUE(text.out.starts_with("emulated on the host: traffic is counted, no time is measured\n")) << text.out;
  EXPECT_NE(text.out.find("    kernels/gather.cu:"), std::string::npos) << text.out;
  expect_refused({"--profile", "emulated", "--device", "cpu"}, "it goes with no --device cpu");
  expect_refused({"matmul", "--profile", "emulated"}, "matmul has no kernel of Lathe's own on CUDA");
}
#else
TEST_F(BenchTest, OtherBuildsSayHowToGetTheProfile) {
  expect_refused({"--profile", "emulated"}, "`cmake --preset emulated && cmake --build --preset emulated`");
#ifndef LATHE_HAS_CUDA
  expect_refused({"--device", "cuda"}, "this build of Lathe has no CUDA backend");
#endif
}
#endif

}  // namespace
}  // namespace lathe
