#include "lathe/runtime/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// A lock on all of a file, of its open description and not of the process: closing another descriptor of the file does not lose it.
struct flock whole_file() {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

/// Whether `path` still is the file of `descriptor`: whoever held it may have removed it between our opening and locking it.
bool is_still_there(int descriptor, const std::filesystem::path& path) {
  struct stat opened = {};
  struct stat there = {};
  return ::fstat(descriptor, &opened) == 0 && ::stat(path.c_str(), &there) == 0 && opened.st_dev == there.st_dev &&
         opened.st_ino == there.st_ino;
}

}  // namespace

FileLock::FileLock(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

FileLock::FileLock(FileLock&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileLock::~FileLock() {
  if (descriptor_ < 0) return;
  ::unlink(path_.c_str());  // while it is locked still: nobody else's is removed
  ::close(descriptor_);
}

std::optional<FileLock> FileLock::take(const std::filesystem::path& path) {
  for (;;) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor < 0) throw FileError(path, fmt::format("cannot be written: {}", std::strerror(errno)));
    struct flock lock = whole_file();
    if (::fcntl(descriptor, F_OFD_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES)) {
      ::close(descriptor);
      return std::nullopt;
    }
    if (!is_still_there(descriptor, path)) {
      ::close(descriptor);
      continue;
    }
    FileLock held(path, descriptor);
    const std::string number = fmt::format("{}\n", ::getpid());
    if (::ftruncate(descriptor, 0) != 0 || ::write(descriptor, number.data(), number.size()) < 0)
      throw FileError(path, fmt::format("cannot be written: {}", std::strerror(errno)));
    return held;
  }
}

std::string lock_holder(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return {};
  struct flock lock = whole_file();
  const bool held = ::fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  std::array<char, 16> number = {};
  const ssize_t bytes = held ? ::read(descriptor, number.data(), number.size()) : 0;
  ::close(descriptor);
  if (!held) return {};
  std::string_view digits(number.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
  digits = digits.substr(0, digits.find_first_not_of("0123456789"));
  return digits.empty() ? "another process" : fmt::format("process {}", digits);
}

}  // namespace lathe
