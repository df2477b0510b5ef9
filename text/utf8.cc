#include "lathe/text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace lathe {
namespace {

/// What stands at the front of a text: a character, or a part of one that can't be continued.
struct Sequence {
  std::size_t length;  // bytes, at least 1
  bool valid;
};

Sequence front_sequence(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) -> unsigned { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range is what excludes overlong forms, surrogates and values above U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return {1, false};
  for (std::size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {i, false};
  }
  return {length, true};
}

std::size_t ascii_prefix(std::string_view text) noexcept {
  constexpr std::uint64_t kHighBits = 0x8080808080808080U;
  std::size_t i = 0;
  for (; i + sizeof(std::uint64_t) <= text.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + i, sizeof word);
    if ((word & kHighBits) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

/// Length of the well-formed front of `text`.
std::size_t valid_prefix(std::string_view text) noexcept {
  std::size_t i = 0;
  while (i < text.size()) {
    i += ascii_prefix(text.substr(i));
    // Texts that aren't ASCII rarely turn ASCII at once: stay with whole sequences until one is.
    while (i < text.size() && static_cast<unsigned char>(text[i]) >= 0x80) {
      const Sequence sequence = front_sequence(text.substr(i));
      if (!sequence.valid) return i;
      i += sequence.length;
    }
  }
  return i;
}

}  // namespace

bool is_valid_utf8(std::string_view text) noexcept { return valid_prefix(text) == text.size(); }

std::string repair_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (;;) {
    const std::size_t valid = valid_prefix(text);
    result.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return result;
    result.append("\xEF\xBF\xBD");
    text.remove_prefix(front_sequence(text).length);
  }
}

std::string_view utf8_prefix(std::string_view text, std::size_t max_bytes) noexcept {
  if (text.size() <= max_bytes) return text;
  std::size_t end = max_bytes;
  // A sequence has at most three continuation bytes; a longer row of them is ill-formed anyway and may be cut anywhere.
  const std::size_t nearest = max_bytes - std::min<std::size_t>(max_bytes, 3);
  while (end > nearest && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end);
}

}  // namespace lathe
