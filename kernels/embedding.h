#pragma once
// Word + position + type embeddings with the LayerNorm and dropout that BERT puts after them, and their deterministic gradients.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/dropout.h"
#include "lathe/kernels/layernorm.h"
#include "lathe/kernels/row_parts.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// z[t,:] = words[token[t],:] + positions[position[t],:] + types[type[t],:];
/// y[t,:] = dropout(gamma * (z - mean) * rstd + beta); without gamma, y = dropout(z), and z, mean, rstd are not written.
/// Shapes: y, z [T, C]; words [V, C]; positions [P, C] (null: none); types [Y, C] (null: none, as type); token, position, type
/// [T], which the caller has checked against V, P and Y; on CUDA C is at most 8,192 (std::invalid_argument beyond). The
/// dropout's own position array may be the same one. Deterministic; no workspace.
template <class T>
struct EmbeddingForward {
  T* y;
  T* z;
  Accumulator<T>* mean;
  Accumulator<T>* rstd;
  const T* words;
  const T* positions;
  const T* types;
  const std::int32_t* token;
  const std::int32_t* position;
  const std::int32_t* type;
  const T* gamma;
  const T* beta;
  Dropout dropout;
  double epsilon;
  std::int64_t tokens, channels;
};

/// First half of backward: d_z from d_y through dropout and LayerNorm, with d_gamma and d_beta (sums as in
/// LayerNormBackward). Without gamma (null) d_z is d_y through the dropout alone. d_z may be d_y.
template <class T>
struct EmbeddingNormBackward {
  T* d_z;
  Accumulator<T>* d_gamma;
  Use use_gamma;
  Accumulator<T>* d_beta;
  Use use_beta;
  const T* d_y;
  const T* z;
  const Accumulator<T>* mean;
  const Accumulator<T>* rstd;
  const T* gamma;
  Dropout dropout;
  std::byte* workspace;  ///< layernorm_backward_workspace<T>(tokens, channels) bytes, aligned to 64
  std::int64_t tokens, channels;
};

/// The token ids of a batch sorted by the loader, so that the device sorts nothing. Tokens with one id form a segment; a segment
/// is cut into splits of at most kEmbeddingSplit tokens. Lists are padded to their bound: a segment with row -1 is empty.
struct EmbeddingSegments {
  const std::int32_t* order;          ///< [T] token numbers t, sorted by id, then by t
  const std::int32_t* split_start;    ///< [splits + 1] into order
  const std::int32_t* segment_split;  ///< [segments + 1] into splits
  const std::int32_t* segment_row;    ///< [segments] row of the table, -1 for none
  std::int64_t splits, segments;
};
inline constexpr std::int64_t kEmbeddingSplit = 64;

/// Second half: d_words[segment_row] += sum over the segment of d_z, each split in order, then the splits in order; where
/// use_words is write, the whole table [V, C] is zeroed first. d_positions[p] (use_positions; all P rows are written or none) =
/// sum over sequences b in order of d_z at index p - first_position of b; d_types[y] (use_types; all Y rows) = sum over its tokens,
/// in parts whose sums are added in order: on a CPU LayerNorm's, on CUDA parts of the positions. Each use may be skip. Shapes: d_z [T, C];
/// d_words [V, C], d_positions [P, C], d_types [Y, C] in the accumulator's type; every token's position is below P, also where d_positions
/// is skipped. A CUDA block owns a split, then a segment; some positions, each of its warps a run of sequences. Deterministic, whatever the
/// number of threads.
template <class T>
struct EmbeddingBackward {
  Accumulator<T>* d_words;
  Use use_words;
  Accumulator<T>* d_positions;
  Use use_positions;
  Accumulator<T>* d_types;
  Use use_types;
  const T* d_z;
  EmbeddingSegments segments;
  const std::int32_t* cu_seqlens;  ///< [B + 1]
  const std::int32_t* type;        ///< [T]
  std::int32_t first_position;     ///< position of a sequence's first token: 0 for BERT, 2 for RoBERTa
  std::byte* workspace;            ///< embedding_backward_workspace<T>(...) bytes, aligned to 64
  std::int64_t tokens, sequences, channels, vocabulary, positions, types;
};

/// Bytes of workspace: a row a split, and at most `types` rows a part of T.
template <class T>
constexpr std::int64_t embedding_backward_workspace(std::int64_t tokens, std::int64_t splits, std::int64_t channels,
                                                    std::int64_t types) {
  return (splits + row_parts(tokens) * types) * channels * static_cast<std::int64_t>(sizeof(Accumulator<T>));
}

template <class T>
void embedding_forward(CpuStream stream, const EmbeddingForward<T>& args);
template <class T>
void embedding_forward(CudaStream stream, const EmbeddingForward<T>& args);
template <class T>
void embedding_norm_backward(CpuStream stream, const EmbeddingNormBackward<T>& args);
template <class T>
void embedding_norm_backward(CudaStream stream, const EmbeddingNormBackward<T>& args);
template <class T>
void embedding_backward(CpuStream stream, const EmbeddingBackward<T>& args);
template <class T>
void embedding_backward(CudaStream stream, const EmbeddingBackward<T>& args);

}  // namespace lathe
