#include "lathe/text/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Indices = std::vector<std::int64_t>;

/// A number from 0 to bound-1, each as likely. The standard's distributions differ between libraries; its generators don't.
std::uint64_t draw_below(std::mt19937_64& generator, std::uint64_t bound) {
  // The largest multiple of bound that 64 bits hold, less one; a draw above it would favour small remainders.
  const std::uint64_t last = std::numeric_limits<std::uint64_t>::max() - std::numeric_limits<std::uint64_t>::max() % bound - 1;
  std::uint64_t value = generator();
  while (value > last) value = generator();
  return value % bound;
}

void shuffle(Indices& indices, std::mt19937_64& generator) {
  for (std::size_t i = indices.size(); i > 1; --i) std::swap(indices[i - 1], indices[draw_below(generator, i)]);
}

/// Gives the largest remainders one more each until `total` is reached; of equal ones, the first.
void round_up_largest(Indices& counts, const std::vector<double>& remainders, std::int64_t total) {
  std::vector<std::size_t> order(counts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  std::int64_t left = total - std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  for (std::size_t i = 0; left > 0; ++i, --left) ++counts[order[i]];
}

Indices part_sizes(std::int64_t records, std::span<const double> shares) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  Indices sizes;
  std::vector<double> remainders;
  for (const double share : shares) {
    const double exact = share / sum * static_cast<double>(records);
    // 0.1 * 70 and its like may miss the whole number that is meant by a rounding.
    const double nearest = std::round(exact);
    const double whole = std::abs(exact - nearest) < 1e-6 ? nearest : std::floor(exact);
    sizes.push_back(static_cast<std::int64_t>(whole));
    remainders.push_back(exact - whole);
  }
  round_up_largest(sizes, remainders, records);
  return sizes;
}

/// `total` of the records in `available`, class by class in proportion.
Indices class_shares(const Indices& available, std::int64_t total) {
  const std::int64_t all = std::accumulate(available.begin(), available.end(), std::int64_t{0});
  Indices counts;
  std::vector<double> remainders;
  for (const std::int64_t count : available) {
    counts.push_back(count * total / all);
    remainders.push_back(static_cast<double>(count * total % all));
  }
  round_up_largest(counts, remainders, total);
  return counts;
}

void check_shares(std::span<const double> shares) {
  double sum = 0;
  for (const double share : shares) {
    if (!(share > 0)) throw UsageError(fmt::format("a share of the records must be above 0; found {}", share));
    sum += share;
  }
  if (!(std::abs(sum - 1) < 1e-6)) throw UsageError(fmt::format("the shares of a split must add up to 1; found {}", sum));
}

}  // namespace

std::vector<std::vector<std::int64_t>> stratified_split(std::span<const std::int32_t> labels, std::span<const double> shares,
                                                        std::uint64_t seed) {
  check_shares(shares);
  std::vector<Indices> classes;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) throw LogicError(fmt::format("stratified_split: record {} has the class {}", i, labels[i]));
    const auto id = static_cast<std::size_t>(labels[i]);
    if (id >= classes.size()) classes.resize(id + 1);
    classes[id].push_back(static_cast<std::int64_t>(i));
  }
  std::mt19937_64 generator(seed);
  for (Indices& records : classes) shuffle(records, generator);

  const Indices sizes = part_sizes(static_cast<std::int64_t>(labels.size()), shares);
  std::vector<Indices> parts(shares.size());
  // From the last part to the first: what rounding moves about then lands in the first, usually by far the largest.
  for (std::size_t part = parts.size(); part-- > 0;) {
    if (sizes[part] == 0) {
      throw UsageError(
          fmt::format("{} records are too few to give each part of the split one (shares {}); use larger shares or more records",
                      labels.size(), fmt::join(shares, ", ")));
    }
    Indices available;
    for (const Indices& records : classes) available.push_back(static_cast<std::int64_t>(records.size()));
    const Indices counts = class_shares(available, sizes[part]);
    for (std::size_t id = 0; id < classes.size(); ++id) {
      const auto first = classes[id].end() - counts[id];
      parts[part].insert(parts[part].end(), first, classes[id].end());
      classes[id].erase(first, classes[id].end());
    }
    std::ranges::sort(parts[part]);
  }
  return parts;
}

}  // namespace lathe
