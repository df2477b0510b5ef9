#pragma once
// BERT (Devlin et al., 2019) as Hugging Face stores it: post-norm encoder, pooler, classification head.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lathe/layers/functions.h"
#include "lathe/runtime/parameters.h"

namespace [[gnu::visibility("default")]] lathe {

/// Sizes and settings; the names of DESIGN's dimension letters in brackets.
struct BertSettings {
  std::int64_t vocabulary = 0;    ///< V
  std::int64_t hidden_size = 0;   ///< C
  std::int64_t layers = 0;        ///< L
  std::int64_t heads = 0;         ///< NH
  std::int64_t feed_forward = 0;  ///< F
  std::int64_t positions = 0;     ///< longest sequence
  std::int64_t token_types = 0;
  Activation activation = Activation::gelu_erf;
  double layer_norm_epsilon = 1e-12;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
};

/// Weight [out, in] and bias [out] of y = x weight^T + bias.
struct LinearParameters {
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;
};
struct LayerNormParameters {
  Parameter* gamma = nullptr;
  Parameter* beta = nullptr;
};

/// Word, position and type embeddings, LayerNorm, dropout: [T] -> [T, C].
class BertEmbeddings {
 public:
  BertEmbeddings(ParameterSet& parameters, const BertSettings& settings);
  Tensor forward(Tape& tape, const Batch& batch) const;
  /// The word embeddings [V, C].
  const Parameter& words() const noexcept { return *words_; }

 private:
  Parameter* words_;
  Parameter* positions_;
  Parameter* types_;
  LayerNormParameters norm_;
  double epsilon_;
  double dropout_;
};

/// Multi-head self-attention with its output projection, dropout, residual and LayerNorm: [T, C] -> [T, C], or [R, C].
class SelfAttention {
 public:
  SelfAttention(ParameterSet& parameters, const std::string& prefix, const BertSettings& settings, std::uint32_t layer);
  /// With RowKind::labelled, what follows the attention itself is done for the labelled rows alone.
  Tensor forward(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows) const;
  /// Prepares the matrix products for so many tokens of which `rows` go on after the attention.
  void prepare(std::int64_t tokens, std::int64_t rows) const;

 private:
  LinearParameters qkv_;
  LinearParameters output_;
  LayerNormParameters norm_;
  AttentionSettings attention_;
  double epsilon_;
  double dropout_;
};

/// The two dense layers with an activation between them, dropout, residual and LayerNorm: rows stay rows.
class FeedForward {
 public:
  FeedForward(ParameterSet& parameters, const std::string& prefix, const BertSettings& settings, std::uint32_t layer);
  Tensor forward(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows) const;
  void prepare(std::int64_t rows) const;

 private:
  LinearParameters up_;
  LinearParameters down_;
  LayerNormParameters norm_;
  Activation activation_;
  std::uint32_t layer_;
  double epsilon_;
  double dropout_;
};

/// What backward computes again instead of having it kept: nothing, or each layer from its input on, which costs a third more time and leaves
/// one tensor [T, C] a layer in memory, and what one layer needs.
enum class Recompute : std::uint8_t { none, blocks };

/// Embeddings and L layers.
class Bert {
 public:
  /// Adds its parameters, named as Hugging Face's BertModel names them without "bert.".
  Bert(ParameterSet& parameters, const BertSettings& settings);
  const BertSettings& settings() const noexcept { return settings_; }
  /// The word embeddings [V, C], which a masked language model also decodes with.
  const Parameter& words() const noexcept { return embeddings_.words(); }

  /// Hidden states of the last layer: [T, C], or of the labelled rows [R, C]. The labelled rows are the same numbers to rounding at less
  /// work: the last layer's projection and feed-forward are done for them alone. The same bits whatever is recomputed.
  Tensor forward(Tape& tape, const Batch& batch, RowKind rows, Recompute recompute = Recompute::none) const;
  /// Prepares the matrix products of batches of so many tokens, of which `rows` are wanted of the last layer.
  void prepare(std::int64_t tokens, std::int64_t rows) const;

 private:
  struct Layer {
    SelfAttention attention;
    FeedForward feed_forward;
    Tensor forward(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows) const {
      return feed_forward.forward(tape, attention.forward(tape, x, batch, rows), batch, rows);
    }
  };
  BertSettings settings_;
  BertEmbeddings embeddings_;
  std::vector<Layer> layers_;
};

/// tanh(x weight^T + bias) of the labelled rows: [R, C] -> [R, C].
class Pooler {
 public:
  Pooler(ParameterSet& parameters, const BertSettings& settings);
  Tensor forward(Tape& tape, const Tensor& rows) const;
  void prepare(std::int64_t rows) const;

 private:
  LinearParameters dense_;
};

/// Bert, pooler, dropout and a linear head: BertForSequenceClassification.
class BertClassifier {
 public:
  BertClassifier(ParameterSet& parameters, const BertSettings& settings, std::int64_t classes, double classifier_dropout);
  const Bert& bert() const noexcept { return bert_; }
  std::int64_t classes() const noexcept { return classes_; }
  /// Logits [R, classes].
  Tensor forward(Tape& tape, const Batch& batch, Recompute recompute = Recompute::none) const;
  /// Prepares the matrix products of batches of so many tokens and labelled rows, so that no step has to.
  void prepare(std::int64_t tokens, std::int64_t rows) const;

 private:
  Bert bert_;
  Pooler pooler_;
  LinearParameters head_;
  std::int64_t classes_;
  double dropout_;
};

/// Scores of all tokens of the vocabulary for the labelled rows: dense layer, activation, LayerNorm, and the word embeddings as a tied decoder
/// with a bias of its own (BertForMaskedLM's cls.predictions).
class MaskedLmHead {
 public:
  MaskedLmHead(ParameterSet& parameters, const BertSettings& settings);
  /// Logits [R, S] of rows [R, C], as decode() lays them out.
  Tensor forward(Tape& tape, const Tensor& rows, const Tensor& words) const;
  void prepare(std::int64_t rows, const Tensor& words) const;

 private:
  LinearParameters transform_;
  LayerNormParameters norm_;
  Parameter* bias_;
  Activation activation_;
  double epsilon_;
};

/// Bert and a masked-language-model head: BertForMaskedLM. The labelled rows are the masked tokens, gathered before the head.
class BertMaskedLm {
 public:
  BertMaskedLm(ParameterSet& parameters, const BertSettings& settings);
  const Bert& bert() const noexcept { return bert_; }
  /// Logits [R, S] as decode() lays them out.
  Tensor forward(Tape& tape, const Batch& batch, Recompute recompute = Recompute::none) const;
  /// Prepares the matrix products of batches of so many tokens and labelled rows, so that no step has to.
  void prepare(std::int64_t tokens, std::int64_t rows) const;
  /// What cross_entropy_loss() must be told of the logits.
  LossSettings loss_settings() const {
    return {.label_smoothing = 0.0, .class_weights = {}, .classes = bert_.settings().vocabulary};
  }

 private:
  Bert bert_;
  MaskedLmHead head_;
};

}  // namespace lathe
