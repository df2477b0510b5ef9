#pragma once
// From records to token ids.
#include <cstdint>

#include "lathe/text/records.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/classifier.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether records are single texts or pairs.
enum class TextKind : std::uint8_t { single, pair };

/// Token ids of all records for `classifier`, in their order, each tokenized once: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; cut to
/// `max_length`, of pairs the longer first. Independent of `threads`. Throws MismatchError where the tokenizer's template gives a token
/// type that the model has no embedding for, FormatError where a text makes no token at all.
EncodedTexts tokenize(const Classifier& classifier, const Records& records, TextKind kind, std::int32_t max_length, int threads);

}  // namespace lathe
