#pragma once
// The tensor cores of sm_80: products of small matrices whose elements are spread over the lanes of a warp.
#include <cstdint>

#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

/// Where the elements of the fragments of m16n8k16 are. Word w of a and of b has elements 2w (lower half) and 2w + 1.
struct Fragment16816 {
  /// Element i < 8 of A [16, 16].
  static constexpr __host__ __device__ int a_row(int lane, int i) { return lane / 4 + 8 * (i / 2 % 2); }
  static constexpr __host__ __device__ int a_column(int lane, int i) { return 2 * (lane % 4) + i % 2 + 8 * (i / 4); }
  /// Element i < 4 of B [16, 8].
  static constexpr __host__ __device__ int b_row(int lane, int i) { return 2 * (lane % 4) + i % 2 + 8 * (i / 2); }
  static constexpr __host__ __device__ int b_column(int lane, int) { return lane / 4; }
  /// Element i < 4 of C and D [16, 8].
  static constexpr __host__ __device__ int d_row(int lane, int i) { return lane / 4 + 8 * (i / 2); }
  static constexpr __host__ __device__ int d_column(int lane, int i) { return 2 * (lane % 4) + i % 2; }
};

/// D += A B of bf16 matrices in fp32, fragments as Fragment16816 says. All lanes take part.
__device__ __forceinline__ void mma_16816(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef LATHE_EMULATED
  emulation::mma_m16n8k16(d, a, b, std::source_location::current());
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace lathe::device
