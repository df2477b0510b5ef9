#pragma once
// What the fuzz targets share. A target is called with any bytes at all; what it must not do is crash, hang, leak, or break a rule that
// it checks by require().
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe::fuzz {

using Bytes = std::span<const std::uint8_t>;

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// Ends the program with `rule`, which libFuzzer reports as a crash, where it doesn't hold.
void require(bool holds, std::string_view rule);

/// A file in memory under a name in a folder of its own, for parsers that open paths.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view name);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  MemoryFile(MemoryFile&&) = delete;
  MemoryFile& operator=(MemoryFile&&) = delete;

  /// Replaces the contents.
  void hold(Bytes bytes) const;

  const std::filesystem::path& folder() const { return folder_.path(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  std::filesystem::path path_;
  int descriptor_;
};

/// A refusal must be one of the user's mistakes, told in one line.
void check_refusal(const Error& error);

/// What `parse` gives, or nothing where it refuses its input.
template <class Parse>
auto accepted(const Parse& parse) -> std::optional<decltype(parse())> {
  try {
    return parse();
  } catch (const Error& error) {
    check_refusal(error);
    return std::nullopt;
  }
}

}  // namespace lathe::fuzz
