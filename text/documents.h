#pragma once
// Plain text for pre-training, and the sequences that are made of it.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/packing.h"
#include "lathe/text/wordpiece.h"

namespace [[gnu::visibility("default")]] lathe {

/// Documents made of paragraphs, all in memory.
class Documents {
 public:
  std::int64_t count() const noexcept { return static_cast<std::int64_t>(documents_.size()) - 1; }
  std::int64_t paragraphs() const noexcept { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  /// Paragraph `i` of all, as the file has it.
  std::string_view paragraph(std::int64_t i) const;
  /// The first paragraph of document `i`; of count() the number of all paragraphs.
  std::int64_t first_paragraph(std::int64_t i) const { return documents_[static_cast<std::size_t>(i)]; }

 private:
  friend class DocumentReader;
  std::string text_;
  std::vector<std::size_t> offsets_{0};  // of the paragraphs in text_
  std::vector<std::int64_t> documents_{0};
};

/// The longest line that read_documents() takes.
inline constexpr std::size_t kLongestParagraph = std::size_t{64} << 20U;

/// Reads UTF-8 text: a line is a paragraph, an empty line (or one of white space alone) ends a document, and so does the end of a file. Lines
/// end at LF or CRLF; a byte order mark is dropped. Throws FileError; FormatError, with the line, for what isn't UTF-8, for a longer line than
/// kLongestParagraph, and for a file without any text.
Documents read_documents(std::span<const std::filesystem::path> files);

struct SequenceOptions {
  std::int64_t max_length = 512;  ///< tokens of a sequence, [CLS] and [SEP] included
  int threads = 0;                ///< 0: as many as OpenMP would take
};

/// Documents as sequences [CLS] tokens [SEP], by document.
struct DocumentSequences {
  TokenizedSamples samples;                     ///< token types are all 0, and aren't there
  std::vector<std::int64_t> first_sequence{0};  ///< [documents + 1] into samples
  std::int64_t tokens = 0;                      ///< without [CLS] and [SEP]
  std::int64_t unknown = 0;                     ///< unknown tokens among them
  std::int64_t documents() const { return static_cast<std::int64_t>(first_sequence.size()) - 1; }
};

/// Tokenizes each paragraph by itself, lays those of a document end to end, and cuts the row of tokens into sequences of `max_length`; a
/// document's last one is shorter. No sequence has tokens of two documents. Sequences of special tokens alone, written in the text, are left
/// out. Independent of `threads`. Throws MismatchError where the tokenizer's template isn't [CLS] text [SEP], and UsageError for a max_length
/// below 3.
DocumentSequences make_sequences(const WordPieceTokenizer& tokenizer, const Documents& documents, const SequenceOptions& options);

/// The sequences of the documents `members`, in that order.
TokenizedSamples sequences_of(const DocumentSequences& all, std::span<const std::int64_t> members);

/// Numbers of `documents` documents in two parts, each ascending: those that train, and a share of them, at least one, drawn from `seed` to be
/// held out. Throws UsageError where there are fewer than two.
struct HeldOut {
  std::vector<std::int64_t> train, dev;
};
HeldOut hold_out(std::int64_t documents, double share, std::uint32_t seed);

/// Whether `id` is a special token, which is never predicted: [CLS], [SEP], [MASK], [PAD], [UNK].
bool is_special(const SpecialTokens& special, std::int32_t id);

}  // namespace lathe
