#pragma once
// config.json of a BERT, as Hugging Face writes it.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// The feed-forward's activation; what config.json calls it is in brackets.
enum class HiddenActivation : std::uint8_t {
  gelu,       ///< x * Phi(x), by erf [gelu]
  gelu_tanh,  ///< its tanh approximation [gelu_new, gelu_pytorch_tanh]
  relu,       ///< [relu]
  silu,       ///< [silu]
  tanh,       ///< [tanh]
};

/// The sizes and settings of a BERT. The defaults are those of Hugging Face's BertConfig, which hold where a file has no such
/// key.
struct BertConfig {
  std::int64_t vocabulary_size = 30522;  ///< vocab_size: rows of the word embeddings
  std::int64_t hidden_size = 768;
  std::int64_t layers = 12;  ///< num_hidden_layers
  std::int64_t heads = 12;   ///< num_attention_heads; divides hidden_size
  std::int64_t intermediate_size = 3072;
  std::int64_t max_positions = 512;  ///< max_position_embeddings
  std::int64_t token_types = 2;      ///< type_vocab_size
  HiddenActivation hidden_activation = HiddenActivation::gelu;
  double layer_norm_epsilon = 1e-12;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;            ///< attention_probs_dropout_prob
  std::optional<double> classifier_dropout;  ///< where absent, hidden_dropout holds
  double initializer_range = 0.02;           ///< standard deviation of new weights
  std::int32_t pad_token_id = 0;
  bool tied_words = true;  ///< tie_word_embeddings: a head for masked words decodes by the word embeddings
  std::string model_type = "bert";
  std::vector<std::string> architectures;
  std::vector<std::string> labels;  ///< by id (id2label); empty where the file names none
  std::string problem_type;         ///< empty where absent
  /// The JSON text that this was loaded from: save() carries over what Lathe has no name for.
  std::string document;

  std::int64_t head_size() const noexcept { return hidden_size / heads; }

  /// Reads config.json. Throws FileError or FormatError: not strict JSON, keys missing (all are listed), values of the wrong type
  /// or out of range, ids of labels that aren't 0..n-1 or contradict each other, and models that Lathe can't run as they were
  /// trained: another model_type, relative positions, decoders, heads wider than 256, pruned heads, quantized weights,
  /// activations other than above.
  static BertConfig load(const std::filesystem::path& path);
  /// The same from a text; `path` is what errors name.
  static BertConfig parse(std::string_view text, const std::filesystem::path& path);

  /// Makes this the configuration of a BertForSequenceClassification with these labels, in the order of their ids.
  void set_sequence_classification(std::vector<std::string> label_names);

  /// Makes this the configuration of a BertForMaskedLM, without labels.
  void set_masked_lm();

  /// The text of config.json: `document` with this struct's values in it and the type of the weights that Lathe writes, float32.
  /// Values that haven't changed keep their spelling. Throws LogicError for labels that occur twice.
  std::string to_json() const;
  /// Writes to_json() to `path`, atomically. Throws FileError.
  void save(const std::filesystem::path& path) const;
};

}  // namespace lathe
