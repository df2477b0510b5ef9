#pragma once
// How long the sequences of a measured step are.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::bench {

/// A distribution of lengths in tokens, [CLS] and [SEP] included, by some of its quantiles.
struct LengthDistribution {
  struct Quantile {
    double share = 0.0;  ///< of sequences that aren't longer
    std::int64_t length = 0;
  };
  std::string name;
  std::vector<Quantile> quantiles;  ///< from 0 to 1

  /// The length that `share` of the sequences don't exceed: linear between the quantiles, rounded down.
  std::int64_t at(double share) const;
  /// `count` lengths: those at the middle of each of `count` equal shares, so that none is left to chance, from the shortest on.
  std::vector<std::int64_t> draw(std::int64_t count) const;
  /// Lengths with so many tokens together: as many as the mean makes of them, without the shortest where that is too much, and one of what is left.
  std::vector<std::int64_t> fill(std::int64_t tokens) const;
  /// Mean of many.
  double mean() const;
  /// The same, cut.
  LengthDistribution cut(std::int64_t longest) const;
};

/// The shortest sequence: [CLS], a word, [SEP].
inline constexpr std::int64_t kShortestSequence = 3;

/// All sequences of one length: "fixed:128".
LengthDistribution fixed_lengths(std::int64_t length);
/// SST-2's training data (GLUE; 67,349 phrases and sentences), tokens of bert-base-uncased's vocabulary: mean 13.3.
LengthDistribution sst2_lengths();
/// 153 articles of the English Wikipedia, each of the 8,355 lines (a heading or a paragraph) a text, tokens of bert-base-uncased's vocabulary, cut to 512: mean
/// 105.8.
LengthDistribution wiki_lengths();
/// Of a file with a length a line. Throws FileError, and FormatError, with the line, for what isn't a number from 3 to a million.
LengthDistribution read_lengths(const std::filesystem::path& path);

/// "fixed:N", "sst2" or "wiki". Throws UsageError.
LengthDistribution parse_lengths(std::string_view text);

}  // namespace lathe::bench
