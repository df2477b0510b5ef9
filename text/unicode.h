#pragma once
// Unicode as Hugging Face's `tokenizers` applies it, the same whatever utf8proc is installed (scripts/unicode_corrections.py).
#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// Sets that a code point may be in, as bits.
namespace traits {
inline constexpr std::uint8_t kWhiteSpace = 1;      ///< White_Space
inline constexpr std::uint8_t kDropped = 2;         ///< removed by clean_text: Cc, Cf, Co and U+FFFD, less tab and line ends
inline constexpr std::uint8_t kPunctuation = 4;     ///< P* and every ASCII symbol
inline constexpr std::uint8_t kNonspacingMark = 8;  ///< Mn
inline constexpr std::uint8_t kDecomposing = 16;    ///< has a canonical decomposition
inline constexpr std::uint8_t kReordering = 32;     ///< of a combining class other than 0; doesn't decompose
inline constexpr std::uint8_t kHasLowercase = 64;   ///< lower-casing changes it
inline constexpr std::uint8_t kIdeograph = 128;     ///< what BERT calls a Chinese character
}  // namespace traits

/// The canonical decomposition of a code point: at most four others.
struct Decomposition {
  std::array<char32_t, 4> parts;
  int count;
};

/// Look-ups by code point, up to U+10FFFF.
class Unicode {
 public:
  /// The tables, built when first asked for. Thread-safe.
  static const Unicode& tables();

  /// Bits of `traits`.
  std::uint8_t traits(char32_t c) const noexcept { return traits_[c]; }
  /// Whether a token that must be a single word is refused beside `c`: \w of regular expressions.
  static bool is_word_character(char32_t c) noexcept;

  /// Of a code point with kDecomposing.
  static Decomposition decompose(char32_t c);
  /// Of a code point with kReordering.
  static int combining_class(char32_t c) noexcept;
  /// The lower case of `c`, or `c`; U+0130, the only code point that becomes two, gives its first, 'i', which U+0307 must follow.
  static char32_t lowercase(char32_t c) noexcept;

 private:
  Unicode();
  std::unique_ptr<std::uint8_t[]> traits_;
};

/// The code point at `p`, which is advanced behind it. The text must be well-formed UTF-8.
inline char32_t next_code_point(const char*& p) noexcept {
  const auto byte = [&p] { return static_cast<char32_t>(static_cast<unsigned char>(*p++)); };
  const char32_t lead = byte();
  if (lead < 0x80) return lead;
  const auto continuation = [&byte](char32_t front) { return (front << 6U) | (byte() & 0x3FU); };
  if (lead < 0xE0) return continuation(lead & 0x1FU);
  if (lead < 0xF0) return continuation(continuation(lead & 0x0FU));
  return continuation(continuation(continuation(lead & 0x07U)));
}

/// Appends `c` as UTF-8.
inline void append_code_point(char32_t c, std::string& to) {
  const auto continuation = [&to](char32_t bits) { to.push_back(static_cast<char>(0x80U | (bits & 0x3FU))); };
  if (c < 0x80) {
    to.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    to.push_back(static_cast<char>(0xC0U | (c >> 6U)));
    continuation(c);
  } else if (c < 0x10000) {
    to.push_back(static_cast<char>(0xE0U | (c >> 12U)));
    continuation(c >> 6U);
    continuation(c);
  } else {
    to.push_back(static_cast<char>(0xF0U | (c >> 18U)));
    continuation(c >> 12U);
    continuation(c >> 6U);
    continuation(c);
  }
}

}  // namespace lathe
