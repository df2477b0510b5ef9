#pragma once
// From records to token ids.
#include <cstdint>

#include "lathe/text/records.h"
#include "lathe/text/wordpiece.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether records are single texts or pairs.
enum class TextKind : std::uint8_t { single, pair };

/// Token ids of all records, in their order, each tokenized once: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; cut to `max_length`, of
/// pairs the longer first. Independent of `threads`.
EncodedTexts tokenize(const WordPieceTokenizer& tokenizer, const Records& records, TextKind kind, std::int32_t max_length,
                      int threads);

}  // namespace lathe
