#pragma once
// BERT's way from a text to its words: cleaning, accents, case, then a split at white space and punctuation.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/unicode.h"

namespace [[gnu::visibility("default")]] lathe {

/// The settings of a BertNormalizer, named as in tokenizer.json.
struct BertNormalizerOptions {
  bool clean_text = true;            ///< Removes control characters, makes every white space a space.
  bool handle_chinese_chars = true;  ///< Puts a space on either side of each ideograph.
  /// Decomposes canonically and removes nonspacing marks. Where absent: as `lowercase`.
  std::optional<bool> strip_accents = std::nullopt;
  bool lowercase = true;  ///< Character by character, without a rule for final sigma.
};

/// Normalizes as Hugging Face's BertNormalizer does, in one pass.
class BertNormalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options);

  /// Replaces `to` by the normal form of `text`, which must be well-formed UTF-8.
  void normalize(std::string_view text, std::string& to) const;
  /// The same; `origins` is replaced by the number of the code point of `text`, from 0, that each byte of `to` comes from, as
  /// Hugging Face aligns them. They don't decrease.
  void normalize(std::string_view text, std::string& to, std::vector<std::uint32_t>& origins) const;

 private:
  template <bool kOrigins>
  struct Output;
  /// A code point of a decomposition.
  struct Part {
    char32_t c;
    std::uint8_t traits;
    bool inserted = false;  // not the first of its decomposition
  };
  template <bool kOrigins>
  void rewrite(std::string_view text, Output<kOrigins>& out) const;
  template <bool kOrigins>
  void append_rewritten(char32_t c, std::uint8_t traits, Output<kOrigins>& out) const;
  template <bool kOrigins>
  void append_decomposed(const Part& part, Output<kOrigins>& out) const;
  template <bool kOrigins>
  void append_cased(char32_t c, std::uint8_t traits, std::uint32_t origin, Output<kOrigins>& out) const;
  template <bool kOrigins>
  void flush(Output<kOrigins>& out) const;

  const Unicode& unicode_;
  bool clean_, space_ideographs_, strip_, lowercase_;
  std::uint8_t rewritten_ = 0;             // traits of the characters that don't pass as they are
  std::array<std::uint8_t, 128> ascii_{};  // what becomes of each ASCII character; kRemoved: nothing
};

/// A word of a normalized text.
struct Word {
  std::string_view text;
  std::size_t code_points;
};

/// Calls `use(Word)` for each word of `text` (well-formed UTF-8) as Hugging Face's BertPreTokenizer cuts it: white space separates
/// and is dropped, each punctuation character is a word of its own.
template <typename Use>
void for_each_word(const Unicode& unicode, std::string_view text, Use&& use) {
  const char* begin = text.data();
  const char* const end = begin + text.size();
  std::size_t code_points = 0;
  const auto finish = [&](const char* at) {
    if (code_points > 0) use(Word{{begin, static_cast<std::size_t>(at - begin)}, code_points});
    code_points = 0;
  };
  for (const char* p = begin; p != end;) {
    const char* const start = p;
    const std::uint8_t traits = unicode.traits(next_code_point(p));
    if ((traits & (traits::kWhiteSpace | traits::kPunctuation)) == 0) {
      ++code_points;
      continue;
    }
    finish(start);
    if ((traits & traits::kPunctuation) != 0) use(Word{{start, static_cast<std::size_t>(p - start)}, 1});
    begin = p;
  }
  finish(end);
}

}  // namespace lathe
