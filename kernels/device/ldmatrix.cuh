#pragma once
// 8 x 8 matrices of two-byte elements from shared memory into the fragments of a warp (ldmatrix).
#include <cstdint>

#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/shared.cuh"

namespace lathe::device {

/// kCount (1, 2, 4) matrices. Lane l passes the address, a multiple of 16 bytes, of row l % 8 of matrix l / 8 (lanes beyond 8 kCount pass
/// any). Word m of lane l becomes elements (l / 4, 2 (l % 4)) and the one to its right of matrix m, the first in the lower half. All lanes take
/// part.
template <int kCount>
__device__ __forceinline__ void ldmatrix(std::uint32_t (&words)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
#ifdef LATHE_EMULATED
  emulation::load_matrix(words, kCount, emulation::Transposed::no, row, std::source_location::current());
#else
  const std::uint32_t address = shared_address(row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(words[0]) : "r"(address) : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(words[0]), "=r"(words[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

/// The same of the transposed matrices: elements (2 (l % 4), l / 4) and the one below it.
template <int kCount>
__device__ __forceinline__ void ldmatrix_transposed(std::uint32_t (&words)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
#ifdef LATHE_EMULATED
  emulation::load_matrix(words, kCount, emulation::Transposed::yes, row, std::source_location::current());
#else
  const std::uint32_t address = shared_address(row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(words[0]) : "r"(address) : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(words[0]), "=r"(words[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

}  // namespace lathe::device
