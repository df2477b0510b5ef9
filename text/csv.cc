#include "lathe/text/csv.h"

#include <fmt/core.h>

#include <algorithm>

#include "lathe/runtime/error.h"

namespace lathe {

RowReader::RowReader(LineReader& lines, char separator, Quoting quoting)
    : lines_(&lines), separator_(separator), quoting_(quoting) {}

bool RowReader::next() {
  do {
    if (!lines_->next()) return false;
    if (lines_->line().empty()) ++empty_lines_;
  } while (lines_->line().empty());
  line_ = lines_->number();
  fields_.clear();
  if (quoting_ == Quoting::rfc4180 && lines_->line().find('"') != std::string_view::npos) {
    split_quoted();
  } else {
    split_literal();
  }
  return true;
}

void RowReader::split_literal() {
  const std::string_view line = lines_->line();
  std::size_t start = 0;
  for (;;) {
    const std::size_t stop = std::min(line.find(separator_, start), line.size());
    fields_.push_back(line.substr(start, stop - start));
    check_field_count(fields_.size());
    if (stop == line.size()) return;
    start = stop + 1;
  }
}

void RowReader::split_quoted() {
  unquoted_.clear();
  ends_.clear();
  std::size_t position = 0;
  for (;;) {
    if (position < lines_->line().size() && lines_->line()[position] == '"') {
      position = read_quoted_field(position);
    } else {
      const std::string_view line = lines_->line();
      const std::size_t stop = std::min(line.find(separator_, position), line.size());
      unquoted_.append(line.substr(position, stop - position));
      position = stop;
    }
    ends_.push_back(unquoted_.size());
    check_field_count(ends_.size());
    if (position == lines_->line().size()) break;
    ++position;
  }
  std::size_t start = 0;
  for (const std::size_t stop : ends_) {
    fields_.push_back(std::string_view(unquoted_).substr(start, stop - start));
    start = stop;
  }
}

/// Appends the field whose opening quote is at `position` of the current line; returns where it ends in what is then the current
/// line.
std::size_t RowReader::read_quoted_field(std::size_t position) {
  const std::int64_t opened = lines_->number();
  ++position;
  for (;;) {
    const std::string_view line = lines_->line();
    const std::size_t quote = line.find('"', position);
    if (quote == std::string_view::npos) {
      unquoted_.append(line.substr(position)).append(lines_->terminator());
      if (unquoted_.size() > lines_->max_line_bytes()) {
        fail(line_, fmt::format("the row is longer than {} bytes; is the quote opened in line {} ever closed?",
                                lines_->max_line_bytes(), opened));
      }
      if (!lines_->next()) fail(opened, "the quote opened here is never closed");
      position = 0;
      continue;
    }
    unquoted_.append(line.substr(position, quote - position));
    position = quote + 1;
    if (position == line.size() || line[position] == separator_) return position;
    if (line[position] != '"') {
      fail(lines_->number(), "text after a closing quote; a quote inside a quoted field is written twice");
    }
    unquoted_.push_back('"');
    ++position;
  }
}

bool RowReader::has_lone_carriage_return() const noexcept {
  return lines_->line().find('\r') != std::string_view::npos &&
         (quoting_ == Quoting::none || lines_->line().find('"') == std::string_view::npos);
}

void RowReader::check_field_count(std::size_t count) const {
  if (count > kMaxColumns) fail(line_, fmt::format("more than {} fields in one row", kMaxColumns));
}

void RowReader::fail(std::int64_t line, std::string_view message) const {
  throw FormatError(lines_->name(), fmt::format("line {}", line), message);
}

}  // namespace lathe
