#include "lathe/training/curves.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "tests/training/markup.h"

namespace lathe {
namespace {

/// A run as runs are: falling loss with noise, a rate that rises and falls, an evaluation every `steps_per_epoch` steps.
Curves a_run(int steps, int steps_per_epoch) {
  Curves curves{.f1_name = "F1 of “good”", .steps_per_epoch = steps_per_epoch, .steps = {}, .evaluations = {}};
  for (int step = 1; step <= steps; ++step) {
    const double share = static_cast<double>(step) / steps;
    curves.steps.push_back({.step = step,
                            .loss = 0.2 + 0.5 * std::exp(-4.0 * share) + 0.1 * std::sin(12.9898 * step),
                            .learning_rate = 5e-5 * std::min(10.0 * share, (1.0 - share) / 0.9)});
    if (step % steps_per_epoch == 0) {
      curves.evaluations.push_back(
          {.step = step, .loss = 0.4 + 0.1 * share, .accuracy = 0.8 + 0.05 * share, .f1 = 0.79 + 0.05 * share, .best = true});
    }
  }
  return curves;
}

/// The points of the polylines of exactly this kind.
std::vector<std::vector<std::pair<double, double>>> lines(const std::string& svg, const std::string& kind) {
  std::vector<std::vector<std::pair<double, double>>> result;
  const std::string start = "<polyline class=\"" + kind + "\" points=\"";
  for (std::size_t at = svg.find(start); at != std::string::npos; at = svg.find(start, at + 1)) {
    std::istringstream list(svg.substr(at + start.size(), svg.find('"', at + start.size()) - at - start.size()));
    std::vector<std::pair<double, double>> points;
    double x = 0.0;
    double y = 0.0;
    char comma = 0;
    while (list >> x >> comma >> y) points.emplace_back(x, y);
    result.push_back(points);
  }
  return result;
}

void expect_sound(const std::string& svg) {
  EXPECT_EQ(markup_fault(svg), "");
  for (const char* word : {"nan", "inf", "<script", "http://www.w3.org/1999/xlink", "url("})
    EXPECT_EQ(svg.find(word), std::string::npos) << word;
  EXPECT_EQ(count_of(svg, "http"), 1U) << "the name space, and nothing to load";
}

TEST(CurvesSvg, ShowsAllThatWasMeasured) {
  const std::string svg = curves_svg(a_run(300, 100));
  expect_sound(svg);
  for (const char* text : {">Loss<", ">Dev split<", ">Learning rate<", ">step<", ">accuracy<", ">F1 of “good”<", ">dev<",
                           ">the best, 0.8500 at step 300<", ">end of an epoch<", ">0.2<", ">2e-5<", ">100<", ">300<",
                           "<title>accuracy 0.8333 at step 200</title>", "prefers-color-scheme: dark"})
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  ASSERT_EQ(lines(svg, "train faint").size(), 1U);
  EXPECT_EQ(lines(svg, "train faint")[0].size(), 300U);
  EXPECT_EQ(lines(svg, "train").size(), 1U);
  EXPECT_EQ(lines(svg, "dev")[0].size(), 3U);
  EXPECT_EQ(lines(svg, "rate")[0].size(), 300U);
  EXPECT_EQ(count_of(svg, "<circle class=\"best\""), 2U) << "the best point and the legend's";
  EXPECT_EQ(count_of(svg, "<line class=\"epoch\""), 3U * 3U + 1U) << "three ends of epochs in each panel, and the legend's";
  EXPECT_EQ(svg, curves_svg(a_run(300, 100)));
}

TEST(CurvesSvg, PointsAreWhereTheirValuesAre) {
  Curves curves;
  curves.steps = {{.step = 1, .loss = 0.8, .learning_rate = 0.0},
                  {.step = 3, .loss = 0.4, .learning_rate = 1.0},
                  {.step = 5, .loss = 0.0, .learning_rate = 0.0}};
  const std::string svg = curves_svg(curves);
  const auto line = lines(svg, "train").at(0);
  // x: steps 0 to 5 over 60 to 742; y: loss 0 at the bottom, 0.8 at the top of 200 pixels.
  EXPECT_NEAR(line[0].first, 60.0 + 682.0 / 5, 0.05);
  EXPECT_NEAR(line[2].first, 742.0, 0.05);
  EXPECT_NEAR(line[2].second - line[0].second, 200.0, 0.1);
  EXPECT_NEAR(line[1].second - line[0].second, 100.0, 0.1);
  EXPECT_EQ(lines(svg, "train faint").size(), 0U) << "too few for a mean";
}

TEST(CurvesSvg, TheMeanIsOfTheNeighbours) {
  Curves curves;
  for (int i = 1; i <= 20; ++i) curves.steps.push_back({.step = i, .loss = i % 2 == 0 ? 1.0 : 0.0, .learning_rate = 1e-5});
  const auto raw = lines(curves_svg(curves), "train faint").at(0);
  const auto mean = lines(curves_svg(curves), "train").at(0);
  ASSERT_EQ(mean.size(), 20U);
  const double unit = raw[1].second - raw[0].second;
  EXPECT_NEAR(mean[0].second, raw[0].second + unit / 3.0, 0.11) << "of the three that there are";
  // Of five values around a 1 (step 10) three are 1: 0.6 of the way from 0 to 1.
  EXPECT_NEAR(mean[9].second, raw[0].second + 0.6 * unit, 0.11);
}

TEST(CurvesSvg, OneStepOrNoneIsAPictureToo) {
  Curves curves;
  expect_sound(curves_svg(curves));
  curves.steps = {{.step = 1, .loss = 0.7, .learning_rate = 0.0}};
  const std::string svg = curves_svg(curves);
  expect_sound(svg);
  EXPECT_EQ(svg.find("Dev split"), std::string::npos) << "nothing was evaluated";
  EXPECT_EQ(count_of(svg, "<circle class=\"train\""), 1U);
  EXPECT_EQ(count_of(svg, "<circle class=\"rate\""), 1U);
  curves.evaluations = {{.step = 1, .loss = 0.7, .accuracy = 1.0, .f1 = 1.0, .best = true}};
  expect_sound(curves_svg(curves));
  EXPECT_NE(curves_svg(curves).find("Dev split"), std::string::npos);
}

TEST(CurvesSvg, ThousandsOfStepsKeepTheirPeaksAndStaySmall) {
  Curves curves = a_run(100000, 1000);
  curves.steps[54321].loss = 5.0;
  const std::string svg = curves_svg(curves);
  expect_sound(svg);
  EXPECT_LT(svg.size(), 60000U);
  EXPECT_EQ(count_of(svg, "<circle class=\"dev\""), 0U) << "a hundred evaluations are a line";
  EXPECT_LE(count_of(svg, "<line class=\"epoch\""), 12U * 3U + 1U);
  EXPECT_NE(svg.find("end of every 10 epochs"), std::string::npos);
  const auto line = lines(svg, "train faint").at(0);
  EXPECT_LE(line.size(), 700U);
  EXPECT_TRUE(std::is_sorted(line.begin(), line.end(), [](const auto& a, const auto& b) { return a.first < b.first; }));
  const auto top = std::min_element(line.begin(), line.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  EXPECT_NEAR(top->first, 60.0 + 682.0 * 54322 / 100000, 0.1);
  EXPECT_NEAR(top->second, 40.0, 0.1) << "5.0 is the top of the axis";
}

TEST(CurvesSvg, WhatIsNoNumberIsNotDrawn) {
  Curves curves = a_run(40, 10);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  curves.steps[3].loss = nan;
  curves.steps[4].learning_rate = -infinity;
  curves.steps[7].loss = infinity;
  curves.steps[9].loss = -1e308;
  curves.steps[10].loss = 1e308;
  curves.evaluations[1] = {.step = 20, .loss = nan, .accuracy = nan, .f1 = nan, .best = false};
  curves.evaluations[3] = {.step = 40, .loss = infinity, .accuracy = nan, .f1 = infinity, .best = true};
  const std::string svg = curves_svg(curves);
  expect_sound(svg);
  EXPECT_EQ(lines(svg, "train faint").at(0).size(), 36U);
  EXPECT_EQ(lines(svg, "dev").at(0).size(), 2U);
  // Large numbers are numbers.
  curves = a_run(40, 10);
  for (StepPoint& p : curves.steps) p.loss *= 1e30;
  expect_sound(curves_svg(curves));
}

TEST(CurvesSvg, NamesMayHoldAnything) {
  Curves curves = a_run(40, 10);
  curves.f1_name = "F1 of “</text><script>alert(1)</script>\x1b\xff” " + std::string(5000, 'x');
  const std::string svg = curves_svg(curves);
  expect_sound(svg);
  EXPECT_NE(svg.find("&lt;/text&gt;&lt;script&gt;"), std::string::npos);
  EXPECT_LT(svg.size(), 30000U);
}

TEST(Curves, WithoutAccuracyThereIsTheLossAlone) {
  // As pre-training has it.
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  Curves curves;
  curves.steps = {{.step = 1, .loss = 10.0, .learning_rate = 0.1}, {.step = 20, .loss = 7.0, .learning_rate = 0.0}};
  curves.evaluations = {{.step = 10, .loss = 8.0, .accuracy = kNone, .f1 = kNone, .best = false},
                        {.step = 20, .loss = 7.5, .accuracy = kNone, .f1 = kNone, .best = false}};
  const std::string svg = curves_svg(curves);
  EXPECT_EQ(markup_fault(svg), "");
  EXPECT_NE(svg.find("dev loss 7.5 at step 20"), std::string::npos);
  EXPECT_NE(svg.find("Training loss, dev loss and learning rate over steps."), std::string::npos);
  EXPECT_EQ(svg.find("accuracy<"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace lathe
