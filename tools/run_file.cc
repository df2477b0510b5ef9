#include "tools/run_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <span>

#include "lathe/checkpoint/input_file.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"
#include "lathe/text/utf8.h"

// Settings are flat; the parser recurses over what is nested.
#define TOML_MAX_NESTED_VALUES 16
#define TOML_ENABLE_FORMATTERS 0
// Some of the parser's assertions don't hold for every input ("[" before a byte that begins no key, in 3.3.0), and with NDEBUG they
// become promises to clang's optimizer. The code behind them refuses such input: they are left out in every build.
#undef NDEBUG
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

namespace lathe {
namespace {

/// A TOML basic string.
std::string basic_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : repair_utf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result.append({'\\', c});
    } else if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\u{:04X}", byte);
    } else {
      result.push_back(c);
    }
  }
  return result + "\"";
}

std::string toml_key(const std::string& key) {
  constexpr std::string_view kBare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return !key.empty() && key.find_first_not_of(kBare) == std::string::npos ? key : basic_string(key);
}

std::string toml_value(const RunValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return basic_string(*text);
  const auto* list = std::get_if<std::vector<std::string>>(&value);
  if (list == nullptr) return to_text(value);
  std::string texts;
  for (const std::string& text : *list) texts += (texts.empty() ? "" : ", ") + basic_string(text);
  return "[" + texts + "]";
}

[[noreturn]] void refuse(const std::filesystem::path& path, const toml::source_region& where, std::string_view message) {
  throw FormatError(path, fmt::format("line {}", where.begin.line), message);
}

/// The value of `key`, whose kind must be one that a setting can have.
RunValue value_of(const std::filesystem::path& path, const toml::key& key, const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* whole = node.as_integer()) return whole->get();
  if (const auto* real = node.as_floating_point()) return real->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  const auto* list = node.as_array();
  if (list != nullptr && list->is_homogeneous(toml::node_type::string)) {
    std::vector<std::string> texts;
    for (const toml::node& text : *list) texts.push_back(text.as_string()->get());
    return texts;
  }
  const std::string_view kind = node.is_array() ? "a list" : node.is_table() ? "a table" : "a date or time";
  refuse(path, key.source(),
         fmt::format("'{}' is {}; a setting is text, a number, true or false", utf8_prefix(key.str(), 40), kind));
}

/// The end of the string that begins at `line[begin]` with a quote, behind its closing quote; npos where it has none.
std::size_t end_of_string(std::string_view line, std::size_t begin) {
  const char quote = line[begin];
  std::size_t at = begin + 1;
  while (at < line.size() && line[at] != quote) at += quote == '"' && line[at] == '\\' ? 2 : 1;
  return at < line.size() ? at + 1 : std::string_view::npos;
}

/// Why a line can't be a setting, a section or a comment, or nothing. Each is on a line of its own, and characters beyond ASCII stand in texts and
/// comments alone: on some, elsewhere, toml++ 3.3.0 reaches what it tells the compiler is unreachable. What it takes for a number or a date it
/// follows to the next comma, bracket or space, through quotes: so a text begins only where a value or a part of a key does.
std::string_view fault_of_line(std::string_view line) {
  char before = '=';      // the last character but spaces; '=' where a value may begin, 'x' in one
  bool in_value = false;  // behind the key's "=": no dot stands before a quote there
  int lists = 0;          // that are open
  for (std::size_t at = 0; at < line.size() && line[at] != '#';) {
    const char c = line[at];
    if (line.substr(at, 3) == R"(""")" || line.substr(at, 3) == "'''") return "a string of several lines; a setting is on one";
    if (static_cast<unsigned char>(c) >= 0x80) return "a character beyond ASCII stands outside of quotes";
    const bool quote = c == '"' || c == '\'';
    const bool value_begins = before == '=' || before == '[' || before == ',';
    if (quote && !value_begins && (in_value || before != '.')) return "a quote stands where no text begins";
    if (in_value && value_begins && c == '{') return "a table in braces; a setting is text, a number, true or false";
    if (in_value) lists += c == '[' ? 1 : (c == ']' ? -1 : 0);
    at = quote ? end_of_string(line, at) : at + 1;
    if (at == std::string_view::npos) return "a text has no closing quote";
    const bool opens = c == ',' || (c == '[' && value_begins) || (c == '=' && !in_value) || (c == '.' && !in_value);
    if (c != ' ' && c != '\t') before = opens ? c : 'x';
    in_value = in_value || c == '=';
  }
  return lists > 0 ? "a list of several lines; a setting is on one" : "";
}

void check_lines(std::string_view text, const std::filesystem::path& path) {
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (const std::string_view fault = fault_of_line(line); !fault.empty())
      throw FormatError(path, fmt::format("line {}", number), fault);
  }
}

}  // namespace

std::string to_text(const RunValue& value) {
  struct Visitor {
    std::string operator()(std::int64_t x) const { return fmt::format("{}", x); }
    std::string operator()(double x) const {
      std::string text = fmt::format("{}", x);  // the shortest that reads back as the same number
      if (std::isfinite(x) && text.find_first_of(".e") == std::string::npos) text += ".0";
      return text;
    }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(const std::string& x) const { return x; }
    std::string operator()(const std::vector<std::string>& x) const { return fmt::format("{}", fmt::join(x, " ")); }
  };
  return std::visit(Visitor{}, value);
}

void write_run_file(const std::filesystem::path& folder, const std::vector<RunSection>& sections) {
  std::string text = fmt::format(
      "# The settings of this run of Lathe, all resolved, in the names of the command line.\n"
      "# The same again: lathe {} --config THIS_FILE --output NEW_FOLDER\n",
      sections.front().name);
  for (const RunSection& section : sections) {
    text += fmt::format("\n[{}]\n", section.name);
    for (const auto& [key, value] : section.values) text += fmt::format("{} = {}\n", toml_key(key), toml_value(value));
  }
  write_file_atomically(folder / "run.toml", text);
}

std::vector<RunSetting> parse_run_file(std::string_view text, const std::filesystem::path& path) {
  if (text.size() > kLargestRunFile) {
    throw FormatError(path, "", fmt::format("has {} bytes; a file of settings has at most {}", text.size(), kLargestRunFile));
  }
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  check_lines(text, path);
  std::vector<RunSetting> settings;
  const auto add = [&](std::string section, const toml::key& key, const toml::node& node) {
    settings.push_back({.section = std::move(section),
                        .key = std::string(key.str()),
                        .value = value_of(path, key, node),
                        .line = key.source().begin.line});
  };
  try {
    const toml::table file = toml::parse(text);
    for (const auto& [key, node] : file) {
      if (const auto* section = node.as_table()) {
        for (const auto& [inner, value] : *section) add(std::string(key.str()), inner, value);
      } else {
        add("", key, node);
      }
    }
  } catch (const toml::parse_error& failure) {
    refuse(path, failure.source(), failure.description());
  }
  // The parser sorts by name.
  std::ranges::stable_sort(settings, {}, &RunSetting::line);
  return settings;
}

std::vector<RunSetting> read_run_file(const std::filesystem::path& path) {
  return parse_run_file(read_text_file(path, kLargestRunFile), path);
}

std::string content_hash(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError(path, "cannot be opened");
  ContentHash hash;
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), file.gcount() > 0)
    hash.add(std::as_bytes(std::span(buffer).first(static_cast<std::size_t>(file.gcount()))));
  return fmt::format("xxh64:{:016x}", hash.value());
}

}  // namespace lathe
