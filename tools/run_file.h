#pragma once
// Settings in TOML, in the names of the command line: run.toml, which a run leaves, and the file that --config reads.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lathe {

/// A list is of texts, for an option that takes several.
using RunValue = std::variant<std::int64_t, double, bool, std::string, std::vector<std::string>>;

/// A section to write, keys in order.
struct RunSection {
  std::string name;
  std::vector<std::pair<std::string, RunValue>> values;
};

/// A setting that was read.
struct RunSetting {
  std::string section;  ///< empty at the top of the file
  std::string key;
  RunValue value;
  std::int64_t line = 0;  ///< of the key, from 1
};

/// The value as the command line would have it, a list's texts with spaces between: numbers in the shortest form that reads back the same, fractions with a point.
std::string to_text(const RunValue& value);

/// Writes `sections`, of which the first is named after its command, into `folder`/run.toml, atomically, below a comment. Bytes that aren't UTF-8 become U+FFFD, as TOML must be UTF-8.
void write_run_file(const std::filesystem::path& folder, const std::vector<RunSection>& sections);

/// The settings of TOML `text`, in the file's order; `path` stands for it in messages. Throws FormatError, with the line, for what isn't
/// TOML, for values that are no settings (lists of what isn't text, dates, tables in tables) and for more than kLargestRunFile bytes.
std::vector<RunSetting> parse_run_file(std::string_view text, const std::filesystem::path& path);
inline constexpr std::size_t kLargestRunFile = std::size_t{1} << 20U;

/// Reads and parses a file. Throws FileError and FormatError.
std::vector<RunSetting> read_run_file(const std::filesystem::path& path);

/// A number that changes with the file's contents: "xxh64:0123456789abcdef".
std::string content_hash(const std::filesystem::path& path);

}  // namespace lathe
