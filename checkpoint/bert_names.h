#pragma once
// The names that published BERT weights go by, and what a configuration expects of them.
//
// Canonical names, those that Lathe uses inside, are Hugging Face's without `bert.`: "embeddings.word_embeddings.weight",
// "encoder.layer.0.attention.self.query.weight", "pooler.dense.bias", "classifier.weight". Matrices are [out, in].
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/error.h"

namespace [[gnu::visibility("default")]] lathe {

/// What it means that a file lacks a tensor.
enum class Presence : std::uint8_t {
  required,     ///< an error
  optional,     ///< the model starts it anew; where the file has it, its shape must fit
  replaceable,  ///< the model starts it anew, also where the file has it in another shape: a head for other labels
};

/// A tensor of a model, by its canonical name.
struct ExpectedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  Presence presence = Presence::required;
};

/// All tensors of a BERT in the order of its forward pass; with `classes` > 0 also the classification head's, as `head` has it.
/// The pooler is required where the head is, else optional: models for masked words or for tokens come without one.
std::vector<ExpectedTensor> bert_tensors(const BertConfig& config, std::int64_t classes, Presence head = Presence::required);

/// All tensors of a BERT with a head for masked words (BertForMaskedLM), in the order of its forward pass: no pooler, and cls.predictions.bias,
/// transform.dense and transform.LayerNorm, all optional. The decoder is the word embeddings (tied), and no tensor of its own:
/// cls.predictions.decoder.*, which older files hold as well, is passed over among the other heads.
std::vector<ExpectedTensor> masked_lm_tensors(const BertConfig& config);

/// Where an expected tensor lies in a file.
struct MatchedTensor {
  std::string name;  ///< canonical
  const TensorEntry* entry = nullptr;
};

/// Weights that don't fit a configuration. The message has the first and the number of all; problems() has each.
class WeightsMismatchError : public MismatchError {
 public:
  WeightsMismatchError(const std::filesystem::path& weights, std::vector<std::string> problems);
  /// "pooler.dense.bias is missing", "bert.embeddings.word_embeddings.weight is [20, 64], expected [20, 32]".
  const std::vector<std::string>& problems() const noexcept { return problems_; }

 private:
  std::vector<std::string> problems_;
};

/// How a file answers what is expected of it.
struct BertMatch {
  std::vector<MatchedTensor> found;      ///< in the order expected
  std::vector<std::string> absent;       ///< canonical names of tensors to start anew, because the file lacks them
  std::vector<std::string> replaced;     ///< the same, because the file has them in another shape; "classifier.weight [3, 384]"
  std::vector<std::string> other_heads;  ///< the file's names of heads that aren't asked for: cls.*, qa_outputs.*, classifier.*
  std::vector<std::string> unused;       ///< the file's names that Lathe has no place for
  /// What keeps the file from being loaded: canonical names of required tensors that it lacks; shapes, types and layers that don't fit,
  /// as "pooler.dense.bias is [3], expected [4]".
  std::vector<std::string> missing, misfits;
};

/// Finds each expected tensor in `file`, as match_bert_tensors does, and tells what is missing and doesn't fit instead of throwing
/// MismatchError.
BertMatch compare_bert_tensors(const SafetensorsFile& file, std::span<const ExpectedTensor> expected);

/// Finds each expected tensor in `file`, under names with or without `bert.`, LayerNorm.gamma and beta for weight and bias. An
/// integer embeddings.position_ids is passed over. A weight that is to start anew takes its bias with it, and the other way
/// round. Throws WeightsMismatchError, with all that is wrong, where required tensors are missing, shapes or types
/// don't fit, or the file has more encoder layers than are expected, and FormatError where two names mean the same tensor. `file`
/// must outlive the result.
BertMatch match_bert_tensors(const SafetensorsFile& file, std::span<const ExpectedTensor> expected);

/// The name that Hugging Face's BertForSequenceClassification and BertForMaskedLM give a tensor: `bert.` before all but the head's.
std::string published_bert_name(std::string_view canonical);

/// Throws MismatchError where a tokenizer of `tokens` ids doesn't fit a configuration of `rows` rows of embeddings: where it has more, or so many
/// fewer that the rest can't be padding (rows to the next multiple of 8 to 128, as some models are published).
void check_vocabulary(std::int64_t rows, std::int64_t tokens, const std::filesystem::path& config,
                      const std::filesystem::path& tokenizer);

}  // namespace lathe
