#pragma once
// Files made in a test, and what a refusal says.
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/temporary_folder.h"

namespace lathe::checkpoint_test {

/// A folder that files can be put into.
class TemporaryFolder : public lathe::TemporaryFolder {
 public:
  /// Writes a file of that name and returns its path.
  std::filesystem::path file(const std::string& name, std::string_view contents) const {
    std::filesystem::path path = *this / name;
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }
};

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The bytes of numbers as a string.
template <class T>
std::string raw(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A safetensors file of that header and data, whatever they hold.
inline std::string safetensors(std::string_view header, std::string_view data) {
  return raw(std::vector<std::uint64_t>{header.size()}).append(header).append(data);
}

/// What `action` throws as an E says; another exception passes through, none gives "(nothing thrown)".
template <class E, class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "(nothing thrown)";
}

}  // namespace lathe::checkpoint_test
