#include "lathe/text/strict_json.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 64;

/// Builds the document from the parser's events.
class Builder : public json::json_sax_t {
 public:
  Builder(const std::filesystem::path& path, const JsonStream& stream) : path_(path), stream_(stream) {}

  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (!streaming()) return add(value);
    stream_.entry(std::move(keys_.back()), value);
    return true;
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }

  bool start_object(std::size_t /*size*/) override { return open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    if (!streaming() && open_.back()->contains(value)) refuse(where(), fmt::format("the key \"{}\" occurs twice", value));
    keys_.back() = std::move(value);
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/, const nlohmann::detail::exception& error) override {
    // The library's text begins with its own name and error number in brackets.
    const std::string_view what = error.what();
    const std::size_t begin = what.find("] ");
    refuse(fmt::format("byte {}", position), what.substr(begin == std::string_view::npos ? 0 : begin + 2));
  }

 private:
  [[noreturn]] void refuse(std::string_view where, std::string_view message) const { throw FormatError(path_, where, message); }

  /// The keys down to the value at hand.
  std::string where() const {
    std::string result;
    for (std::size_t i = 0; i < open_.size(); ++i) {
      if (!open_[i]->is_object() || keys_[i].empty()) continue;
      result += (result.empty() ? "" : ".") + keys_[i];
    }
    return result;
  }

  bool streaming() const noexcept { return stream_depth_ != 0 && open_.size() == stream_depth_; }

  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[keys_.back()] = std::move(value));
  }

  bool add(json value) {
    if (streaming()) refuse(where(), fmt::format("found {}, expected an id (an integer from 0)", value.dump()));
    place(std::move(value));
    return true;
  }

  bool open(json value) {
    if (streaming()) refuse(where(), fmt::format("found an {}, expected an id (an integer from 0)", value.type_name()));
    if (open_.size() == kMaxDepth) refuse(where(), fmt::format("nested more than {} levels deep", kMaxDepth));
    // Pointers into the document stay valid: only the innermost container grows, and it holds none that is open.
    open_.push_back(place(std::move(value)));
    if (open_.back()->is_object() && !stream_.path.empty() && keys_ == stream_.path) stream_depth_ = open_.size();
    keys_.emplace_back();
    return true;
  }

  bool close() {
    if (streaming()) stream_depth_ = 0;
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  const std::filesystem::path& path_;
  const JsonStream& stream_;
  json root_;
  std::vector<json*> open_;        // the containers around the value at hand, outermost first
  std::vector<std::string> keys_;  // the key at hand in each of them
  std::size_t stream_depth_ = 0;   // depth of the streamed object while it is open
};

}  // namespace

std::string read_whole_file(const std::filesystem::path& path) {
  // Three times the largest vocabulary that is published; ten times as much, as a document, is what memory must bear.
  constexpr std::uintmax_t kMaxBytes = std::uintmax_t{32} << 20U;
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) throw FileError(path, "is a folder, expected a file");
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) throw FileError(path, "is not a file");
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (!error && size > kMaxBytes) {
    throw FileError(path, fmt::format("has {} bytes; a tokenizer's file has at most {}", size, kMaxBytes));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError(path, fmt::format("can't be opened: {}", std::strerror(errno)));
  constexpr std::size_t kBlock = std::size_t{16} << 10U;
  std::string bytes;
  while (file) {
    const std::size_t before = bytes.size();
    bytes.resize(before + kBlock);
    file.read(bytes.data() + before, kBlock);
    bytes.resize(before + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw FileError(path, fmt::format("can't be read: {}", std::strerror(errno)));
  if (!error && bytes.size() < size) throw FileError(path, fmt::format("was cut to {} bytes while being read", bytes.size()));
  return bytes;
}

json read_strict_json(const std::filesystem::path& path, const JsonStream& stream) {
  const std::string bytes = read_whole_file(path);
  // The parser takes a NUL for the end of its input and would let pass whatever follows one.
  if (const std::size_t nul = bytes.find('\0'); nul != std::string::npos)
    throw FormatError(path, fmt::format("byte {}", nul + 1), "a NUL byte, which JSON does not allow");
  Builder builder(path, stream);
  json::sax_parse(bytes, &builder);
  return builder.take();
}

}  // namespace lathe
