#include "lathe/training/dataset.h"

namespace lathe {

EncodedTexts tokenize(const WordPieceTokenizer& tokenizer, const Records& records, TextKind kind, std::int32_t max_length,
                      int threads) {
  TextSource source{.count = records.size(), .text = [&](std::int64_t i) { return records.text(i); }};
  if (kind == TextKind::pair) source.pair = [&](std::int64_t i) { return records.pair(i); };
  return encode_all(tokenizer, source, {.max_length = max_length, .truncation = Truncation::longest_first, .threads = threads});
}

}  // namespace lathe
