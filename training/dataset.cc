#include "lathe/training/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "lathe/runtime/error.h"

namespace lathe {

EncodedTexts tokenize(const Classifier& classifier, const Records& records, TextKind kind, std::int32_t max_length, int threads) {
  TextSource source{.count = records.size(), .text = [&](std::int64_t i) { return records.text(i); }};
  if (kind == TextKind::pair) source.pair = [&](std::int64_t i) { return records.pair(i); };
  const WordPieceTokenizer& tokenizer = classifier.tokenizer();
  EncodedTexts encoded =
      encode_all(tokenizer, source, {.max_length = max_length, .truncation = Truncation::longest_first, .threads = threads});
  const auto highest = std::ranges::max_element(encoded.samples.types);
  if (highest != encoded.samples.types.end() && *highest >= classifier.config().token_types) {
    throw MismatchError(
        fmt::format("{}: {} get the token type {}, but config.json's type_vocab_size is {}: take the tokenizer that the "
                    "model was trained with",
                    tokenizer.files().front().string(), kind == TextKind::pair ? "pairs" : "texts", *highest,
                    classifier.config().token_types));
  }
  return encoded;
}

}  // namespace lathe
