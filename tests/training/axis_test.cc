#include "lathe/training/axis.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lathe {
namespace {

std::vector<std::string> texts(const Axis& axis) {
  std::vector<std::string> result;
  for (const double tick : axis.ticks()) result.push_back(axis.text(tick));
  return result;
}
using Texts = std::vector<std::string>;

TEST(Axis, TicksAreRound) {
  EXPECT_EQ(texts(round_axis(0.0, 0.71, 6)), (Texts{"0", "0.2", "0.4", "0.6", "0.8"}));
  EXPECT_EQ(texts(round_axis(0.81, 0.84, 6)), (Texts{"0.810", "0.815", "0.820", "0.825", "0.830", "0.835", "0.840"}));
  EXPECT_EQ(texts(round_axis(0.3, 0.6, 3)), (Texts{"0.3", "0.4", "0.5", "0.6"})) << "divisions that don't come out even";
  EXPECT_EQ(texts(round_axis(0.0, 2650.0, 6, Scale::whole)), (Texts{"0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"}));
  EXPECT_EQ(texts(round_axis(0.0, 5e-5, 3)), (Texts{"0", "2e-5", "4e-5", "6e-5"}));
  EXPECT_EQ(texts(round_axis(0.0, 1.5e-5, 3)), (Texts{"0", "5e-6", "1.0e-5", "1.5e-5"}));
  EXPECT_EQ(texts(round_axis(-0.3, 0.3, 6)), (Texts{"-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"}));
  EXPECT_EQ(texts(round_axis(0.0, 3e30, 3)), (Texts{"0", "1e30", "2e30", "3e30"}));
}

TEST(Axis, WholeScalesHaveNoHalves) {
  EXPECT_EQ(texts(round_axis(0.0, 1.0, 10, Scale::whole)), (Texts{"0", "1"}));
  EXPECT_EQ(texts(round_axis(0.0, 3.0, 10, Scale::whole)), (Texts{"0", "1", "2", "3"}));
}

TEST(Axis, AnEmptyRangeIsWidened) {
  EXPECT_EQ(texts(round_axis(0.0, 0.0, 2)), (Texts{"0", "0.5", "1.0"}));
  const Axis axis = round_axis(0.7, 0.7, 6);
  EXPECT_LT(axis.low, 0.7);
  EXPECT_GT(axis.high, 0.7);
}

TEST(Axis, HoldsEveryRangeInFewSteps) {
  for (double low = -1e6; low < 1e6; low = low < -1e-6 ? low / 7 : low < 1e-6 ? 1e-6 : low * 7) {
    for (double span = 1e-8; span < 1e12; span *= 3.7) {
      if (span < 1e-9 * std::abs(low)) continue;  // the values are floats: they differ by more, or not at all
      for (const int most : {2, 3, 6, 10}) {
        const Axis axis = round_axis(low, low + span, most);
        const double slack = 1e-8 * axis.step;
        EXPECT_LE(axis.low, low + slack);
        EXPECT_GE(axis.high, low + span - slack);
        EXPECT_LE(std::lround((axis.high - axis.low) / axis.step), most) << low << " " << span;
        EXPECT_LT(axis.high - axis.low, 20.0 * span) << low << " " << span << ": a range lost in its axis";
        EXPECT_EQ(axis.ticks().size(), static_cast<std::size_t>(std::lround((axis.high - axis.low) / axis.step)) + 1);
        EXPECT_GT(axis.ticks()[1], axis.ticks()[0]);
      }
    }
  }
}

}  // namespace
}  // namespace lathe
