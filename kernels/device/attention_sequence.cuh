#pragma once
// Where a sequence of a packed batch lies, and which of its keys a query sees.
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

/// A sequence's rows of q and of k. Known to be the same for a warp, so that they cost no register a thread; all lanes ask.
struct SequenceRows {
  std::int32_t first_query, queries;
  std::int32_t first_key, keys;
};
__device__ __forceinline__ SequenceRows sequence_rows(const std::int32_t* cu_q, const std::int32_t* cu_k, int sequence) {
  const std::int32_t first_query = from_first_lane(cu_q[sequence]);
  const std::int32_t first_key = from_first_lane(cu_k[sequence]);
  return {first_query, from_first_lane(cu_q[sequence + 1]) - first_query, first_key,
          from_first_lane(cu_k[sequence + 1]) - first_key};
}

/// How many of the sequence's keys, from its first on, a query sees.
__device__ __forceinline__ int visible_keys(AttentionMask mask, const SequenceRows& rows, int query) {
  if (mask == AttentionMask::full) return rows.keys;
  return min(max(query + 1 + rows.keys - rows.queries, 0), rows.keys);
}

/// The first query that sees the key.
__device__ __forceinline__ int first_viewer(AttentionMask mask, const SequenceRows& rows, int key) {
  return mask == AttentionMask::full ? 0 : max(key - (rows.keys - rows.queries), 0);
}

/// Scores of keys that a query doesn't see become -inf. `visible`: for each of the thread's rows, visible keys less the part's first key.
template <int kM, int kN>
__device__ __forceinline__ void hide(Accumulators<kM, kN>& scores, const int (&visible)[2 * kM]) {
  scores.each([&](float& score, int row, int column) {
    if (column >= visible[row]) score = -INFINITY;
  });
}

}  // namespace lathe::device
