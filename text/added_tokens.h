#pragma once
// Tokens that are found in a text as they stand, before it is cut into words: [SEP] and its like, and what users added.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/unicode.h"

namespace lathe {

/// An added token, with the flags of tokenizer.json.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false;  ///< Not found beside a word character.
  bool lstrip = false;       ///< Takes the white space on its left.
  bool rstrip = false;       ///< Takes the white space on its right.
  bool normalized = false;   ///< Its normal form is sought in the normalized text; otherwise its content in the text as it came.
};

/// A part of a text: an added token, or (no id) what lies between.
struct TextPiece {
  std::string_view text;
  std::optional<std::int32_t> id;
};

/// Finds a set of added tokens: leftmost first, of those the longest, without overlap.
class AddedTokenFinder {
 public:
  struct Pattern {
    std::string text;  ///< Not empty, and of no other pattern.
    AddedToken token;
  };

  explicit AddedTokenFinder(std::vector<Pattern> patterns);

  bool empty() const noexcept { return patterns_.empty(); }

  /// Replaces `pieces` by those of `text` (well-formed UTF-8), in order. Empty pieces between tokens are left out.
  void split(std::string_view text, std::vector<TextPiece>& pieces) const;

 private:
  /// The longest pattern at the front of `text`, or null.
  const Pattern* match(std::string_view text) const noexcept;
  std::size_t space_before(std::string_view text, std::size_t start) const noexcept;
  std::size_t space_behind(std::string_view text, std::size_t stop) const noexcept;

  const Unicode& unicode_;
  std::vector<Pattern> patterns_;              // by first byte, the longest first
  std::array<std::uint32_t, 257> by_first_{};  // where the patterns of a first byte begin
};

}  // namespace lathe
