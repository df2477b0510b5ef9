#include "lathe/runtime/error.h"

#include <array>

namespace lathe {
namespace {

/// Length of the well-formed UTF-8 sequence at the front of `text`, 0 where there is none (RFC 3629: no overlong forms, no
/// surrogates).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool overlong = lead == 0xF0 && byte(1) < 0x90;
    const bool too_large = lead == 0xF4 && byte(1) >= 0x90;
    return continues(1) && continues(2) && continues(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

std::string located(const std::filesystem::path& path, std::string_view where, std::string_view message) {
  std::string text = path.string();
  if (!where.empty()) text.append(", ").append(where);
  return text.append(": ").append(message);
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::array<char, 17> kHex = {"0123456789ABCDEF"};
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text.front());
    const std::size_t length = utf8_length(text);
    const bool c1_control = length == 2 && lead == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
    if (length == 0 || lead < 0x20 || lead == 0x7F || c1_control) {
      for (const char c : text.substr(0, length == 0 ? 1 : length)) {
        const auto byte = static_cast<unsigned char>(c);
        result.append("\\x").push_back(kHex[byte >> 4U]);
        result.push_back(kHex[byte & 15U]);
      }
    } else {
      result.append(text.substr(0, length));
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return result;
}

Error::Error(std::string_view message) : std::runtime_error(printable(message)) {}

FileError::FileError(const std::filesystem::path& path, std::string_view message)
    : UserError(located(path, "", message)), path_(path) {}

FormatError::FormatError(const std::filesystem::path& path, std::string_view where, std::string_view message)
    : UserError(located(path, where, message)), path_(path) {}

}  // namespace lathe
