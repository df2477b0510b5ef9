#pragma once
// From records to token ids.
#include <cstdint>
#include <filesystem>
#include <span>

#include "lathe/text/documents.h"
#include "lathe/text/records.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/classifier.h"
#include "lathe/training/token_cache.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether records are single texts or pairs.
enum class TextKind : std::uint8_t { single, pair };

/// What became of a data set's texts.
struct TokenizedTexts : EncodedTexts {
  bool from_cache = false;  ///< another run, or another process, has tokenized them
};

/// Token ids of all records for `classifier`, in their order, each tokenized once: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]; cut to
/// `max_length`, of pairs the longer first. Independent of `threads`. Throws MismatchError where the tokenizer's template gives a token
/// type that the model has no embedding for, FormatError where a text makes no token at all. With a `cache` they are tokenized once for all
/// processes and runs that have the same texts (whatever file they were read from, and how), tokenizer, kind and length.
TokenizedTexts tokenize(const Classifier& classifier, const Records& records, TextKind kind, std::int32_t max_length, int threads,
                        TokenCache* cache = nullptr);

/// Sequences of plain text, and how it was divided.
struct TokenizedDocuments : DocumentSequences {
  std::int64_t paragraphs = 0;
  bool from_cache = false;  ///< as above; the text was then not read but for its hash
};

/// read_documents() and make_sequences(), once for all processes and runs that have files of the same contents, in the same order, the same
/// tokenizer and length. Throws what those throw, and with a `cache` FileError for a file that changes while it is read.
TokenizedDocuments tokenize_documents(const WordPieceTokenizer& tokenizer, std::span<const std::filesystem::path> files,
                                      std::int32_t max_length, int threads, TokenCache* cache = nullptr);

}  // namespace lathe
