#include "lathe/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

struct Range {
  char32_t first, last;
};

/// first, first + step ... last become themselves plus shift.
struct LowercaseRun {
  char32_t first, last;
  std::uint8_t step;
  std::int32_t shift;
};

#include "lathe/text/unicode_tables.inc"

/// The first range or run that ends at or behind `c`. Tables are sorted, their entries don't overlap.
template <typename Table>
auto first_not_before(const Table& table, char32_t c) noexcept {
  return std::lower_bound(std::begin(table), std::end(table), c,
                          [](const auto& entry, char32_t value) { return entry.last < value; });
}

}  // namespace

const Unicode& Unicode::tables() {
  static const Unicode unicode;
  return unicode;
}

Unicode::Unicode() : traits_(std::make_unique<std::uint8_t[]>(0x110000)) {
  const auto mark = [this](const auto& ranges, std::uint8_t trait) {
    for (const Range& range : ranges) {
      for (char32_t c = range.first; c <= range.last; ++c) traits_[c] |= trait;
    }
  };
  mark(kWhiteSpace, traits::kWhiteSpace);
  mark(kDropped, traits::kDropped);
  mark(kPunctuation, traits::kPunctuation);
  mark(kNonspacingMarks, traits::kNonspacingMark);
  mark(kDecomposing, traits::kDecomposing);
  mark(kReordering, traits::kReordering);
  mark(kIdeographs, traits::kIdeograph);
  for (const LowercaseRun& run : kLowercase) {
    for (char32_t c = run.first; c <= run.last; c += run.step) traits_[c] |= traits::kHasLowercase;
  }
  traits_[0x130] |= traits::kHasLowercase;
}

bool Unicode::is_word_character(char32_t c) noexcept {
  const Range* range = first_not_before(kWord, c);
  return range != std::end(kWord) && range->first <= c;
}

Decomposition Unicode::decompose(char32_t c) {
  std::array<utf8proc_int32_t, 4> parts{};
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(), parts.size(), UTF8PROC_DECOMPOSE, nullptr);
  if (count < 1 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
    throw LogicError("utf8proc " + std::string(utf8proc_version()) + " can't decompose code point " +
                     std::to_string(std::uint32_t{c}));
  }
  Decomposition result{};
  result.count = static_cast<int>(count);
  std::copy(parts.begin(), parts.begin() + count, result.parts.begin());
  return result;
}

int Unicode::combining_class(char32_t c) noexcept {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

char32_t Unicode::lowercase(char32_t c) noexcept {
  if (c == 0x130) return U'i';
  const LowercaseRun* run = first_not_before(kLowercase, c);
  const bool found = run != std::end(kLowercase) && run->first <= c && (c - run->first) % run->step == 0;
  return found ? static_cast<char32_t>(static_cast<std::int32_t>(c) + run->shift) : c;
}

}  // namespace lathe
