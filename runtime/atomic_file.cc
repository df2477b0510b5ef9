#include "lathe/runtime/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// An open file descriptor that is closed at the end of its scope.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (value_ < 0) throw FileError(path, fmt::format("cannot open for writing: {}", std::strerror(errno)));
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

void sync(const std::filesystem::path& path, int flags) {
  const Descriptor descriptor(path, flags);
  // Some file systems refuse to sync a folder (EINVAL): there is nothing more to be had from them.
  if (::fsync(descriptor.value()) != 0 && errno != EINVAL)
    throw FileError(path, fmt::format("cannot write: {}", std::strerror(errno)));
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& write) {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".{}.partial", ::getpid());
  std::filesystem::path folder = path.parent_path();
  if (folder.empty()) folder = ".";
  try {
    write(temporary);
    sync(temporary, O_RDONLY);
    std::error_code failure;
    std::filesystem::rename(temporary, path, failure);
    if (failure) throw FileError(path, fmt::format("cannot rename the finished file into place: {}", failure.message()));
    sync(folder, O_RDONLY | O_DIRECTORY);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces) {
  write_file_atomically(path, [&](const std::filesystem::path& temporary) {
    const Descriptor descriptor(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    for (std::span<const std::byte> piece : pieces) {
      while (!piece.empty()) {
        const ssize_t written = ::write(descriptor.value(), piece.data(), piece.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) throw FileError(path, fmt::format("cannot write: {}", std::strerror(errno)));
        piece = piece.subspan(static_cast<std::size_t>(written));
      }
    }
  });
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(contents));
  write_file_atomically(path, std::span(&piece, 1));
}

}  // namespace lathe
