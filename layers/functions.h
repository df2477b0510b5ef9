#pragma once
// Functions on tensors, recorded on a tape. Every one checks its shapes (LogicError) before it runs a kernel. Weights are [out, in], as
// in PyTorch. T may be T packed tokens or R rows.
#include "lathe/kernels/activation.h"
#include "lathe/kernels/attention.h"
#include "lathe/layers/batch.h"
#include "lathe/runtime/tape.h"

namespace [[gnu::visibility("default")]] lathe {

/// Which rows of a batch a tensor has: its tokens [T, C] or its labelled rows [R, C]. Dropout numbers them by it.
enum class RowKind : std::uint8_t { tokens, labelled };

/// y = x weight^T + bias. Shapes: x [T, K], weight [N, K], bias [N] or empty, y [T, N].
Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias);

/// Columns of decode()'s result are a multiple of it, so that rows begin where 16-byte accesses may.
inline constexpr std::int64_t kVocabularyMultiple = 64;

/// logits[r, v] = sum_c x[r, c] words[v, c] + bias[v]: scores of all tokens of a vocabulary, by the table that embeds them (tied; Press and Wolf,
/// 2017). Shapes: x [R, C], words [V, C], bias [V] or empty, logits [R, S] with S = V rounded up to a multiple of kVocabularyMultiple.
/// Columns from V on are not written, and cross_entropy_loss() is told of them by LossSettings::classes = V; their gradient must be 0, as that
/// leaves it.
Tensor decode(Tape& tape, const Tensor& x, const Tensor& words, const Tensor& bias);

/// Prepares the products of decode() and of its backward for so many rows and these words.
void prepare_decode(const Tensor& words, std::int64_t rows);

/// Prepares the products of linear() and of its backward for an x of `rows` rows and this weight, so that the first such call needn't.
void prepare_linear(const Tensor& weight, std::int64_t rows);

/// y = activation(x + bias), element-wise. Shapes: x, y [T, F]; bias [F] or empty.
Tensor activate(Tape& tape, const Tensor& x, const Tensor& bias, Activation activation);

/// y = x with a share of the elements dropped and the others scaled (kernels/dropout.h). Without the batch's random key, or with
/// probability 0, y is x itself.
Tensor dropout(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows, DropoutSite site);

/// y = gamma * normalised(residual + dropout(x + bias)) + beta. Shapes: x, residual, y [T, C]; bias, gamma, beta [C]; bias and residual
/// may be empty; x and residual must be two tensors where anything is dropped.
Tensor layer_norm(Tape& tape, const Tensor& x, const Tensor& bias, const Tensor& residual, const Tensor& gamma,
                  const Tensor& beta, double epsilon, const Batch& batch, RowKind kind, DropoutSite site);

/// What an embedding adds up, and the LayerNorm after it.
struct EmbeddingTables {
  Tensor words;        ///< [V, C]
  Tensor positions;    ///< [P, C]
  Tensor types;        ///< [Y, C], may be empty
  Tensor gamma, beta;  ///< [C], may both be empty
};
/// y[t] = dropout(layer_norm(words[token] + positions[position] + types[type])), [T, C]. Positions start at `first_position`.
Tensor embed(Tape& tape, const EmbeddingTables& tables, const Batch& batch, double epsilon, DropoutSite site,
             std::int32_t first_position = 0);

struct AttentionSettings {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::full;
  std::uint32_t layer = 0;
  double dropout = 0.0;
};
/// Self-attention of each sequence. Shapes: qkv [T, 3C], each row q, k and v of all heads; result [T, C]. Scores are scaled by
/// 1 / sqrt(HS).
Tensor attend(Tape& tape, const Tensor& qkv, const Batch& batch, const AttentionSettings& settings);

/// y[r] = x[row_token[r]]: the labelled rows. Shapes: x [T, C], y [R, C].
Tensor gather_rows(Tape& tape, const Tensor& x, const Batch& batch);

struct LossSettings {
  double label_smoothing = 0.0;
  Tensor class_weights{};    ///< [V] or empty
  std::int64_t classes = 0;  ///< V where the logits have padding columns; 0: all columns
};
/// The batch's share of the total loss, a scalar: sum_r loss_scale * cross-entropy(logits[r], label[r]). The logits [R, V] are replaced by
/// their gradient where the tape wants one; the result accepts no upstream gradient.
Tensor cross_entropy_loss(Tape& tape, const Tensor& logits, const Batch& batch, const LossSettings& settings);

}  // namespace lathe
