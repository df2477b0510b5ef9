#include "lathe/text/jsonl.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/csv.h"
#include "lathe/text/utf8.h"

namespace lathe {
namespace {

constexpr int kMaxDepth = 64;

/// Takes the events of nlohmann's parser; keeps the members of the outermost object and only walks through what is nested in
/// them. Returning false stops the parser; `failure` then says why.
class MemberCollector {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit MemberCollector(std::vector<JsonField>& members) : members_(&members) {}

  bool null() { return scalar(JsonField::Kind::null, {}); }
  bool boolean(bool value) { return scalar(JsonField::Kind::boolean, value ? "true" : "false"); }
  bool number_integer(number_integer_t value) { return scalar(JsonField::Kind::number, fmt::format("{}", value)); }
  bool number_unsigned(number_unsigned_t value) { return scalar(JsonField::Kind::number, fmt::format("{}", value)); }
  bool number_float(number_float_t, const string_t& digits) { return scalar(JsonField::Kind::number, digits); }
  bool string(string_t& value) { return scalar(JsonField::Kind::string, std::move(value)); }
  bool binary(binary_t&) { return fail("binary values don't exist in JSON"); }
  bool key(string_t& name) {
    if (depth_ > 1) return true;
    if (used_ == kMaxColumns) return fail(fmt::format("more than {} members in one object", kMaxColumns));
    if (used_ == members_->size()) members_->emplace_back();
    (*members_)[used_++].key = std::move(name);
    return true;
  }
  bool start_object(std::size_t) { return open(JsonField::Kind::object); }
  bool start_array(std::size_t) { return open(JsonField::Kind::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(std::size_t position, const std::string& last_token, const nlohmann::json::exception& error) {
    // The message without its preface, which counts lines and columns inside this line, and without what was read, which may be
    // long.
    std::string_view message = error.what();
    for (const std::string_view preface : {"] ", ": "}) {
      const std::size_t found = message.find(preface);
      if (found != std::string_view::npos) message.remove_prefix(found + preface.size());
    }
    message = message.substr(0, message.find("; last read:"));
    const bool cut_short = message.find("unexpected end of input") != std::string_view::npos;
    return fail(fmt::format("not valid JSON at byte {}: {}{}", position, utf8_prefix(message, kMaxQuoted),
                            cut_short ? "; an object must end in the line where it starts"
                                      : fmt::format(" (last read '{}')", utf8_prefix(last_token, kMaxQuoted))));
  }

  std::size_t used() const noexcept { return used_; }
  const std::string& failure() const noexcept { return failure_; }

 private:
  static constexpr std::size_t kMaxQuoted = 60;

  bool fail(std::string message) {
    failure_ = std::move(message);
    return false;
  }
  bool value_of_member(JsonField::Kind kind) {
    if (depth_ == 0) {
      return fail(fmt::format(R"(found {}; JSON lines hold one object a line, such as {{"text": "..."}})", json_kind_name(kind)));
    }
    if (depth_ == 1) (*members_)[used_ - 1].kind = kind;
    return true;
  }
  bool scalar(JsonField::Kind kind, std::string value) {
    if (!value_of_member(kind)) return false;
    if (depth_ == 1) (*members_)[used_ - 1].value = std::move(value);
    return true;
  }
  bool open(JsonField::Kind kind) {
    const bool outermost = depth_ == 0 && kind == JsonField::Kind::object;
    if (!outermost && !value_of_member(kind)) return false;
    if (depth_ == 1) (*members_)[used_ - 1].value.clear();
    if (depth_ == kMaxDepth) return fail(fmt::format("nested deeper than {} levels", kMaxDepth));
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  std::vector<JsonField>* members_;
  std::size_t used_ = 0;
  int depth_ = 0;
  std::string failure_;
};

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

std::string_view json_kind_name(JsonField::Kind kind) noexcept {
  switch (kind) {
    case JsonField::Kind::string:
      return "a string";
    case JsonField::Kind::number:
      return "a number";
    case JsonField::Kind::boolean:
      return "true or false";
    case JsonField::Kind::null:
      return "null";
    case JsonField::Kind::array:
      return "an array";
    case JsonField::Kind::object:
      return "an object";
  }
  return "nothing";
}

JsonLineReader::JsonLineReader(LineReader& lines) : lines_(&lines) {}

bool JsonLineReader::next() {
  do {
    if (!lines_->next()) return false;
    if (is_blank(lines_->line())) ++empty_lines_;
  } while (is_blank(lines_->line()));
  std::string_view line = lines_->line();
  std::string repaired;
  was_repaired_ = !is_valid_utf8(line);
  if (was_repaired_) line = repaired = repair_utf8(line);
  // The parser takes a NUL for the end of its input and would let pass whatever follows one.
  const std::size_t nul = line.find('\0');
  if (nul != std::string_view::npos) {
    throw FormatError(lines_->name(), fmt::format("line {}", lines_->number()),
                      fmt::format("not valid JSON at byte {}: a NUL byte; JSON writes it as \\u0000", nul + 1));
  }
  MemberCollector collector(members_);
  if (!nlohmann::json::sax_parse(line.begin(), line.end(), &collector)) {
    throw FormatError(lines_->name(), fmt::format("line {}", lines_->number()), collector.failure());
  }
  members_.resize(collector.used());
  return true;
}

}  // namespace lathe
