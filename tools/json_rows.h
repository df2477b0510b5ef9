#pragma once
// A JSON object that is written while it grows, so that what was measured isn't lost with what wasn't.
#include <string>
#include <string_view>

#include "tools/line_output.h"

namespace lathe {

/// An object whose last members are a list, a row a line, each written when it is known, and "complete". What is cut off behind a row is whole
/// again with "]}".
class JsonRows {
 public:
  /// `head` is the text of an object with what stands before the list `name`. Nothing is written yet.
  JsonRows(LineOutput& output, const std::string& head, std::string_view name);
  /// Writes a row, the text of a value on one line. False where the reader has gone away.
  bool add(const std::string& row);
  /// Writes the end: whether all rows are there. False where the reader has gone away.
  bool finish(bool complete);

 private:
  LineOutput& output_;
  std::string pending_;  // what stands before the next row
};

}  // namespace lathe
