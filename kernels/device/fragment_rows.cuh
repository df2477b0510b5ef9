#pragma once
// Accumulators' rows to global memory and back: as bf16 results, and as fp32 sums that the same threads go on with.
#include <cstdint>

#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/warp.cuh"
#include "lathe/kernels/types.h"

namespace lathe::device {

/// Calls put(row of the 16, first of four columns, values) for the two rows that a thread has of two neighbouring pieces of Accumulators. Lanes
/// first exchange halves with their neighbours, so that each has four columns together: 8 bytes of bf16, and 32 without a gap for the four lanes
/// of a row. All lanes take part.
template <class Put>
__device__ __forceinline__ void by_four(const float (&left)[4], const float (&right)[4], Put put) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const bool odd = lane % 2 != 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float own[2];
    float other[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      own[e] = odd ? right[2 * r + e] : left[2 * r + e];
      other[e] = __shfl_xor_sync(kAllLanes, odd ? left[2 * r + e] : right[2 * r + e], 1);
    }
    const float four[4] = {odd ? other[0] : own[0], odd ? other[1] : own[1], odd ? own[0] : other[0], odd ? own[1] : other[1]};
    put(lane / 4 + 8 * r, 8 * (lane % 2) + 4 * (lane % 4 / 2), four);
  }
}

/// A destination of gradients: rows of one head.
struct Destination {
  Bf16* rows;
  std::int64_t stride;
  Use use;
};

/// Writes scale * values of the first `present` rows, or adds it. `to.rows` is that of row 0 and column 0. All lanes take part.
template <int kM, int kN>
__device__ __forceinline__ void put_gradients(const Destination& to, const Accumulators<kM, kN>& values, int present,
                                              float scale) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      by_four(values.value[m][n], values.value[m][n + 1], [&](int row, int column, const float(&four)[4]) {
        if (16 * m + row >= present) return;
        Bf16* const place = to.rows + (16 * m + row) * to.stride + 8 * n + column;
        float result[4] = {};
        if (to.use == Use::add) to_float(load<4>(place), result);
#pragma unroll
        for (int i = 0; i < 4; ++i) result[i] = fmaf(four[i], scale, result[i]);
        store(place, from_float<Bf16>(result));
      });
    }
  }
}

/// The first `present` rows of d_q's sum over parts, zeroes behind them. A thread reads what it has written itself.
template <int kM, int kN>
__device__ __forceinline__ void load_sum(Accumulators<kM, kN>& values, const float* rows, std::int64_t stride, int present) {
  const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int row = fragment_row(r);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      Vector<float, 2> pair = {};
      if (row < present) pair = load<2>(rows + row * stride + column + 8 * n);
      values.value[r / 2][n][2 * (r % 2)] = pair[0];
      values.value[r / 2][n][2 * (r % 2) + 1] = pair[1];
    }
  }
}
template <int kM, int kN>
__device__ __forceinline__ void add(Accumulators<kM, kN>& to, const Accumulators<kM, kN>& values) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to.value[m][n][i] += values.value[m][n][i];
    }
  }
}
template <int kM, int kN>
__device__ __forceinline__ void store_sum(float* rows, std::int64_t stride, const Accumulators<kM, kN>& values, int present) {
  const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int row = fragment_row(r);
    if (row >= present) continue;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      store(rows + row * stride + column + 8 * n,
            Vector<float, 2>{values.value[r / 2][n][2 * (r % 2)], values.value[r / 2][n][2 * (r % 2) + 1]});
    }
  }
}

}  // namespace lathe::device
