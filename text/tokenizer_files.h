#pragma once
// What the files of a WordPiece tokenizer say, checked: tokenizer.json, or vocab.txt with tokenizer_config.json.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lathe/text/added_tokens.h"
#include "lathe/text/bert_normalizer.h"
#include "lathe/text/wordpiece_model.h"

namespace lathe {

/// A step of the template that frames the texts: a text, or special tokens.
struct TemplateStep {
  enum class Kind : std::uint8_t { first_text, second_text, special_tokens };
  Kind kind;
  std::int32_t type;              ///< token type of all its tokens
  std::vector<std::int32_t> ids;  ///< of special tokens
};

struct TokenizerDescription {
  std::vector<VocabularyEntry> vocabulary;
  WordPieceModel::Options model;
  BertNormalizerOptions normalizer;
  std::vector<AddedToken> added;
  std::vector<TemplateStep> single;  ///< uses the first text once
  std::vector<TemplateStep> pair;    ///< uses each text once
  std::int32_t vocabulary_size = 0;  ///< the highest id, plus 1
};

/// Reads Hugging Face's tokenizer.json. Its truncation, padding and decoder are not looked at. FormatError for what isn't valid,
/// and for any part that isn't a BERT tokenizer's, with its field and value; FileError where reading fails.
TokenizerDescription read_tokenizer_json(const std::filesystem::path& path);

/// A BERT tokenizer of the vocabulary `path`: a token a line, whose id is the line's number from 0. A byte order mark and CRs at
/// line ends are dropped. [UNK], [CLS] and [SEP] must be there. FormatError, with the line, for an empty file, a token that
/// occurs twice, or invalid UTF-8.
TokenizerDescription read_vocabulary(const std::filesystem::path& path, const BertNormalizerOptions& normalizer);

/// As above, with the settings of the file tokenizer_config.json, whose defaults are those of Hugging Face's BertTokenizer.
TokenizerDescription read_vocabulary(const std::filesystem::path& path, const std::filesystem::path& configuration);

}  // namespace lathe
