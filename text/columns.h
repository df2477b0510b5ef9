#pragma once
// Which columns of a data set are used, and which of the others might have been meant.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/records.h"

namespace lathe {

/// Indices of the columns used.
struct ColumnChoice {
  std::size_t text = 0;
  std::optional<std::size_t> pair, label;
};

/// UsageError where one column is asked to be two things.
void check_column_options(const RecordOptions& options);

/// Chooses among the columns `names`, which stand in `line` of `source`. FormatError where a column isn't there or is there
/// twice; UsageError where several could be the text.
ColumnChoice choose_columns(std::span<const std::string_view> names, const RecordOptions& options,
                            const std::filesystem::path& source, std::int64_t line);

/// Looks at the first values of a column that isn't used.
class ColumnStatistics {
 public:
  /// Values beyond this many tell nothing new.
  static constexpr std::int64_t kSample = 1000;

  void add(std::string_view value);
  /// See IgnoredColumn.
  bool looks_like_text() const noexcept;

 private:
  std::int64_t values_ = 0, bytes_ = 0, wordy_ = 0;
};

}  // namespace lathe
