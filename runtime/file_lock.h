#pragma once
// A lock on a file, held by a process while it works.
#include <filesystem>
#include <optional>
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// Holds a file locked against other processes and holds this process's number in it. The system takes the lock from a process however that
/// ends, so a file that a killed process left behind hinders nobody. Move-only; the file goes with the object.
class FileLock {
 public:
  /// Creates `path` where it is absent and locks it; empty where another process holds it. A file system without locks gives one that
  /// excludes nobody. Throws FileError where the file can't be made.
  static std::optional<FileLock> take(const std::filesystem::path& path);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  FileLock(std::filesystem::path path, int descriptor);
  std::filesystem::path path_;
  int descriptor_;
};

/// Who holds `path` locked: "process 1234"; empty where nobody does or there is no such file. Changes nothing.
std::string lock_holder(const std::filesystem::path& path);

}  // namespace lathe
