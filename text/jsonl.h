#pragma once
// JSON lines: one object a line.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/line_reader.h"

namespace lathe {

/// A member of a line's object.
struct JsonField {
  enum class Kind { string, number, boolean, null, array, object };
  std::string key;
  /// A string's contents; a number's digits, those beyond 64 bits and fractions as they stand in the file; true or false. Else
  /// empty.
  std::string value;
  Kind kind = Kind::null;
};

/// "a string", "a number", ... for messages.
std::string_view json_kind_name(JsonField::Kind kind) noexcept;

/// Reads one object a line. Lines of nothing but white space are skipped and counted. Bytes that aren't UTF-8, which JSON
/// forbids, are replaced by U+FFFD before parsing, so that one damaged record doesn't cost the file.
class JsonLineReader {
 public:
  /// Reads from `lines`, which must outlive the reader.
  explicit JsonLineReader(LineReader& lines);

  /// Goes to the next object; false at the end. FormatError where a line isn't exactly one object, nests deeper than 64 levels,
  /// or has more than kMaxColumns members.
  bool next();
  /// The object's members in the line's order, repeated keys included; valid until the next call of `next`.
  const std::vector<JsonField>& members() const noexcept { return members_; }
  std::int64_t line() const noexcept { return lines_->number(); }
  /// Whether the line had bytes that aren't UTF-8.
  bool was_repaired() const noexcept { return was_repaired_; }
  std::int64_t empty_lines() const noexcept { return empty_lines_; }

 private:
  LineReader* lines_;
  std::vector<JsonField> members_;
  bool was_repaired_ = false;
  std::int64_t empty_lines_ = 0;
};

}  // namespace lathe
