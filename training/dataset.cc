#include "lathe/training/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

void require_types_below(std::int64_t types, const TokenizedSamples& samples, const WordPieceTokenizer& tokenizer,
                         TextKind kind) {
  const auto highest = std::ranges::max_element(samples.types);
  if (highest == samples.types.end() || *highest < types) return;
  throw MismatchError(
      fmt::format("{}: {} get the token type {}, but config.json's type_vocab_size is {}: take the tokenizer that the "
                  "model was trained with",
                  tokenizer.files().front().string(), kind == TextKind::pair ? "pairs" : "texts", *highest, types));
}

/// A template need not put [CLS] in front; an empty text then has no token that a head could read.
void require_tokens(const TokenizedSamples& samples, const Records& records) {
  for (std::int64_t i = 0; i < records.size(); ++i) {
    if (samples.length(i) > 0) continue;
    throw FormatError(records.source(), fmt::format("line {}", records.line(i)),
                      "the text makes no token, and the model's tokenizer puts none around it: there is nothing to classify");
  }
}

}  // namespace

EncodedTexts tokenize(const Classifier& classifier, const Records& records, TextKind kind, std::int32_t max_length, int threads) {
  TextSource source{.count = records.size(), .text = [&](std::int64_t i) { return records.text(i); }};
  if (kind == TextKind::pair) source.pair = [&](std::int64_t i) { return records.pair(i); };
  const WordPieceTokenizer& tokenizer = classifier.tokenizer();
  EncodedTexts encoded =
      encode_all(tokenizer, source, {.max_length = max_length, .truncation = Truncation::longest_first, .threads = threads});
  require_types_below(classifier.config().token_types, encoded.samples, tokenizer, kind);
  require_tokens(encoded.samples, records);
  return encoded;
}

}  // namespace lathe
