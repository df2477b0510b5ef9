#include "lathe/checkpoint/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

struct stat status_of(int descriptor, const std::filesystem::path& path) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) throw FileError(path, fmt::format("cannot read: {}", std::strerror(errno)));
  return status;
}

}  // namespace

InputFile::InputFile(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe in the place of a file is refused below instead of being waited for.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw FileError(path_, fmt::format("cannot open: {}", std::strerror(errno)));
  try {
    const struct stat status = status_of(descriptor_, path_);
    if (!S_ISREG(status.st_mode)) throw FileError(path_, S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a file");
    size_ = static_cast<std::uint64_t>(status.st_size);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, {})) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  return *this;
}

InputFile::~InputFile() {
  if (!mapping_.empty()) ::munmap(mapping_.data(), mapping_.size());
  if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> destination) const {
  while (!destination.empty()) {
    const ssize_t count = ::pread(descriptor_, destination.data(), destination.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw FileError(path_, fmt::format("cannot read at byte {}: {}", offset, std::strerror(errno)));
    if (count == 0) {
      throw FileError(path_, fmt::format("ended at byte {} while being read; it had {} bytes when it was opened", offset, size_));
    }
    destination = destination.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void InputFile::require_unchanged_size() const {
  const auto now = static_cast<std::uint64_t>(status_of(descriptor_, path_).st_size);
  if (now < size_)
    throw FileError(path_, fmt::format("was cut to {} bytes while in use; it had {} when it was opened", now, size_));
}

std::span<const std::byte> InputFile::map() {
  if (mapping_.empty() && size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
    if (address == MAP_FAILED) throw FileError(path_, fmt::format("cannot map {} bytes: {}", size_, std::strerror(errno)));
    mapping_ = {static_cast<std::byte*>(address), size_};
  }
  return mapping_;
}

std::string read_text_file(const std::filesystem::path& path, std::uint64_t most_bytes) {
  const InputFile file(path);
  if (file.size() > most_bytes) {
    throw FileError(path, fmt::format("has {} bytes; a file of its kind has at most {}", file.size(), most_bytes));
  }
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace lathe
