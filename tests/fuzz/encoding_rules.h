#pragma once
// What holds for every tokenizer and every text.
#include <algorithm>
#include <string>
#include <string_view>

#include "lathe/text/utf8.h"
#include "lathe/text/wordpiece.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {

inline constexpr std::int64_t kPlenty = std::int64_t{1} << 40U;

inline Encoding encoded(const WordPieceTokenizer& tokenizer, std::string_view text, std::int64_t max_length = kPlenty) {
  Encoding result;
  tokenizer.encode(text, max_length, result);
  return result;
}

inline void check_ids(const WordPieceTokenizer& tokenizer, const Encoding& encoding) {
  require(encoding.types.size() == encoding.ids.size(), "each token has a type");
  for (const std::int32_t id : encoding.ids)
    require(id >= 0 && id < tokenizer.vocabulary_size(), "ids are rows of the vocabulary");
  require(encoding.unknown == std::ranges::count(encoding.ids, tokenizer.special_tokens().unknown), "unknown tokens are counted");
}

inline void check_encoding(const WordPieceTokenizer& tokenizer, std::string_view text) {
  const Encoding whole = encoded(tokenizer, text);
  check_ids(tokenizer, whole);
  require(whole.truncated == 0, "what fits isn't cut");
  require(whole.repaired == !is_valid_utf8(text), "only what isn't UTF-8 is repaired");
  if (whole.repaired) require(encoded(tokenizer, repair_utf8(text)).ids == whole.ids, "repairing first changes nothing");

  const auto specials = static_cast<std::int64_t>(encoded(tokenizer, "").ids.size());
  const auto length = static_cast<std::int64_t>(whole.ids.size());
  const std::int64_t room = std::min(specials + 3, length);
  const Encoding cut = encoded(tokenizer, text, room);
  check_ids(tokenizer, cut);
  require(static_cast<std::int64_t>(cut.ids.size()) == room, "a text is cut to the length, not below");
  require(cut.truncated == length - room, "what is cut is counted");
}

/// A token of the vocabulary is found under its name, by its id.
inline void check_vocabulary(const WordPieceTokenizer& tokenizer) {
  for (std::int32_t id = 0; id < tokenizer.vocabulary_size(); ++id) {
    const std::string_view token = tokenizer.token(id);
    if (!token.empty()) require(tokenizer.find(token) == id, "a token is found by its name");
  }
}

}  // namespace lathe::fuzz
