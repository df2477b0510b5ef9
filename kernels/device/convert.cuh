#pragma once
// Between what is stored (fp32, bf16) and the fp32 that kernels compute in.
#include <bit>
#include <cstdint>

#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/types.h"

namespace lathe::device {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(Bf16 value) { return static_cast<float>(value); }

/// The nearest value of T, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ Bf16 from_float<Bf16>(float value) {
#ifdef LATHE_EMULATED
  return Bf16(value);
#else
  Bf16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#endif
}

/// Two values as the two halves of a word, `low` in the lower one: what an mma's fragment holds.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
#ifdef LATHE_EMULATED
  return static_cast<std::uint32_t>(Bf16(high).bits) << 16U | Bf16(low).bits;
#else
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#endif
}

/// Element by element; pairs of bf16 as the words that they are stored in, with one instruction an element.
template <class T, int N>
__device__ __forceinline__ void to_float(const Vector<T, N>& from, float (&to)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    const auto words = std::bit_cast<Vector<std::uint32_t, N / 2>>(from);
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      to[i] = std::bit_cast<float>(words[i / 2] << 16U);
      to[i + 1] = std::bit_cast<float>(words[i / 2] & 0xFFFF0000U);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = to_float(from[i]);
  }
}
template <class T, int N>
__device__ __forceinline__ Vector<T, N> from_float(const float (&from)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    Vector<std::uint32_t, N / 2> words;
#pragma unroll
    for (int i = 0; i < N; i += 2) words[i / 2] = pack_bf16(from[i], from[i + 1]);
    return std::bit_cast<Vector<T, N>>(words);
  } else {
    Vector<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] = from_float<T>(from[i]);
    return result;
  }
}

}  // namespace lathe::device
