#pragma once
// Bytes from a file or a stream, cut into lines in bounded memory. The ground under every format of records.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>

namespace lathe {

/// Where bytes come from. A read hands over what is there instead of waiting for a full buffer, so that lines typed at a terminal
/// or written to a pipe are seen at once.
class ByteSource {
 public:
  ByteSource() = default;
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource(ByteSource&&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  ByteSource& operator=(ByteSource&&) = delete;
  /// Up to `capacity` bytes into `to`; 0 only at the end. FileError where reading fails.
  virtual std::size_t read(char* to, std::size_t capacity) = 0;
};

/// An open file. FileError where it can't be opened or is a folder, and when it ends before the size that it was opened with; pipes and
/// devices are welcome.
std::unique_ptr<ByteSource> open_byte_source(const std::filesystem::path& path);

/// A stream, which must outlive the source. `name` stands for it in messages.
std::unique_ptr<ByteSource> stream_byte_source(std::istream& stream, const std::filesystem::path& name);

/// Lines end at LF or CRLF; a CR elsewhere is an ordinary byte, except at the very end of the input, where it is a CRLF cut
/// short. The last line need not end. A UTF-8 byte order mark at the start is dropped; UTF-16's is a FormatError. NUL bytes are
/// ordinary.
class LineReader {
 public:
  /// `name` is the file in messages. A line longer than `max_line_bytes` is a FormatError, raised before any more of it is read.
  LineReader(std::unique_ptr<ByteSource> source, std::filesystem::path name, std::size_t max_line_bytes);

  /// Goes to the next line; false at the end.
  bool next();
  /// Whether next() needs nothing more of the source: a whole line is there, or the end.
  bool is_ready() const;
  /// The line without its end, valid until the next call of `next`.
  std::string_view line() const noexcept { return line_; }
  /// The bytes that ended the line: LF, CRLF, CR (end of input only) or nothing. Valid as long as `line`.
  std::string_view terminator() const noexcept { return terminator_; }
  /// The line's number, from 1.
  std::int64_t number() const noexcept { return number_; }

  const std::filesystem::path& name() const noexcept { return name_; }
  std::size_t max_line_bytes() const noexcept { return max_line_bytes_; }

 private:
  bool refill();
  void drop_byte_order_mark();

  std::unique_ptr<ByteSource> source_;
  std::filesystem::path name_;
  std::size_t max_line_bytes_;
  std::string buffer_;
  std::size_t begin_ = 0, end_ = 0;  // the bytes of buffer_ not yet handed out
  bool at_end_ = false;              // the source is exhausted
  std::string_view line_, terminator_;
  std::int64_t number_ = 0;
};

}  // namespace lathe
