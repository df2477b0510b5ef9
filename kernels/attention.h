#pragma once
// Scaled dot-product attention (Vaswani et al., 2017) over packed sequences, of the flash kind (Dao et al., 2022): online
// softmax, the log-sum-exp saved, no S x S matrix in memory.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lathe/kernels/philox.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// Which keys a query sees. causal aligns the last query with the last key: key j is seen by query i where j - (S_k - S_q) <= i.
enum class AttentionMask : std::uint8_t { full, causal };

/// Dropout of attention probabilities. Probability (query i, key j) of head h draws value 2 * ((j % 32) / 8) + j % 2 of the
/// Philox call with counter (sample[b], i, layer * NH + h, 4 * (j / 32) + (j % 8) / 2): one call serves the eight accumulators
/// that a thread of an m16n8k16 fragment holds. i and j count within the sequence. Kept where the value >= threshold, times
/// dropout_scale(threshold).
struct AttentionDropout {
  const RandomKey* key = nullptr;        ///< device scalar; not read where threshold is 0
  const std::int32_t* sample = nullptr;  ///< [B] number of the sequence in the global batch
  std::uint32_t layer = 0;
  std::uint32_t threshold = 0;
};

/// Tiles of queries, or of keys, that the loader cuts sequences into: tile i is rows first[i] .. first[i] + rows of sequence[i] (-1:
/// an empty tile), those that exist. The list's length is a function of the bucket alone: T / rows + B. CUDA launches one block a tile
/// and head; the CPU cuts sequences itself, in tiles that suit its caches, and does not read the list.
struct AttentionTiles {
  const std::int32_t* sequence = nullptr;
  const std::int32_t* first = nullptr;
  std::int64_t count = 0;
  std::int64_t rows = 0;
};

/// out[t,h,:] = sum_j dropout(softmax_j(scale * q[t,h,:] . k[j,h,:])) v[j,h,:] over the keys j of t's sequence that the mask lets
/// through. Shapes: q [Tq, NH, HS] with q_stride elements between rows, k, v [Tk, NH, HS] likewise (a merged QKV matrix is q, q +
/// C, q + 2C with stride 3C); out [Tq, NH, HS] contiguous; lse [NH, Tq], natural log of the sum of exponentials of scaled scores,
/// +inf for a query that sees no key (its out is 0). cu_q, cu_k [B + 1]; a sequence may be empty in either; rows from cu_q[B] on
/// are neither read nor written. HS from 1 to 256. Deterministic; no workspace. CUDA takes query tiles of 128 rows, and throws
/// std::invalid_argument for others. Sums are fp32 for bf16 too; its products are those of the tensor cores where HS is 32, 64, 96 or 128,
/// scale is positive, and q, k, v, out and their strides are multiples of 16 bytes: probabilities are rounded to bf16 then.
template <class T>
struct AttentionForward {
  T* out;
  Accumulator<T>* lse;
  const T* q;
  const T* k;
  const T* v;
  std::int64_t q_stride, k_stride, v_stride;
  const std::int32_t* cu_q;
  const std::int32_t* cu_k;
  AttentionTiles query_tiles;
  AttentionDropout dropout;
  AttentionMask mask;
  double scale;
  std::int64_t queries, keys, sequences, heads, head_size;  ///< Tq, Tk, B, NH, HS
};

/// With p = exp(scale * q.k - lse), P = dropout(p), delta[t] = d_out . out, and dP through the dropout:
///   d_v = sum_t P d_out;  ds = p * (dP - delta);  d_q = scale * sum_j ds k;  d_k = scale * sum_t ds q.
/// Each destination has its own use; d_q_stride etc. as above (the destinations may interleave as a merged d_qkv does). None may
/// alias an input. Rows of sequences that are empty on the other side are written 0 (or added nothing). d_k and d_v sum in order
/// of the query, d_q in order of the key: deterministic, whatever the number of threads. On CUDA d_q's order is that of the key within
/// a tile of keys, and then that of the tiles: a function of key_tiles.rows, not of when a block runs. bf16 products (head sizes 32,
/// 64, 96, 128, rows that begin at multiples of 16 bytes) are those of the tensor cores, with p and ds rounded to bf16 in between.
/// query_tiles: of any number of rows. key_tiles: rows a multiple of 32 (attention_key_tile_rows() has the choice); tiles of all keys,
/// and one of a sequence that has queries and no keys.
template <class T>
struct AttentionBackward {
  T* d_q;
  Use use_q;
  T* d_k;
  Use use_k;
  T* d_v;
  Use use_v;
  std::int64_t d_q_stride, d_k_stride, d_v_stride;
  const T* d_out;
  const T* out;
  const Accumulator<T>* lse;
  const T* q;
  const T* k;
  const T* v;
  std::int64_t q_stride, k_stride, v_stride;
  const std::int32_t* cu_q;
  const std::int32_t* cu_k;
  AttentionTiles query_tiles;
  AttentionTiles key_tiles;
  std::int64_t splits;  ///< the most tiles of keys that a sequence has
  AttentionDropout dropout;
  AttentionMask mask;
  double scale;
  std::byte* workspace;  ///< attention_backward_workspace<T>(...) bytes, aligned to 64; the CPU uses none
  std::int64_t queries, keys, sequences, heads, head_size;
};

/// Keys that a block has at once.
inline constexpr std::int64_t kAttentionPartKeys = 128;

/// How many keys a tile of AttentionBackward::key_tiles should have where sequences have at most so many: a function of that alone. Few
/// tiles write few sums of d_q, and many are many blocks; no sequence has more than 8.
constexpr std::int64_t attention_key_tile_rows(std::int64_t longest) {
  if (longest <= kAttentionPartKeys) return kAttentionPartKeys;
  return 2 * kAttentionPartKeys * ((longest + 16 * kAttentionPartKeys - 1) / (16 * kAttentionPartKeys));
}

/// AttentionBackward::splits of sequences of at most so many keys.
constexpr std::int64_t attention_splits(std::int64_t longest, std::int64_t key_tile_rows) {
  return longest <= key_tile_rows ? 1 : (longest + key_tile_rows - 1) / key_tile_rows;
}

/// Bytes at the workspace's beginning: two statistics of each query and head [NH, Tq, 2].
template <class T>
constexpr std::int64_t attention_statistics_bytes(std::int64_t queries, std::int64_t heads) {
  return (2 * queries * heads * static_cast<std::int64_t>(sizeof(Accumulator<T>)) + 63) / 64 * 64;
}

/// Bytes of workspace: the statistics, and, of bf16 where sequences are longer than kAttentionPartKeys or cut shorter, d_q's sums over the
/// keys of a tile [splits, Tq, NH, HS] in fp32.
template <class T>
constexpr std::int64_t attention_backward_workspace(std::int64_t queries, std::int64_t heads, std::int64_t head_size,
                                                    std::int64_t key_tile_rows, std::int64_t splits) {
  std::int64_t bytes = attention_statistics_bytes<T>(queries, heads);
  if (std::is_same_v<T, Bf16> && (splits > 1 || key_tile_rows > kAttentionPartKeys))
    bytes += splits * queries * heads * head_size * static_cast<std::int64_t>(sizeof(float));
  return bytes;
}

inline constexpr std::int64_t kMaxHeadSize = 256;

template <class T>
void attention_forward(CpuStream stream, const AttentionForward<T>& args);
template <class T>
void attention_forward(CudaStream stream, const AttentionForward<T>& args);
template <class T>
void attention_backward(CpuStream stream, const AttentionBackward<T>& args);
template <class T>
void attention_backward(CudaStream stream, const AttentionBackward<T>& args);

}  // namespace lathe
