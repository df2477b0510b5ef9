#include "lathe/training/metrics.h"

#include <gtest/gtest.h>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// Probabilities that predict these classes.
std::vector<float> predicting(const std::vector<int>& predicted, std::size_t classes) {
  std::vector<float> probabilities(predicted.size() * classes, 0.1F);
  for (std::size_t i = 0; i < predicted.size(); ++i) probabilities[i * classes + static_cast<std::size_t>(predicted[i])] = 0.6F;
  return probabilities;
}

TEST(Metrics, BinaryScoresAreThoseOfTheClassWithId1) {
  const std::vector<std::int32_t> labels = {1, 1, 1, 0, 0, 0, 0, 1};
  const auto m = classification_metrics(predicting({1, 0, 1, 1, 0, 0, 0, 1}, 2), labels, 2, 0.5);
  // True positives 3, false positives 1, false negatives 1.
  EXPECT_DOUBLE_EQ(m.accuracy, 6.0 / 8);
  EXPECT_DOUBLE_EQ(m.positive().precision, 3.0 / 4);
  EXPECT_DOUBLE_EQ(m.positive().recall, 3.0 / 4);
  EXPECT_DOUBLE_EQ(m.positive().f1, 3.0 / 4);
  EXPECT_EQ(m.confusion, (std::vector<std::int64_t>{3, 1, 1, 3}));
  EXPECT_EQ(m.support, (std::vector<std::int64_t>{4, 4}));
}

TEST(Metrics, AveragesOverClassesAsScikitLearn) {
  const std::vector<std::int32_t> labels = {0, 0, 1, 1, 2, 1};
  const auto m = classification_metrics(predicting({0, 0, 1, 0, 1, 1}, 3), labels, 3, 0.5);
  const double p0 = 2.0 / 3, p1 = 2.0 / 3, p2 = 0.0, r0 = 1.0, r1 = 2.0 / 3, r2 = 0.0;
  const double f0 = 2 * p0 * r0 / (p0 + r0), f1 = 2 * p1 * r1 / (p1 + r1);
  EXPECT_NEAR(m.macro.precision, (p0 + p1 + p2) / 3, 1e-15);
  EXPECT_NEAR(m.macro.recall, (r0 + r1 + r2) / 3, 1e-15);
  EXPECT_NEAR(m.macro.f1, (f0 + f1) / 3, 1e-15);
  EXPECT_NEAR(m.weighted.precision, (2 * p0 + 3 * p1) / 6, 1e-15);
  EXPECT_NEAR(m.weighted.recall, (2 * r0 + 3 * r1) / 6, 1e-15);
  EXPECT_NEAR(m.weighted.f1, (2 * f0 + 3 * f1) / 6, 1e-15);
  EXPECT_EQ(m.classes[2].f1, 0.0) << "never predicted: 0, not NaN";
}

TEST(Metrics, TheFirstOfEqualProbabilitiesWins) {
  const std::vector<float> tie = {0.2F, 0.4F, 0.4F};
  EXPECT_EQ(predicted_class(tie), 1);
}

TEST(Metrics, KeepsTheMostConfidentErrors) {
  // Samples 0 to 59, all of class 0; every third is right. Of the wrong ones, probabilities repeat after seven.
  std::vector<float> probabilities;
  for (int i = 0; i < 60; ++i) {
    const float wrong = i % 3 == 0 ? 0.2F : 0.6F + 0.05F * static_cast<float>(i % 7);
    probabilities.insert(probabilities.end(), {1.0F - wrong, wrong});
  }
  const auto errors = classification_metrics(probabilities, std::vector<std::int32_t>(60, 0), 2, 0.5).errors;
  ASSERT_EQ(errors.size(), 20U);
  std::vector<std::int64_t> expected;
  for (int rest = 6; rest >= 0; --rest) {
    for (int i = rest; i < 60; i += 7) {
      if (i % 3 != 0 && expected.size() < 20) expected.push_back(i);
    }
  }
  for (std::size_t i = 0; i < errors.size(); ++i) {
    EXPECT_EQ(errors[i].sample, expected[i]) << i;
    EXPECT_EQ(errors[i].label, 0);
    EXPECT_EQ(errors[i].predicted, 1);
    EXPECT_EQ(errors[i].probability, 0.6F + 0.05F * static_cast<float>(expected[i] % 7));
  }
}

TEST(Metrics, ReportsShowNamesSafely) {
  const std::vector<std::int32_t> labels = {0, 1};
  const std::vector<std::string> names = {"bad\x1b[2J", "good"};
  const std::string report = format_report(classification_metrics(predicting({0, 1}, 2), labels, 2, 0.5), names);
  EXPECT_EQ(report.find('\x1b'), std::string::npos);
  EXPECT_NE(report.find("good (positive)"), std::string::npos) << report;
  EXPECT_NE(report.find("accuracy 1.0000"), std::string::npos) << report;
}

TEST(Metrics, ThePositiveClassMayBeTheOther) {
  const std::vector<std::int32_t> labels = {0, 0, 1};
  const std::vector<std::string> names = {"bad", "good"};
  ClassificationMetrics m = classification_metrics(predicting({0, 1, 1}, 2), labels, 2, 0.5);
  EXPECT_DOUBLE_EQ(m.positive().precision, 0.5);
  m.positive_class = 0;
  EXPECT_DOUBLE_EQ(m.positive().precision, 1.0);
  EXPECT_DOUBLE_EQ(m.positive().recall, 0.5);
  const std::string report = format_report(m, names);
  EXPECT_NE(report.find("precision 1.0000, recall 0.5000, F1 0.6667 of the positive class \"bad\""), std::string::npos) << report;
  EXPECT_NE(report.find("bad (positive)"), std::string::npos) << report;
}

TEST(Metrics, RefusesWhatDoesNotFit) {
  const std::vector<std::int32_t> labels = {0, 1};
  EXPECT_THROW(classification_metrics(predicting({0}, 2), labels, 2, 0.0), LogicError);
}

}  // namespace
}  // namespace lathe
