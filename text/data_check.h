#pragma once
// A look at a data set before it is trained on: labels, repeated texts, texts in two files, lengths.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lathe/text/records.h"
#include "lathe/text/wordpiece.h"

namespace [[gnu::visibility("default")]] lathe {

/// How many rows have which length.
class LengthCounts {
 public:
  void add(std::int64_t length) {
    ++rows_by_length_[length];
    ++rows_;
    total_ += length;
  }
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t total() const noexcept { return total_; }
  std::int64_t longest() const noexcept { return rows_ == 0 ? 0 : rows_by_length_.rbegin()->first; }
  /// The least length that at least `share` (0 to 1) of the rows don't exceed; 0 without rows.
  std::int64_t quantile(double share) const;

  /// What cutting at a length loses.
  struct Cut {
    std::int64_t rows = 0;  ///< that are cut
    std::int64_t lost = 0;  ///< of total()
  };
  Cut cut_at(std::int64_t length) const;

  /// Rows of `first` to `last`.
  struct Bin {
    std::int64_t first = 0, last = 0, rows = 0;
  };
  /// Bins that end at 8, 16, 32, ... from the first that has rows to the last; lengths up to 8 are in one.
  std::vector<Bin> histogram() const;

 private:
  std::map<std::int64_t, std::int64_t> rows_by_length_;
  std::int64_t rows_ = 0;
  std::int64_t total_ = 0;
};

/// 128 bits of a text.
struct TextHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const TextHash&) const = default;
};

/// A hash of a text and its pair that white space doesn't change: none at the ends, one space between words (FNV-1a, 128 bits). A text
/// without a pair and one with an empty pair are the same.
TextHash hash_of_text(std::string_view text, std::string_view pair);

/// Two rows of the same text: the first in a file, and one that comes later or in another file.
struct RepeatedText {
  std::string excerpt;  ///< the front of the text
  std::int64_t first_line = 0;
  std::int64_t line = 0;
  std::string first_label;  ///< empty where there is none
  std::string label;
};

/// Examples of each kind are kept up to this number; all are counted.
inline constexpr std::size_t kMostExamples = 5;

/// What was found in one file.
struct FileCheck {
  RecordReport report;
  std::vector<Records::LabelName> labels;  ///< by first occurrence
  std::int64_t unlabelled = 0;             ///< rows without a label, where there is a label column
  std::int64_t first_unlabelled = 0;       ///< the line of the first of them; 0 for none
  /// Why training would refuse the labels: only one class, what looks like regression, a number written in two ways. Empty where it
  /// wouldn't, and of the file to evaluate on.
  std::string labels_refused;
  std::int64_t empty_texts = 0;  ///< rows whose text, or either text of a pair, is empty or white space
  std::int64_t first_empty_text = 0;

  std::int64_t distinct_texts = 0;
  std::int64_t duplicate_rows = 0;  ///< rows whose text an earlier row has
  std::vector<RepeatedText> duplicates;
  std::int64_t contradictory_rows = 0;  ///< rows whose text an earlier row has first with another label
  std::vector<RepeatedText> contradictions;

  LengthCounts characters, words;      ///< of text and pair together; words are what white space separates
  std::optional<LengthCounts> tokens;  ///< of the whole sequence, special tokens included; where there is a tokenizer
  std::int64_t unknown_tokens = 0;
};

/// What two files have to do with each other.
struct OverlapCheck {
  std::int64_t rows = 0;  ///< of the second file whose text the first has
  std::vector<RepeatedText> examples;
  std::int64_t contradictory_rows = 0;             ///< those of them whose label there is another
  std::vector<Records::LabelName> unknown_labels;  ///< labels of the second file that the first lacks
};

struct DataCheck {
  FileCheck data;
  std::optional<FileCheck> dev;
  std::optional<OverlapCheck> overlap;
};

struct DataCheckOptions {
  RecordOptions records = {};
  std::optional<std::filesystem::path> dev = std::nullopt;
  const WordPieceTokenizer* tokenizer = nullptr;  ///< null: lengths are in characters and words alone
  int threads = 0;                                ///< of the tokenizer; 0: as many as OpenMP would take
};

/// Reads `path`, and the dev file, once. Keeps about a hundred bytes for each distinct text, whatever its length. Labels are optional here.
/// Throws what RecordReader throws.
DataCheck check_data(const std::filesystem::path& path, const DataCheckOptions& options);

}  // namespace lathe
