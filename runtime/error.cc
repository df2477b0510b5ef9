#include "lathe/runtime/error.h"

#include <algorithm>
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

/// U+2028 and U+2029, which end lines, and U+200E, U+200F, U+202A to U+202E and U+2066 to U+2069, which turn the direction of writing.
bool disturbs_lines(std::string_view sequence) {
  if (sequence.size() != 3 || !sequence.starts_with('\xE2')) return false;
  const auto second = static_cast<unsigned char>(sequence[1]);
  const auto third = static_cast<unsigned char>(sequence[2]);
  return (second == 0x80 && (third == 0x8E || third == 0x8F || (third >= 0xA8 && third <= 0xAE))) ||
         (second == 0x81 && third >= 0xA6 && third <= 0xA9);
}

/// Path and place are shortened by themselves, so that neither crowds out the other or what is to be said.
std::string located(const std::filesystem::path& path, std::string_view where, std::string_view message) {
  constexpr std::size_t kLongestPath = 90;
  constexpr std::size_t kLongestPlace = 70;
  std::string text = shortened(printable(path.string()), kLongestPath);
  if (!where.empty()) text.append(", ").append(shortened(printable(where), kLongestPlace));
  text.append(": ");
  return text.append(shortened(printable(message), kLongestMessage - text.size()));
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
    if (length == 0 || lead < 0x20 || lead == 0x7F || c1_control || disturbs_lines(text.substr(0, length))) {
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

std::string shortened(std::string_view text, std::size_t most) {
  constexpr std::string_view kGap = "...";
  if (text.size() <= most) return std::string(text);
  if (most <= kGap.size()) return std::string(kGap.substr(0, most));
  const auto inside_character = [&](std::size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U;
  };
  std::size_t front = (most - kGap.size()) / 2;
  std::size_t back = text.size() - (most - kGap.size() - front);
  // At most three steps: a longer row of continuation bytes is no character.
  for (int i = 0; i < 3 && front > 0 && inside_character(front); ++i) --front;
  for (int i = 0; i < 3 && inside_character(back); ++i) ++back;
  return std::string(text.substr(0, front)).append(kGap).append(text.substr(std::min(back, text.size())));
}

std::string message_line(std::string_view text) { return shortened(printable(text), kLongestMessage); }

Error::Error(std::string_view message) : std::runtime_error(message_line(message)) {}

FileError::FileError(const std::filesystem::path& path, std::string_view message)
    : UserError(located(path, "", message)), path_(path) {}

FormatError::FormatError(const std::filesystem::path& path, std::string_view where, std::string_view message)
    : UserError(located(path, where, message)), path_(path) {}

OutOfMemoryError::OutOfMemoryError(std::string_view message, std::int64_t requested, std::int64_t available)
    : UserError(message), requested_(requested), available_(available) {}

}  // namespace lathe
