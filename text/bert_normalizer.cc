#include "lathe/text/bert_normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lathe {
namespace {

constexpr std::uint8_t kRemoved = 0xFF;

}  // namespace

struct BertNormalizer::Reordering {
  std::vector<std::pair<int, char32_t>> marks;  // combining class and character, in the order of the text
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
  Reordering waiting;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const char* const start = p;
    const char32_t c = next_code_point(p);
    if (c < 0x80) {
      const std::uint8_t byte = ascii_[c];
      if (byte == kRemoved) continue;
      if (!waiting.marks.empty()) flush(to, waiting);
      to.push_back(static_cast<char>(byte));
      continue;
    }
    const std::uint8_t traits = unicode_.traits(c);
    if ((traits & rewritten_) != 0) {
      append_rewritten(c, traits, to, waiting);
    } else {
      if (!waiting.marks.empty()) flush(to, waiting);
      to.append(start, p);
    }
  }
  flush(to, waiting);
}

void BertNormalizer::append_rewritten(char32_t c, std::uint8_t traits, std::string& to, Reordering& waiting) const {
  if (clean_ && (traits & traits::kDropped) != 0) return;
  if (clean_ && (traits & traits::kWhiteSpace) != 0) {
    c = U' ';
    traits = unicode_.traits(c);
  }
  const bool spaced = space_ideographs_ && (traits & traits::kIdeograph) != 0;
  if (spaced) append_decomposed(U' ', unicode_.traits(U' '), to, waiting);
  if (strip_ && (traits & traits::kDecomposing) != 0) {
    const Decomposition decomposition = Unicode::decompose(c);
    for (int i = 0; i < decomposition.count; ++i) {
      const char32_t part = decomposition.parts[static_cast<std::size_t>(i)];
      append_decomposed(part, unicode_.traits(part), to, waiting);
    }
  } else {
    append_decomposed(c, traits, to, waiting);
  }
  if (spaced) append_decomposed(U' ', unicode_.traits(U' '), to, waiting);
}

void BertNormalizer::append_decomposed(char32_t c, std::uint8_t traits, std::string& to, Reordering& waiting) const {
  if (strip_) {
    const bool reordering = (traits & traits::kReordering) != 0;
    const bool removed = (traits & traits::kNonspacingMark) != 0;
    if (reordering) {
      // A mark that is going to be removed doesn't change the order of the others.
      if (!removed) waiting.marks.emplace_back(Unicode::combining_class(c), c);
      return;
    }
    if (!waiting.marks.empty()) flush(to, waiting);
    if (removed) return;
  }
  append_cased(c, traits, to);
}

void BertNormalizer::append_cased(char32_t c, std::uint8_t traits, std::string& to) const {
  if (!lowercase_ || (traits & traits::kHasLowercase) == 0) {
    append_code_point(c, to);
    return;
  }
  append_code_point(Unicode::lowercase(c), to);
  if (c == 0x130) append_code_point(0x307, to);
}

void BertNormalizer::flush(std::string& to, Reordering& waiting) const {
  std::stable_sort(waiting.marks.begin(), waiting.marks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [combining_class, c] : waiting.marks) append_cased(c, unicode_.traits(c), to);
  waiting.marks.clear();
}

}  // namespace lathe
