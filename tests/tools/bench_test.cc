// `lathe bench`: what it prints, and what it refuses.
#include <gtest/gtest.h>

#include <algorithm>
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

#ifdef LATHE_EMULATED
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
