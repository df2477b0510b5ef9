#pragma once
// A file that is only read: its size known, its bytes had by copies that never fault, or mapped.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// A regular file, open for reading. Move-only; closes and unmaps itself. read() may be called from several threads.
class InputFile {
 public:
  /// Throws FileError where `path` can't be opened or isn't a regular file.
  explicit InputFile(std::filesystem::path path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  const std::filesystem::path& path() const noexcept { return path_; }
  /// Bytes in the file when it was opened.
  std::uint64_t size() const noexcept { return size_; }

  /// Copies the bytes from `offset` on into all of `destination`. Throws FileError where the disk fails or the file has become
  /// shorter since it was opened: a copy made by the kernel reports what a read of mapped memory would answer with SIGBUS.
  void read(std::uint64_t offset, std::span<std::byte> destination) const;

  /// Throws FileError where the file is now shorter than it was when it was opened.
  void require_unchanged_size() const;

  /// The whole file, mapped read-only at the first call and until this object goes. Throws FileError.
  std::span<const std::byte> map();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::span<std::byte> mapping_;
};

/// The whole of a text file of at most `most_bytes` bytes. Throws FileError.
std::string read_text_file(const std::filesystem::path& path, std::uint64_t most_bytes);

}  // namespace lathe
