#pragma once
// Reductions over a warp and over a block, always in the same order.
#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

struct Plus {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
  /// The larger; NaN if either is.
  __device__ __forceinline__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

/// The value of all lanes, combined as a butterfly: every lane gets the same bits. All 32 lanes take part.
template <class Combine>
__device__ __forceinline__ float reduce_warp(float value, Combine combine) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
__device__ __forceinline__ float warp_sum(float value) { return reduce_warp(value, Plus{}); }
__device__ __forceinline__ float warp_max(float value) { return reduce_warp(value, Max{}); }

/// What the warp's first lane has: of numbers that a warp needs once a row, that lane alone asks memory.
template <class V>
__device__ __forceinline__ V from_first_lane(V value) {
  return __shfl_sync(kAllLanes, value, 0);
}

/// The value of all threads of a block of kWarps warps, the same bits for every thread. All take part. `scratch` is shared memory of kWarps
/// floats; it may be used again after the next barrier.
template <int kWarps, class Combine>
__device__ __forceinline__ float reduce_block(float value, Combine combine, float* scratch) {
  value = reduce_warp(value, combine);
  if constexpr (kWarps > 1) {
    const unsigned warp = threadIdx.x / kWarp;
    if (threadIdx.x % kWarp == 0) scratch[warp] = value;
    __syncthreads();
    value = scratch[0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) value = combine(value, scratch[w]);
  }
  return value;
}

}  // namespace lathe::device
