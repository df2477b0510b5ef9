#pragma once
// Typed exceptions. A message is one line: what, where (file, line, tensor), what was found and expected, what to do.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// Bytes of the longest message. Whatever a file holds and a folder is called, a message fits into a line that is read at once.
inline constexpr std::size_t kLongestMessage = 260;

/// Base of everything that Lathe throws on purpose. A message is what message_line() makes of it.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string_view message);
  /// The command's exit status: 1 for a fault of Lathe, 2 for what a user can mend.
  virtual int exit_status() const noexcept { return 1; }
};

/// A contract of the library was broken by its caller: shapes that don't fit, a tensor overwritten that backward still needs.
class LogicError : public Error {
 public:
  using Error::Error;
};

/// What a user can mend.
class UserError : public Error {
 public:
  using Error::Error;
  int exit_status() const noexcept override { return 2; }
};

/// An option or argument that makes no sense, alone or beside another.
class UsageError : public UserError {
 public:
  using UserError::UserError;
};

/// A file or folder that can't be opened, read, mapped or written. `message` says what failed and why.
class FileError : public UserError {
 public:
  FileError(const std::filesystem::path& path, std::string_view message);
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

/// Contents that aren't what the format demands. `where` is "line 12", "tensor x.weight", "offset 40", or empty.
class FormatError : public UserError {
 public:
  FormatError(const std::filesystem::path& path, std::string_view where, std::string_view message);
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

/// Two inputs, each well-formed, that don't fit each other: a configuration and its weights, a vocabulary and the embeddings.
class MismatchError : public UserError {
 public:
  using UserError::UserError;
};

/// Weights, a loss or gradients that are not numbers.
class NonFiniteError : public UserError {
 public:
  using UserError::UserError;
};

/// Memory that could not be had. Requested and available bytes, and what to lower, are in the message as well.
class OutOfMemoryError : public UserError {
 public:
  OutOfMemoryError(std::string_view message, std::int64_t requested, std::int64_t available);
  /// Bytes that were asked for when there were no more.
  std::int64_t requested() const noexcept { return requested_; }
  std::int64_t available() const noexcept { return available_; }

 private:
  std::int64_t requested_;
  std::int64_t available_;
};

/// `text` with control characters, those that turn the direction of writing among them, and bytes that aren't UTF-8 written as \xNN, so
/// that what came out of a file can't disturb a terminal.
std::string printable(std::string_view text);

/// `text`, or where it is longer than `most` bytes its front and its end with "..." between them, of whole characters: of a path the
/// file's name stays, of a message what to do.
std::string shortened(std::string_view text, std::size_t most);

/// `text` as one printable line of at most kLongestMessage bytes.
std::string message_line(std::string_view text);

}  // namespace lathe
