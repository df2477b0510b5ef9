#include "benchmarks/lengths.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <numeric>

#include "lathe/runtime/error.h"

namespace lathe::bench {
namespace {

constexpr std::int64_t kLongest = 1'000'000;

/// 0 where `text` is no number from 3 to a million.
std::int64_t length_of(std::string_view text) {
  std::int64_t length = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool whole = failure == std::errc() && end == text.data() + text.size();
  return whole && length >= kShortestSequence && length <= kLongest ? length : 0;
}

/// Quantiles as the tables below were measured.
LengthDistribution of_table(std::string name, const std::vector<std::int64_t>& lengths) {
  constexpr std::array kShares = {0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0};
  LengthDistribution made{.name = std::move(name), .quantiles = {}};
  for (std::size_t i = 0; i < kShares.size(); ++i) made.quantiles.push_back({.share = kShares.at(i), .length = lengths.at(i)});
  return made;
}

}  // namespace

std::int64_t LengthDistribution::at(double share) const {
  const auto above = std::ranges::lower_bound(quantiles, share, {}, &Quantile::share);
  if (above == quantiles.end()) return quantiles.back().length;
  if (above == quantiles.begin()) return above->length;
  const Quantile& below = *(above - 1);
  const double part = (share - below.share) / (above->share - below.share);
  return below.length + static_cast<std::int64_t>(part * static_cast<double>(above->length - below.length));
}

std::vector<std::int64_t> LengthDistribution::draw(std::int64_t count) const {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < count; ++i) lengths.push_back(at((static_cast<double>(i) + 0.5) / static_cast<double>(count)));
  return lengths;
}

std::vector<std::int64_t> LengthDistribution::fill(std::int64_t tokens) const {
  std::vector<std::int64_t> lengths =
      draw(std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(tokens) / mean())));
  std::int64_t left = tokens - std::reduce(lengths.begin(), lengths.end());
  auto first = lengths.begin();
  for (; left < 0; ++first) left += *first;
  lengths.erase(lengths.begin(), first);
  if (left > 0) lengths.push_back(left);
  return lengths;
}

double LengthDistribution::mean() const {
  constexpr std::int64_t kMany = 10'000;
  double sum = 0.0;
  for (const std::int64_t length : draw(kMany)) sum += static_cast<double>(length);
  return sum / kMany;
}

LengthDistribution LengthDistribution::cut(std::int64_t longest) const {
  LengthDistribution shorter = *this;
  for (Quantile& quantile : shorter.quantiles) quantile.length = std::min(quantile.length, longest);
  return shorter;
}

LengthDistribution fixed_lengths(std::int64_t length) {
  return {.name = fmt::format("fixed:{}", length),
          .quantiles = {{.share = 0.0, .length = length}, {.share = 1.0, .length = length}}};
}

LengthDistribution sst2_lengths() { return of_table("sst2", {3, 4, 4, 6, 7, 8, 10, 13, 16, 20, 27, 33, 44, 66}); }

LengthDistribution wiki_lengths() { return of_table("wiki", {3, 13, 26, 47, 65, 80, 95, 112, 130, 157, 197, 234, 323, 512}); }

LengthDistribution read_lengths(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw FileError(path, "cannot be opened");
  std::vector<std::int64_t> lengths;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    const std::int64_t length = length_of(line);
    if (length == 0)
      throw FormatError(path, fmt::format("line {}", number),
                        fmt::format("a length in tokens was expected, {} to {}", kShortestSequence, kLongest));
    lengths.push_back(length);
  }
  if (lengths.empty()) throw FormatError(path, "line 1", "the file is empty, expected a length a line");
  std::ranges::sort(lengths);
  LengthDistribution made{.name = path.filename().string(), .quantiles = {}};
  constexpr int kParts = 200;
  for (int i = 0; i <= kParts; ++i) {
    const double share = static_cast<double>(i) / kParts;
    made.quantiles.push_back(
        {.share = share,
         .length = lengths[static_cast<std::size_t>(std::lround(share * static_cast<double>(lengths.size() - 1)))]});
  }
  return made;
}

LengthDistribution parse_lengths(std::string_view text) {
  constexpr std::string_view kFixed = "fixed:";
  if (text == "sst2") return sst2_lengths();
  if (text == "wiki") return wiki_lengths();
  const std::int64_t length = text.starts_with(kFixed) ? length_of(text.substr(kFixed.size())) : 0;
  if (length == 0)
    throw UsageError(fmt::format("--lengths {} is none of fixed:N, such as fixed:128, from {} on, real, sst2 and wiki",
                                 printable(text), kShortestSequence));
  return fixed_lengths(length);
}

}  // namespace lathe::bench
