#include "lathe/text/bert_normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lathe {
namespace {

constexpr std::uint8_t kRemoved = 0xFF;

/// A character of a combining class other than 0 that awaits its order.
struct Mark {
  int combining_class;
  char32_t c;
  std::uint32_t origin;
  bool inserted;  // not the first of its decomposition
  bool removed;
};

}  // namespace

/// The normal form that grows, and the marks that may still change places.
template <bool kOrigins>
struct BertNormalizer::Output {
  std::string& to;
  std::vector<std::uint32_t>* origins = nullptr;  // of each byte of `to`
  std::uint32_t origin = 0;                       // number of the code point that is being rewritten
  std::vector<Mark> marks = {};

  void push(char byte) {
    to.push_back(byte);
    if constexpr (kOrigins) origins->push_back(origin);
  }
  void append(const char* begin, const char* end) {
    to.append(begin, end);
    if constexpr (kOrigins) origins->resize(to.size(), origin);
  }
  void append(char32_t c, std::uint32_t from) {
    append_code_point(c, to);
    if constexpr (kOrigins) origins->resize(to.size(), from);
  }
};

BertNormalizer::BertNormalizer(const BertNormalizerOptions& options)
    : unicode_(Unicode::tables()),
      clean_(options.clean_text),
      space_ideographs_(options.handle_chinese_chars),
      strip_(options.strip_accents.value_or(options.lowercase)),
      lowercase_(options.lowercase) {
  if (clean_) rewritten_ |= traits::kDropped | traits::kWhiteSpace;
  if (space_ideographs_) rewritten_ |= traits::kIdeograph;
  if (strip_) rewritten_ |= traits::kDecomposing | traits::kNonspacingMark | traits::kReordering;
  if (lowercase_) rewritten_ |= traits::kHasLowercase;
  for (char32_t c = 0; c < ascii_.size(); ++c) {
    const std::uint8_t traits = unicode_.traits(c);
    auto to = static_cast<std::uint8_t>(c);
    if (clean_ && (traits & traits::kWhiteSpace) != 0) to = ' ';
    if (clean_ && (traits & traits::kDropped) != 0) to = kRemoved;
    if (lowercase_ && (traits & traits::kHasLowercase) != 0) to = static_cast<std::uint8_t>(Unicode::lowercase(c));
    ascii_[c] = to;
  }
}

void BertNormalizer::normalize(std::string_view text, std::string& to) const {
  to.clear();
  Output<false> out{.to = to};
  rewrite(text, out);
}

void BertNormalizer::normalize(std::string_view text, std::string& to, std::vector<std::uint32_t>& origins) const {
  to.clear();
  origins.clear();
  Output<true> out{.to = to, .origins = &origins};
  rewrite(text, out);
}

template <bool kOrigins>
void BertNormalizer::rewrite(std::string_view text, Output<kOrigins>& out) const {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end; ++out.origin) {
    const char* const start = p;
    const char32_t c = next_code_point(p);
    if (c < 0x80) {
      const std::uint8_t byte = ascii_[c];
      if (byte == kRemoved) continue;
      if (!out.marks.empty()) flush(out);
      out.push(static_cast<char>(byte));
      continue;
    }
    const std::uint8_t traits = unicode_.traits(c);
    if ((traits & rewritten_) != 0) {
      append_rewritten(c, traits, out);
    } else {
      if (!out.marks.empty()) flush(out);
      out.append(start, p);
    }
  }
  flush(out);
}

template <bool kOrigins>
void BertNormalizer::append_rewritten(char32_t c, std::uint8_t traits, Output<kOrigins>& out) const {
  if (clean_ && (traits & traits::kDropped) != 0) return;
  if (clean_ && (traits & traits::kWhiteSpace) != 0) {
    c = U' ';
    traits = unicode_.traits(c);
  }
  const bool spaced = space_ideographs_ && (traits & traits::kIdeograph) != 0;
  if (spaced) append_decomposed({.c = U' ', .traits = unicode_.traits(U' ')}, out);
  if (strip_ && (traits & traits::kDecomposing) != 0) {
    const Decomposition decomposition = Unicode::decompose(c);
    for (int i = 0; i < decomposition.count; ++i) {
      const char32_t part = decomposition.parts[static_cast<std::size_t>(i)];
      append_decomposed({.c = part, .traits = unicode_.traits(part), .inserted = i > 0}, out);
    }
  } else {
    append_decomposed({.c = c, .traits = traits}, out);
  }
  if (spaced) append_decomposed({.c = U' ', .traits = unicode_.traits(U' ')}, out);
}

template <bool kOrigins>
void BertNormalizer::append_decomposed(const Part& part, Output<kOrigins>& out) const {
  if (strip_) {
    const bool reordering = (part.traits & traits::kReordering) != 0;
    const bool removed = (part.traits & traits::kNonspacingMark) != 0;
    if (reordering) {
      // A mark that is going to be removed doesn't change the order of the others, only where they are said to come from.
      if (kOrigins || !removed) {
        out.marks.push_back({Unicode::combining_class(part.c), part.c, out.origin, part.inserted, removed});
      }
      return;
    }
    if (!out.marks.empty()) flush(out);
    if (removed) return;
  }
  append_cased(part.c, part.traits, out.origin, out);
}

template <bool kOrigins>
void BertNormalizer::append_cased(char32_t c, std::uint8_t traits, std::uint32_t origin, Output<kOrigins>& out) const {
  if (!lowercase_ || (traits & traits::kHasLowercase) == 0) {
    out.append(c, origin);
    return;
  }
  out.append(Unicode::lowercase(c), origin);
  if (c == 0x130) out.append(U'\u0307', origin);
}

template <bool kOrigins>
void BertNormalizer::flush(Output<kOrigins>& out) const {
  if (out.marks.empty()) return;
  // Hugging Face hands the characters of the text out in their order, whatever the marks' new order is: the first mark of the new
  // order is said to come from the first character, and so on; those that a decomposition added come from where the last came from.
  std::vector<std::uint32_t> handed_out;
  std::uint32_t origin = out.marks.front().origin;
  if constexpr (kOrigins) {
    for (const Mark& mark : out.marks) {
      if (!mark.inserted) handed_out.push_back(mark.origin);
    }
  }
  std::stable_sort(out.marks.begin(), out.marks.end(),
                   [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
  auto next = handed_out.begin();
  for (const Mark& mark : out.marks) {
    if (kOrigins && !mark.inserted) origin = *next++;
    if (!mark.removed) append_cased(mark.c, unicode_.traits(mark.c), origin, out);
  }
  out.marks.clear();
}

}  // namespace lathe
