// Whole steps as they are measured: lengths, the operations of their mathematics by hand, and a step of a tiny BERT.
#include "benchmarks/step.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe::bench {
namespace {

using Lengths = std::vector<std::int64_t>;

TEST(BenchLengths, AreLinearBetweenQuantilesAndLeaveNothingToChance) {
  const LengthDistribution some{.name = "some", .quantiles = {{0.0, 10}, {0.5, 20}, {1.0, 120}}};
  EXPECT_EQ(some.at(0.0), 10);
  EXPECT_EQ(some.at(0.25), 15);
  EXPECT_EQ(some.at(0.5), 20);
  EXPECT_EQ(some.at(0.75), 70);
  EXPECT_EQ(some.at(1.0), 120);
  EXPECT_EQ(some.draw(4), (Lengths{12, 17, 45, 95}));  // at 1/8, 3/8, 5/8, 7/8
  EXPECT_NEAR(some.mean(), 0.5 * 15 + 0.5 * 70, 0.6) << "lengths are rounded down";
  EXPECT_EQ(some.cut(50).draw(4), (Lengths{12, 17, 27, 42}));
}

TEST(BenchLengths, FillATotalExactly) {
  EXPECT_EQ(fixed_lengths(128).fill(300), (Lengths{128, 128, 44}));
  EXPECT_EQ(fixed_lengths(128).fill(100), (Lengths{100}));
  for (const std::int64_t tokens : {1, 257, 16384}) {
    const Lengths lengths = wiki_lengths().fill(tokens);
    EXPECT_EQ(std::reduce(lengths.begin(), lengths.end()), tokens);
    for (const std::int64_t length : lengths) EXPECT_GT(length, 0);
  }
}

// Means of the data, measured when the quantiles were.
TEST(BenchLengths, TablesKeepTheDatasMeans) {
  EXPECT_NEAR(sst2_lengths().mean(), 13.32, 0.03 * 13.32);
  EXPECT_NEAR(wiki_lengths().mean(), 105.83, 0.03 * 105.83);
}

TEST(BenchLengths, AreNamedOrReadFromAFile) {
  EXPECT_EQ(parse_lengths("fixed:77").draw(2), (Lengths{77, 77}));
  EXPECT_EQ(parse_lengths("sst2").name, "sst2");
  for (const char* bad : {"", "fixed", "fixed:", "fixed:2", "fixed:-3", "fixed:12x", "128", "fixed:1000001"})
    EXPECT_THROW(parse_lengths(bad), UsageError) << bad;
  const TemporaryFolder folder;
  const auto path = folder.path() / "lengths.txt";
  std::ofstream(path) << "30\n10\n20\n";
  const LengthDistribution read = read_lengths(path);
  EXPECT_EQ(read.name, "lengths.txt");
  EXPECT_EQ(read.at(0.0), 10);
  EXPECT_EQ(read.at(0.5), 20);
  EXPECT_EQ(read.at(1.0), 30);
  std::ofstream(path) << "30\nten\n";
  EXPECT_THROW(read_lengths(path), FormatError);
  std::ofstream(path) << "";
  EXPECT_THROW(read_lengths(path), FormatError);
  EXPECT_THROW(read_lengths(folder.path() / "absent"), FileError);
}

TEST(BenchOperations, AreCountedByHandForASmallBatch) {
  const StepModel model{.name = "small", .layers = 2, .hidden_size = 64, .heads = 2, .vocabulary = 1000};
  // Two layers of 4 d^2 in attention and 8 d^2 in the feed-forward; 3 + 5 tokens; 2 masked.
  constexpr std::int64_t kSize = 64;
  constexpr std::int64_t kWeights = kSize * kSize * 12 * 2;
  constexpr std::int64_t kEncoder = 6 * kWeights * 8;
  // Forward: q k^T and p v, 2 d s^2 operations each; backward twice that.
  constexpr std::int64_t kAttention = kSize * 2 * 3 * (2 + 2) * (3 * 3 + 5 * 5);
  constexpr std::int64_t kHead = (kSize * kSize + kSize * 1000) * 2 * 6;
  EXPECT_EQ(step_operations(model, StepTask::mlm, Lengths{3, 5}, 2), kEncoder + kAttention + kHead);
  EXPECT_EQ(step_operations(model, StepTask::classify, Lengths{3, 5}, 2), kEncoder + kAttention);
}

TEST(BenchOperations, AreBertsKnownNumbersAToken) {
  // Millions a token, with 15 % masked: 545 for base at 128, 588 at 512; 1,879 and 1,992 for large.
  const auto millions = [](const char* name, std::int64_t length) {
    const Lengths lengths(1000, length);
    const std::int64_t tokens = 1000 * length;
    return static_cast<double>(step_operations(step_model(name), StepTask::mlm, lengths, tokens * 15 / 100)) /
           static_cast<double>(tokens) / 1e6;
  };
  EXPECT_NEAR(millions("base", 128), 545.0, 1.0);
  EXPECT_NEAR(millions("base", 512), 588.0, 1.0);
  EXPECT_NEAR(millions("large", 128), 1879.0, 2.0);
  EXPECT_NEAR(millions("large", 512), 1992.0, 2.0);
  EXPECT_THROW(step_model("huge"), std::out_of_range);
}

TEST(BenchOperations, PeaksAreThoseOfDataSheets) {
  EXPECT_EQ(data_sheet_peak("NVIDIA H200", "bf16")->operations_per_second, 989.5e12);
  EXPECT_EQ(data_sheet_peak("NVIDIA H100 80GB HBM3", "bf16")->operations_per_second, 989.5e12);
  EXPECT_EQ(data_sheet_peak("NVIDIA H100 PCIe", "bf16")->operations_per_second, 756.5e12);
  EXPECT_EQ(data_sheet_peak("NVIDIA A100-SXM4-80GB", "bf16")->operations_per_second, 312e12);
  EXPECT_EQ(data_sheet_peak("NVIDIA A100-SXM4-80GB", "f32")->operations_per_second, 19.5e12);
  EXPECT_EQ(data_sheet_peak("NVIDIA H100 PCIe", "bf16")->source, "NVIDIA's data sheet of the H100 PCIe, bf16 without sparsity");
  EXPECT_FALSE(data_sheet_peak("NVIDIA GeForce RTX 4090", "bf16"));
  EXPECT_FALSE(data_sheet_peak("cpu", "f32"));
}

StepRequest tiny(StepTask task) {
  return {.task = task,
          .model = step_model("tiny"),
          .lengths = LengthDistribution{.name = "some", .quantiles = {{0.0, 8}, {1.0, 24}}},
          .tokens = 64,
          .dropout = 0.1,
          .dtype = DType::f32,
          .replay = Replay::graphs,
          .warmup = 1,
          .steps = 3,
          .seconds = 60.0};
}

void expect_counts(const StepRequest& request, const StepMeasurement& measured) {
  const StepModel& model = request.model;
  ASSERT_EQ(measured.steps.size(), 3U);
  EXPECT_EQ(measured.warmup, 1);
  // Embeddings of 1,024 tokens, 512 positions and 2 types are a part of it.
  EXPECT_GT(measured.parameters,
            12 * model.layers * model.hidden_size * model.hidden_size + (1024 + 512 + 2) * model.hidden_size);
  EXPECT_GT(measured.peak_bytes, 16 * measured.parameters) << "a weight, its gradient and two moments, and activations";
  for (const MeasuredStep& step : measured.steps) {
    EXPECT_GE(step.sequences, 2);
    EXPECT_GE(step.tokens, 8 * step.sequences);
    EXPECT_LE(step.tokens, 24 * step.sequences);
    EXPECT_GE(step.bucket_tokens, step.tokens);
    EXPECT_LE(step.bucket_tokens, step.tokens + 8) << "rounded up to a multiple of 8 at this size";
    // The mathematics' operations lie between those of the shortest and of the longest sequences.
    const Lengths shortest(static_cast<std::size_t>(step.tokens), 1);
    const Lengths longest(static_cast<std::size_t>(step.tokens / 24 + 1), 24);
    EXPECT_GT(step.operations, step_operations(model, request.task, shortest, step.rows));
    EXPECT_LT(step.operations, step_operations(model, request.task, longest, step.rows));
  }
}

TEST(BenchStep, AStepOnTheCpuIsItsPhases) {
  for (const StepTask task : {StepTask::mlm, StepTask::classify}) {
    const StepRequest request = tiny(task);
    const StepMeasurement measured = measure_step(Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 0}), request);
    expect_counts(request, measured);
    for (const MeasuredStep& step : measured.steps) {
      if (task == StepTask::mlm) {
        EXPECT_LE(step.tokens, 64) << "the budget of --tokens";
        EXPECT_LT(step.rows, step.tokens);
      } else {
        EXPECT_EQ(step.sequences, 4) << "64 tokens of sequences that have 15.5 on average";
        EXPECT_EQ(step.rows, step.sequences);
      }
      EXPECT_EQ(step.captures, 0);
      EXPECT_GT(step.compute, 0.0);
      EXPECT_GT(step.update, 0.0);
      EXPECT_NEAR(step.data + step.upload + step.compute + step.update, step.seconds, 1e-9);
      EXPECT_DOUBLE_EQ(step.packing, step.data);
    }
  }
}

TEST(BenchStep, EndsWhenItsTimeIsOverOrItIsTold) {
  StepRequest request = tiny(StepTask::classify);
  request.steps = 1000;
  request.seconds = 0.0;
  const auto device = [] { return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 0}); };
  EXPECT_EQ(measure_step(device(), request).steps.size(), 3U);
  const std::atomic<int> stop = 2;
  EXPECT_TRUE(measure_step(device(), request, &stop).steps.empty()) << "it ended in the warm-up";
}

#ifdef LATHE_EMULATED
TEST(BenchStep, AnEmulatedStepIsCountedAndNotTimed) {
  for (const StepTask task : {StepTask::mlm, StepTask::classify}) {
    StepRequest request = tiny(task);
    request.dtype = DType::bf16;
    const StepMeasurement measured = measure_step(Device::cuda({}), request);
    expect_counts(request, measured);
    for (const MeasuredStep& step : measured.steps) {
      EXPECT_LE(step.captures, 1);
      EXPECT_EQ(step.seconds, 0.0);
      EXPECT_EQ(step.compute, 0.0);
      EXPECT_EQ(step.packing, 0.0);
    }
    request.replay = Replay::off;
    for (const MeasuredStep& step : measure_step(Device::cuda({}), request).steps) EXPECT_EQ(step.captures, 0);
  }
}
#endif

}  // namespace
}  // namespace lathe::bench
