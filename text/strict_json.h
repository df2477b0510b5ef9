#pragma once
// JSON of which nothing is guessed: what nlohmann's DOM lets pass in silence is refused. Included by few .cc files only.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

/// A large object of numbers that is handed over entry by entry instead of becoming part of the document.
struct JsonStream {
  std::vector<std::string> path;  ///< keys from the root to the object
  /// Called with each key and its number.
  std::function<void(std::string key, std::uint64_t value)> entry;
};

/// Parses the file `path`. FormatError for invalid JSON or UTF-8, a key that occurs twice in an object, depth beyond 64, and in
/// the streamed object anything but unsigned integers; FileError where reading fails. Numbers too large for 64 bits become floating
/// point, so is_number_unsigned() tells a true integer.
nlohmann::json read_strict_json(const std::filesystem::path& path, const JsonStream& stream = {});

/// The bytes of the file `path`. FileError where reading fails.
std::string read_whole_file(const std::filesystem::path& path);

}  // namespace lathe
