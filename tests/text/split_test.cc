#include "lathe/text/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using test::message_of;
using Ids = std::vector<std::int32_t>;
using Parts = std::vector<std::vector<std::int64_t>>;
using Shares = std::vector<double>;

/// `counts[c]` records of each class c, mixed.
Ids mixed_labels(const std::vector<std::int64_t>& counts) {
  Ids labels;
  for (bool more = true; more;) {
    more = false;
    for (std::size_t id = 0; id < counts.size(); ++id) {
      const auto there = std::count(labels.begin(), labels.end(), static_cast<std::int32_t>(id));
      if (there == counts[id]) continue;
      labels.push_back(static_cast<std::int32_t>(id));
      more = true;
    }
  }
  return labels;
}

std::int64_t count_in(const std::vector<std::int64_t>& part, const Ids& labels, std::int32_t id) {
  return std::count_if(part.begin(), part.end(), [&](std::int64_t i) { return labels[static_cast<std::size_t>(i)] == id; });
}

TEST(Split, GivesEachPartItsSizeAndEachClassItsShare) {
  for (const std::vector<std::int64_t>& counts :
       {std::vector<std::int64_t>{500, 500}, {900, 100}, {333, 334, 335}, {7, 900, 13, 80}, {30, 30, 30, 30, 30}}) {
    const Ids labels = mixed_labels(counts);
    const auto all = static_cast<double>(labels.size());
    for (const Shares& shares : {Shares{0.9, 0.1}, Shares{0.8, 0.1, 0.1}, Shares{0.5, 0.25, 0.25}, Shares{1.0}}) {
      const Parts parts = stratified_split(labels, shares, 42);
      ASSERT_EQ(parts.size(), shares.size());
      std::set<std::int64_t> seen;
      for (std::size_t k = 0; k < parts.size(); ++k) {
        EXPECT_LT(std::abs(static_cast<double>(parts[k].size()) - shares[k] * all), 1.0);
        EXPECT_TRUE(std::is_sorted(parts[k].begin(), parts[k].end()));
        seen.insert(parts[k].begin(), parts[k].end());
        for (std::size_t id = 0; id < counts.size(); ++id) {
          const double exact = static_cast<double>(parts[k].size()) / all * static_cast<double>(counts[id]);
          const auto found = static_cast<double>(count_in(parts[k], labels, static_cast<std::int32_t>(id)));
          // Rounded once for two parts; for a third, what is left to share is itself rounded.
          EXPECT_LT(std::abs(found - exact), shares.size() <= 2 ? 1.0 : 2.0) << "class " << id << ", part " << k;
        }
      }
      EXPECT_EQ(seen.size(), labels.size()) << "each record is in one part";
      const std::size_t total = std::accumulate(parts.begin(), parts.end(), std::size_t{0},
                                                [](std::size_t n, const auto& part) { return n + part.size(); });
      EXPECT_EQ(total, labels.size());
    }
  }
}

TEST(Split, ManySmallClassesStillFillTheSmallPart) {
  Ids labels;
  for (std::int32_t i = 0; i < 400; ++i) labels.push_back(i / 4);  // 100 classes of 4
  const Parts parts = stratified_split(labels, Shares{0.9, 0.1}, 1);
  EXPECT_EQ(parts[1].size(), 40U);
  for (std::int32_t id = 0; id < 100; ++id) EXPECT_LE(count_in(parts[1], labels, id), 1);
}

TEST(Split, DependsOnTheSeedAlone) {
  const Ids labels = mixed_labels({300, 200});
  const Shares shares = {0.9, 0.1};
  EXPECT_EQ(stratified_split(labels, shares, 7), stratified_split(labels, shares, 7));
  EXPECT_NE(stratified_split(labels, shares, 7), stratified_split(labels, shares, 8));
}

// A run's dev set must not change under a later build. Expected: the same rule written once more in Python, MT19937-64 included.
TEST(Split, IsTheSameForEver) {
  const Ids labels = mixed_labels({12, 8});
  EXPECT_EQ(stratified_split(labels, Shares{0.7, 0.3}, 42)[1], (std::vector<std::int64_t>{0, 7, 12, 13, 18, 19}));
}

TEST(Split, EachRecordIsAsLikelyAsAnyOther) {
  const Ids labels = mixed_labels({12, 8});
  constexpr int kDraws = 4000;
  std::vector<int> taken(labels.size());
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    const Parts parts = stratified_split(labels, Shares{0.75, 0.25}, seed);
    for (const std::int64_t i : parts[1]) ++taken[static_cast<std::size_t>(i)];
  }
  // Each count is binomial(4000, 1/4): deviation 27.4; beyond five of them once in 2 million.
  for (const int count : taken) EXPECT_NEAR(count, kDraws * 0.25, 137);
}

TEST(Split, RefusesSharesThatMakeNoSense) {
  const Ids labels = mixed_labels({30, 20});
  for (const Shares& shares :
       {Shares{1.5, -0.5}, Shares{1.0, 0.0}, Shares{0.5, 0.4}, Shares{0.5, 0.6}, Shares{}, Shares{std::nan(""), 1.0}}) {
    EXPECT_THROW(stratified_split(labels, shares, 1), UsageError);
  }
  EXPECT_EQ(message_of<UsageError>([] {
              stratified_split(Ids{0, 1, 0}, Shares{0.9, 0.1}, 1);
            }),
            "3 records are too few to give each part of the split one (shares 0.9, 0.1); use larger shares or more records");
  EXPECT_THROW(stratified_split(Ids{}, Shares{0.9, 0.1}, 1), UsageError);
  EXPECT_THROW(stratified_split(Ids{0, -1}, Shares{0.5, 0.5}, 1), LogicError);
}

}  // namespace
}  // namespace lathe
