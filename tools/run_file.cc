#include "tools/run_file.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

#include "lathe/checkpoint/input_file.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// A TOML basic string.
std::string basic_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
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

std::string toml(const RunValue& value) {
  struct Visitor {
    std::string operator()(std::int64_t x) const { return fmt::format("{}", x); }
    std::string operator()(double x) const {
      std::string text = fmt::format("{}", x);  // the shortest that reads back as the same number
      if (std::isfinite(x) && text.find_first_of(".e") == std::string::npos) text += ".0";
      return text;
    }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(const std::string& x) const { return basic_string(x); }
  };
  return std::visit(Visitor{}, value);
}

}  // namespace

void write_run_file(const std::filesystem::path& folder, const std::vector<RunSection>& sections) {
  std::string text = "# The settings of this run of Lathe, all resolved, in the names of the command line.\n";
  for (const RunSection& section : sections) {
    text += fmt::format("\n[{}]\n", section.name);
    for (const auto& [key, value] : section.values) text += fmt::format("{} = {}\n", key, toml(value));
  }
  write_file_atomically(folder / "run.toml", text);
}

std::map<std::string, std::string> read_run_section(const std::filesystem::path& folder, const std::string& section) {
  const std::filesystem::path path = folder / "run.toml";
  std::map<std::string, std::string> values;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return values;
  constexpr std::uint64_t kMostBytes = 1U << 20U;
  const std::string text = read_text_file(path, kMostBytes);
  std::istringstream file(text);
  try {
    for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(file)) {
      if (item.parents == std::vector<std::string>{section} && item.inputs.size() == 1) values[item.name] = item.inputs.front();
    }
  } catch (const CLI::Error& failure) {
    throw FormatError(path, "", failure.what());
  }
  return values;
}

std::string content_hash(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError(path, "cannot be opened");
  std::uint64_t hash = 0xCBF29CE484222325U;
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), file.gcount() > 0) {
    for (std::streamsize i = 0; i < file.gcount(); ++i)
      hash = (hash ^ static_cast<unsigned char>(buffer[static_cast<std::size_t>(i)])) * 0x100000001B3U;
  }
  return fmt::format("fnv1a64:{:016x}", hash);
}

}  // namespace lathe
