#include "lathe/runtime/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

namespace lathe {
namespace {

TEST(Random, PermutationsHoldEveryNumberOnceAndDependOnTheirKeys) {
  const auto order = RandomNumbers(1, RandomUse::shuffle, 0).permutation(1000);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int32_t i = 0; i < 1000; ++i) ASSERT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(order, RandomNumbers(1, RandomUse::shuffle, 0).permutation(1000));
  EXPECT_NE(order, RandomNumbers(2, RandomUse::shuffle, 0).permutation(1000));
  EXPECT_NE(order, RandomNumbers(1, RandomUse::shuffle, 1).permutation(1000));
  EXPECT_NE(order, RandomNumbers(1, RandomUse::split, 0).permutation(1000));
  EXPECT_TRUE(RandomNumbers(1, RandomUse::shuffle, 0).permutation(0).empty());
}

TEST(Random, PermutationsAreUniform) {
  // 3! orders, 6,000 draws: each count is binomial with mean 1,000 and deviation 28.9; five deviations.
  std::map<std::vector<std::int32_t>, int> counts;
  for (std::uint32_t i = 0; i < 6000; ++i) {
    ++counts[RandomNumbers(7, RandomUse::shuffle, i).permutation(3)];
  }
  EXPECT_EQ(counts.size(), 6U);
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 145) << order[0] << order[1] << order[2];
}

TEST(Random, NormalsHaveTheirMoments) {
  const RandomNumbers random(3, RandomUse::initial_weights, stream_of("classifier.weight"));
  constexpr std::uint64_t kCount = 100000;
  double sum = 0.0;
  double squares = 0.0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double x = random.normal(i);
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 5.0 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0, 5.0 * std::sqrt(2.0 / kCount));
  EXPECT_NE(stream_of("classifier.weight"), stream_of("pooler.dense.weight"));
}

}  // namespace
}  // namespace lathe
