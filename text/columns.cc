#include "lathe/text/columns.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

#include "lathe/runtime/error.h"
#include "lathe/text/quoted_list.h"

namespace lathe {
namespace {

bool is_number(std::string_view text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos; }

class ColumnChooser {
 public:
  ColumnChooser(std::span<const std::string_view> names, const std::filesystem::path& source, std::int64_t line)
      : names_(names), source_(&source), line_(line) {}

  bool has(std::string_view name) const { return std::find(names_.begin(), names_.end(), name) != names_.end(); }

  std::size_t require(std::string_view name) const {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) fail(fmt::format("no column '{}'; {}", name, what_there_is()));
    if (std::find(found + 1, names_.end(), name) != names_.end()) fail(fmt::format("the column '{}' is there twice", name));
    return static_cast<std::size_t>(found - names_.begin());
  }

  /// The text's column where no option names it; `pair` and `label` are names that it can't have. Columns without a name, such as
  /// the row numbers that data frames write, aren't meant.
  std::size_t default_text(std::string_view pair, std::string_view label) const {
    for (const std::string_view usual : {"text", "sentence"}) {
      if (usual != pair && usual != label && has(usual)) return require(usual);
    }
    std::vector<std::string_view> others;
    std::copy_if(names_.begin(), names_.end(), std::back_inserter(others),
                 [&](std::string_view name) { return !name.empty() && name != label && name != pair; });
    if (others.empty()) fail(fmt::format("no column for the text; {}", what_there_is()));
    if (others.size() > 1) {
      throw UsageError(fmt::format("{}, line {}: which column is the text? None is called 'text' or 'sentence'; name one of {}{}",
                                   source_->string(), line_, quoted_list(others), guess()));
    }
    return require(others.front());
  }

 private:
  std::string what_there_is() const {
    return fmt::format("there {}{}{}", names_.size() == 1 ? "is only " : "are ", quoted_list(names_), guess());
  }
  /// What may be behind names that don't help.
  std::string_view guess() const {
    if (names_.size() == 1 && names_.front().find('\t') != std::string_view::npos) return "; it holds tabs: is the format tsv?";
    // Counted columns are numbers from 1; a header that is in truth a record often holds its label, a number.
    const bool counted = !names_.empty() && names_.front() == "1" && names_.back() == std::to_string(names_.size());
    if (counted) return "; without a header, columns go by their numbers";
    const bool record = std::any_of(names_.begin(), names_.end(), is_number);
    return record ? "; is this a record, in a file without a header?" : "";
  }
  [[noreturn]] void fail(std::string_view message) const { throw FormatError(*source_, fmt::format("line {}", line_), message); }

  std::span<const std::string_view> names_;
  const std::filesystem::path* source_;
  std::int64_t line_;
};

}  // namespace

void check_column_options(const RecordOptions& options) {
  const auto differ = [](std::string_view a, std::string_view a_role, std::string_view b, std::string_view b_role) {
    if (!a.empty() && a == b) throw UsageError(fmt::format("the column '{}' can't be both the {} and the {}", a, a_role, b_role));
  };
  differ(options.text_column, "text", options.pair_column, "pair");
  differ(options.text_column, "text", options.label_column, "label");
  differ(options.pair_column, "pair", options.label_column, "label");
  if (options.label_column.empty() && options.labels == LabelUse::required)
    throw UsageError("labels are needed, but no label column is named");
}

ColumnChoice choose_columns(std::span<const std::string_view> names, const RecordOptions& options,
                            const std::filesystem::path& source, std::int64_t line) {
  const ColumnChooser chooser(names, source, line);
  ColumnChoice choice;
  choice.text = options.text_column.empty() ? chooser.default_text(options.pair_column, options.label_column)
                                            : chooser.require(options.text_column);
  if (!options.pair_column.empty()) choice.pair = chooser.require(options.pair_column);
  if (options.labels == LabelUse::required || (!options.label_column.empty() && chooser.has(options.label_column))) {
    choice.label = chooser.require(options.label_column);
  }
  return choice;
}

void ColumnStatistics::add(std::string_view value) {
  if (values_ == kSample) return;
  ++values_;
  bytes_ += static_cast<std::int64_t>(value.size());
  const bool beyond_ascii = std::any_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  if (beyond_ascii || std::count(value.begin(), value.end(), ' ') >= 2) ++wordy_;
}

bool ColumnStatistics::looks_like_text() const noexcept {
  constexpr std::int64_t kReadableBytes = 20;
  return bytes_ > kReadableBytes * values_ && 2 * wordy_ > values_;
}

}  // namespace lathe
