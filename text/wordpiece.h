#pragma once
// BERT's tokenizer: from texts to token ids, equal to Hugging Face's `tokenizers` id for id.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/text/bert_normalizer.h"
#include "lathe/text/packing.h"

namespace [[gnu::visibility("default")]] lathe {

/// Which text of a pair is shortened, at its end, where both don't fit.
enum class Truncation : std::uint8_t {
  longest_first,  ///< The longer one down to the shorter's length, then both.
  only_first,     ///< The first. UsageError where nothing of it would be left.
  only_second,    ///< The second, likewise.
};

/// The code points of a text that a token stands for, [begin, end), counted from 0; equal to Hugging Face's offsets, also in that
/// special tokens of the frame have 0 and 0. Tokens may share a code point: a syllable that is taken apart, an expanded lower case. In
/// a text that wasn't UTF-8 each U+FFFD that stands in counts as one.
struct TextSpan {
  std::int32_t begin = 0;
  std::int32_t end = 0;
  std::int32_t text = -1;  ///< 0 in the text, 1 in its pair, -1 for the frame
  bool operator==(const TextSpan&) const = default;
};

/// Whether spans are wanted; ids alone take less time.
enum class Spans : std::uint8_t { none, code_points };

/// One text, or a pair, tokenized.
struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> types;  ///< 0 for the first text and the special tokens around it, 1 from the second text on
  std::vector<TextSpan> spans;      ///< of each token in its text of the pair; empty where they weren't asked for
  std::int64_t truncated = 0;       ///< tokens cut off
  std::int64_t unknown = 0;         ///< unknown tokens among `ids`
  bool repaired = false;            ///< the text wasn't UTF-8: U+FFFD stood in for each ill-formed part
};

/// The ids of special tokens.
struct SpecialTokens {
  std::int32_t unknown = 0;
  std::optional<std::int32_t> classifier;  ///< what the template puts in front of a text
  std::optional<std::int32_t> separator;   ///< what it puts behind
  std::optional<std::int32_t> padding;     ///< [PAD]
  std::optional<std::int32_t> mask;        ///< [MASK]
};

/// A WordPiece tokenizer. Immutable, cheap to copy, used by many threads at once.
class WordPieceTokenizer {
 public:
  /// From a model's folder: tokenizer.json where there is one, else vocab.txt with the settings of tokenizer_config.json (without
  /// one: those of BERT uncased). FileError where neither is there, FormatError for what they hold (tokenizer_files.h). The
  /// truncation and padding of a tokenizer.json are not used.
  static WordPieceTokenizer load(const std::filesystem::path& folder);
  /// From a vocabulary, a token a line, with BERT's usual special tokens.
  static WordPieceTokenizer from_vocabulary(const std::filesystem::path& vocabulary, const BertNormalizerOptions& options);

  /// Replaces `out` by the tokens of `text`, framed by special tokens ([CLS] A [SEP]) and cut to at most `max_length` with them.
  /// Special tokens written in the text count as such. UsageError where max_length is below the number of special tokens.
  void encode(std::string_view text, std::int64_t max_length, Encoding& out, Spans spans = Spans::none) const;
  /// The same for a pair: [CLS] A [SEP] B [SEP].
  void encode_pair(std::string_view first, std::string_view second, std::int64_t max_length, Truncation truncation, Encoding& out,
                   Spans spans = Spans::none) const;

  /// The highest id plus 1: the rows that the embeddings need.
  std::int32_t vocabulary_size() const noexcept;
  const SpecialTokens& special_tokens() const noexcept;
  /// The token of an id; empty where the vocabulary leaves a gap. LogicError for an id outside the vocabulary.
  std::string_view token(std::int32_t id) const;
  std::optional<std::int32_t> find(std::string_view token) const;
  /// The tokenizer's files, as far as they exist, to be copied beside a model that is saved: tokenizer.json, vocab.txt,
  /// tokenizer_config.json, special_tokens_map.json.
  const std::vector<std::filesystem::path>& files() const noexcept;

  /// Memory that encoding a text needs and the next text can reuse.
  struct Scratch;

 private:
  class Implementation;
  friend struct BatchEncoder;
  explicit WordPieceTokenizer(std::shared_ptr<const Implementation> implementation);

  std::shared_ptr<const Implementation> implementation_;
};

/// Texts given by their number. The views must hold until tokenizing is done.
struct TextSource {
  std::int64_t count = 0;
  std::function<std::string_view(std::int64_t)> text;
  std::function<std::string_view(std::int64_t)> pair = nullptr;  ///< null: the texts have no pairs
};

struct EncodeOptions {
  std::int64_t max_length = 128;
  Truncation truncation = Truncation::longest_first;
  int threads = 0;  ///< 0: as many as OpenMP would take
  Spans spans = Spans::none;
};

/// What became of a set of texts.
struct EncodedTexts {
  TokenizedSamples samples;     ///< in the texts' order
  std::vector<TextSpan> spans;  ///< of each of the samples' ids; empty where they weren't asked for
  std::int64_t truncated = 0;   ///< texts that were cut
  std::int64_t longest = 0;     ///< tokens of the longest text or pair before it was cut, special tokens included
  std::int64_t unknown = 0;     ///< unknown tokens
  std::int64_t repaired = 0;    ///< texts that weren't UTF-8
};

/// Tokenizes all texts, by several threads; the result doesn't depend on their number. Throws what encode and encode_pair throw
/// for the first text, by number, that can't be encoded.
EncodedTexts encode_all(const WordPieceTokenizer& tokenizer, const TextSource& texts, const EncodeOptions& options);
EncodedTexts encode_all(const WordPieceTokenizer& tokenizer, std::span<const std::string> texts, const EncodeOptions& options);

}  // namespace lathe
