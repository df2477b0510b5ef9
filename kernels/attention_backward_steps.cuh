#pragma once
// The steps of attention's backward on CUDA, each in a file of its own, and what they hand to each other. attention_backward.cu has the order.
// Internal to kernels/.
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/device/attention_dropout.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/stream.h"

namespace lathe {

/// What the kernels hand to each other in the workspace.
struct AttentionScratch {
  float* statistics;  ///< [NH, Tq, 2]: lse * log2(e) and delta
  float* sums;        ///< [splits, Tq, NH, HS] of d_q before its scale; null where no sequence has several parts
};

/// d_q, d_k and d_v by the tensor cores, d_q of sequences with several tiles as their sums. Rows begin at multiples of 16 bytes. False, and
/// nothing was done, where they have no kernel for the head size.
bool attention_tensor_products(CudaStream stream, const AttentionBackward<Bf16>& args, const AttentionScratch& scratch);

/// d_q of the sequences that have several tiles of keys, from their sums.
void attention_sum_tiles(CudaStream stream, const AttentionBackward<Bf16>& args, const float* sums);

/// d_q, d_k and d_v for any head size and alignment, from the statistics.
template <class T>
void attention_plain_products(CudaStream stream, const AttentionBackward<T>& args, const float* statistics);

namespace device {

template <class T>
__device__ __forceinline__ ProbabilityDropout dropout_of(const AttentionBackward<T>& args, int sequence, int head) {
  if (args.dropout.threshold == 0) return {};
  return {args.dropout, sequence, args.dropout.layer * static_cast<std::uint32_t>(args.heads) + static_cast<std::uint32_t>(head)};
}

/// Whether a sequence has one tile of keys, whose block then writes all of its d_q.
__device__ __forceinline__ bool has_one_tile(const AttentionTiles& key_tiles, const SequenceRows& rows) {
  return rows.keys <= key_tiles.rows;
}

}  // namespace device
}  // namespace lathe
