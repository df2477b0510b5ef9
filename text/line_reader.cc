#include "lathe/text/line_reader.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <istream>
#include <limits>
#include <system_error>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

constexpr std::size_t kInitialBuffer = std::size_t{256} << 10U;
constexpr std::size_t kSmallestBuffer = 4;                                          // a byte order mark and one more
constexpr std::size_t kLargestLimit = std::numeric_limits<std::size_t>::max() / 4;  // sums with it don't overflow

std::string reason(int error) { return std::generic_category().message(error); }

class FileSource final : public ByteSource {
 public:
  explicit FileSource(const std::filesystem::path& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw FileError(path_, "can't open: " + reason(errno));
    struct stat status {};
    const bool known = ::fstat(descriptor_, &status) == 0;
    if (known && S_ISREG(status.st_mode)) size_ = static_cast<std::uint64_t>(status.st_size);
    if (!known || !S_ISDIR(status.st_mode)) return;
    ::close(descriptor_);
    throw FileError(path_, "is a folder; a data file is needed");
  }
  ~FileSource() override { ::close(descriptor_); }
  FileSource(const FileSource&) = delete;
  FileSource(FileSource&&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  FileSource& operator=(FileSource&&) = delete;

  std::size_t read(char* to, std::size_t capacity) override {
    for (;;) {
      const ssize_t count = ::read(descriptor_, to, capacity);
      read_ += count > 0 ? static_cast<std::uint64_t>(count) : 0;
      // A file that somebody else is writing anew would pass for a smaller data set.
      if (count == 0 && read_ < size_) {
        throw FileError(path_, fmt::format("was cut to {} bytes while being read; it had {} when it was opened", read_, size_));
      }
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) throw FileError(path_, "can't read: " + reason(errno));
    }
  }

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;  // of a regular file when it was opened
  std::uint64_t read_ = 0;
};

class StreamSource final : public ByteSource {
 public:
  StreamSource(std::istream& stream, std::filesystem::path name) : buffer_(stream.rdbuf()), name_(std::move(name)) {}

  std::size_t read(char* to, std::size_t capacity) override {
    using Traits = std::streambuf::traits_type;
    if (buffer_ == nullptr) return 0;
    try {
      // The first byte may wait; the others are taken only where they are there already.
      const Traits::int_type first = buffer_->sbumpc();
      if (Traits::eq_int_type(first, Traits::eof())) return 0;
      to[0] = Traits::to_char_type(first);
      const std::streamsize there = std::min(buffer_->in_avail(), static_cast<std::streamsize>(capacity - 1));
      return 1 + static_cast<std::size_t>(there > 0 ? buffer_->sgetn(to + 1, there) : 0);
    } catch (const std::ios_base::failure& failure) {
      throw FileError(name_, fmt::format("can't read: {}", failure.what()));
    }
  }

 private:
  std::streambuf* buffer_;
  std::filesystem::path name_;
};

}  // namespace

std::unique_ptr<ByteSource> open_byte_source(const std::filesystem::path& path) { return std::make_unique<FileSource>(path); }

std::unique_ptr<ByteSource> stream_byte_source(std::istream& stream, const std::filesystem::path& name) {
  return std::make_unique<StreamSource>(stream, name);
}

LineReader::LineReader(std::unique_ptr<ByteSource> source, std::filesystem::path name, std::size_t max_line_bytes)
    : source_(std::move(source)), name_(std::move(name)), max_line_bytes_(std::min(max_line_bytes, kLargestLimit)) {
  buffer_.resize(std::clamp(max_line_bytes_ + 2, kSmallestBuffer, kInitialBuffer));
}

bool LineReader::next() {
  if (number_ == 0) drop_byte_order_mark();
  std::size_t searched = begin_;
  for (;;) {
    const auto* found = static_cast<const char*>(std::memchr(buffer_.data() + searched, '\n', end_ - searched));
    const std::size_t stop = found != nullptr ? static_cast<std::size_t>(found - buffer_.data()) : end_;
    if (found != nullptr || (at_end_ && end_ > begin_)) {
      const bool carriage_return = stop > begin_ && buffer_[stop - 1] == '\r';
      const std::size_t line_end = stop - (carriage_return ? 1 : 0);
      const std::size_t after = stop + (found != nullptr ? 1 : 0);
      line_ = std::string_view(buffer_).substr(begin_, line_end - begin_);
      terminator_ = std::string_view(buffer_).substr(line_end, after - line_end);
      begin_ = after;
      ++number_;
      if (line_.size() > max_line_bytes_) break;
      return true;
    }
    if (at_end_) {
      line_ = terminator_ = {};
      return false;
    }
    const std::size_t scanned = end_ - begin_;
    // One byte beyond the limit may be the CR of a CRLF; a second can't.
    if (scanned > max_line_bytes_ + 1) {
      ++number_;
      break;
    }
    refill();
    searched = begin_ + scanned;
  }
  throw FormatError(name_, fmt::format("line {}", number_),
                    fmt::format("the line is longer than {} bytes; is this the right file and format?", max_line_bytes_));
}

bool LineReader::is_ready() const {
  return number_ > 0 && (at_end_ || std::memchr(buffer_.data() + begin_, '\n', end_ - begin_) != nullptr);
}

bool LineReader::refill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // Two bytes beyond the limit leave room for a CRLF, and show that a line is too long before any more is read.
  if (end_ == buffer_.size()) buffer_.resize(std::min(2 * buffer_.size(), max_line_bytes_ + 2));
  const std::size_t count = source_->read(buffer_.data() + end_, buffer_.size() - end_);
  at_end_ = count == 0;
  end_ += count;
  return !at_end_;
}

void LineReader::drop_byte_order_mark() {
  constexpr std::string_view kUtf8 = "\xEF\xBB\xBF", kUtf16Little = "\xFF\xFE", kUtf16Big = "\xFE\xFF";
  const auto front = [&] { return std::string_view(buffer_).substr(begin_, end_ - begin_); };
  // Waits for more only as long as what is there may still be the start of a mark: a terminal's first line may be one byte long.
  while (front().size() < kUtf8.size() && kUtf8.starts_with(front()) && refill()) {
  }
  while (front().size() < kUtf16Big.size() && (kUtf16Little.starts_with(front()) || kUtf16Big.starts_with(front())) && refill()) {
  }
  if (front().starts_with(kUtf8)) {
    begin_ += kUtf8.size();
  } else if (front().starts_with(kUtf16Little) || front().starts_with(kUtf16Big)) {
    throw FormatError(name_, "line 1", "the file is UTF-16; save it as UTF-8");
  }
}

}  // namespace lathe
