// The losses of pre-training against PyTorch's: scripts/golden_pretrain.py tells what is trained and writes them. LATHE_GOLDEN_STEPS is how many of the
// 300 steps are taken: 25, or all.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/temporary_folder.h"
#include "tests/training/pretrain_golden.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::int64_t kFewSteps = 25;

std::int64_t wanted_steps() {
  const char* const text = std::getenv("LATHE_GOLDEN_STEPS");
  const std::int64_t steps = text == nullptr ? kFewSteps : std::atoll(text);
  if (steps != kFewSteps && steps != GoldenPretraining::kSteps)
    throw std::runtime_error(
        fmt::format("LATHE_GOLDEN_STEPS is {}; it may be {} or {}", steps, kFewSteps, GoldenPretraining::kSteps));
  return steps;
}

/// Keeps the losses, and stops after the steps that are wanted.
class Losses final : public PretrainObserver {
 public:
  explicit Losses(std::int64_t steps) : steps_(steps) {}
  void logged(const StepLog& log) override { losses.push_back(log.loss); }
  void stepped(std::int64_t step, std::int64_t, std::int64_t) override { stop = step == steps_ ? 1 : 0; }
  std::vector<double> losses;
  std::atomic<int> stop = 0;

 private:
  std::int64_t steps_;
};

class PretrainGolden : public testing::Test {
 protected:
  void SetUp() override {
    const char* const data = std::getenv("LATHE_TEST_DATA");
    if (data == nullptr) GTEST_SKIP() << "LATHE_TEST_DATA isn't set";
    data_ = data;
    std::ifstream file(fs::path(LATHE_GOLDEN_PRETRAIN) / "losses.json");
    golden_ = Json::parse(file);
  }
  GoldenPretraining setup(double dropout, std::uint32_t seed) const { return {data_, folder_.path(), dropout, seed}; }

  TemporaryFolder folder_;
  fs::path data_;
  Json golden_;
};

TEST_F(PretrainGolden, EveryLossIsPyTorchsWithinOnePercent) {
  const std::int64_t steps = wanted_steps();
  const auto expected = golden_["losses"].get<std::vector<double>>();
  ASSERT_EQ(static_cast<std::int64_t>(expected.size()), GoldenPretraining::kSteps);
  const GoldenPretraining golden = setup(0.0, 42);
  const auto model = golden.model(2);
  Losses run(steps);
  pretrain(*model, golden.train, nullptr, golden.settings, run, &run.stop);
  ASSERT_EQ(static_cast<std::int64_t>(run.losses.size()), steps);
  EXPECT_NEAR(run.losses.front(), expected.front(), 1e-5 * expected.front()) << "the same weights on the same masks";
  double worst = 0.0;
  for (std::size_t i = 0; i < run.losses.size(); ++i) {
    const double difference = std::abs(run.losses[i] / expected[i] - 1.0);
    EXPECT_LE(difference, 0.01) << "step " << i + 1 << ": " << run.losses[i] << ", PyTorch's " << expected[i];
    worst = std::max(worst, difference);
  }
  fmt::print("{} steps: losses from {:.4f} to {:.4f}, at most {:.2g} of theirs away from PyTorch's\n", steps, run.losses.front(),
             run.losses.back(), worst);
}

TEST_F(PretrainGolden, WithDropoutAndOwnBatchesTheLossIsPyTorchsMeanWithinThreePercent) {
  const std::int64_t steps = wanted_steps();
  double mean = 0.0;
  for (const auto& [seed, losses] : golden_["own"].items()) mean += losses[fmt::format("{}", steps)].get<double>();
  mean /= static_cast<double>(golden_["own"].size());
  ASSERT_GE(golden_["own"].size(), 2U) << "a mean of several seeds";
  const GoldenPretraining golden = setup(0.1, 7);
  const auto model = golden.model(2);
  Losses run(steps);
  pretrain(*model, golden.train, nullptr, golden.settings, run, &run.stop);
  const double loss = evaluate_masked_lm(*model, golden.dev, golden_dev_settings())->loss;
  EXPECT_NEAR(loss, mean, 0.03 * mean);
  fmt::print("{} steps with dropout 0.1: dev loss {:.4f}, PyTorch's mean {:.4f}\n", steps, loss, mean);
}

}  // namespace
}  // namespace lathe
