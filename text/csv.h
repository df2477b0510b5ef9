#pragma once
// Rows of fields: TSV and CSV.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/line_reader.h"

namespace lathe {

/// Fields of a row beyond which it is refused.
inline constexpr std::size_t kMaxColumns = 65'536;

/// Reads TSV, whose fields are literal (no quoting, no escapes), or CSV after RFC 4180: a field that starts with a quote runs to
/// its closing quote, over commas and line ends, and holds a quote as two. Beyond the RFC, LF ends a line too and a quote inside
/// a field that doesn't start with one is literal. Wholly empty lines are skipped and counted.
class RowReader {
 public:
  enum class Quoting { none, rfc4180 };

  /// Reads the rows of `lines`, which must outlive the reader, with fields separated by `separator`.
  RowReader(LineReader& lines, char separator, Quoting quoting);

  /// Goes to the next row; false at the end. FormatError for an unterminated quote (with the line where it opened), text after a
  /// closing quote, a row longer than the lines' limit, or one with more than kMaxColumns fields.
  bool next();
  /// The row's fields, valid until the next call of `next`.
  const std::vector<std::string_view>& fields() const noexcept { return fields_; }
  /// The physical line where the row starts.
  std::int64_t line() const noexcept { return line_; }
  /// Whether a carriage return that ends no line stands outside of quotes: what a file with old Macintosh line ends looks like.
  bool has_lone_carriage_return() const noexcept;
  std::int64_t empty_lines() const noexcept { return empty_lines_; }

 private:
  void split_literal();
  void split_quoted();
  std::size_t read_quoted_field(std::size_t position);
  void check_field_count(std::size_t count) const;
  [[noreturn]] void fail(std::int64_t line, std::string_view message) const;

  LineReader* lines_;
  char separator_;
  Quoting quoting_;
  std::vector<std::string_view> fields_;
  std::vector<std::size_t> ends_;  // of the fields in unquoted_, while a row with quotes is read
  std::string unquoted_;           // the fields of a row with quotes, one after another
  std::int64_t line_ = 0;
  std::int64_t empty_lines_ = 0;
};

}  // namespace lathe
