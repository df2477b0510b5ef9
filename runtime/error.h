#pragma once
// Typed exceptions. A message is one line: what, where (file, line, tensor), what was found and expected, what to do.
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {

/// Base of everything that Lathe throws on purpose. Control characters and invalid UTF-8 in a message are shown as \xNN, so that
/// what came out of a file can't disturb a terminal.
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

/// A loss or gradient that is no longer a number.
class NonFiniteError : public UserError {
 public:
  using UserError::UserError;
};

/// Memory that could not be had: requested and available bytes, and what to lower, are in the message.
class OutOfMemoryError : public UserError {
 public:
  using UserError::UserError;
};

/// `text` with control characters and bytes that aren't UTF-8 written as \xNN.
std::string printable(std::string_view text);

}  // namespace lathe
