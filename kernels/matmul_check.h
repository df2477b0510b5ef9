#pragma once
// What every backend asks of a product's sizes and strides before it touches anything. Internal to kernels/.
#include <cstdint>
#include <stdexcept>
#include <string>

#include "lathe/kernels/matmul.h"

namespace lathe {

/// Throws std::invalid_argument, with the sizes, unless a matrix of `rows` x `columns` can lie in memory with this row stride.
inline void check_stride(const char* matrix, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  if (stride >= columns) return;
  throw std::invalid_argument(std::string("matmul: rows overlap in ") + matrix + " [" + std::to_string(rows) + ", " +
                              std::to_string(columns) + "] with row stride " + std::to_string(stride));
}

/// Throws std::invalid_argument unless the sizes, strides and options are a product's.
template <class T, class C>
void check_matmul(const Matmul<T, C>& p) {
  if (p.m < 0 || p.n < 0 || p.k < 0) {
    throw std::invalid_argument("matmul: negative size, M = " + std::to_string(p.m) + ", N = " + std::to_string(p.n) +
                                ", K = " + std::to_string(p.k));
  }
  const bool a_transposed = p.transpose_a == Transpose::yes;
  const bool b_transposed = p.transpose_b == Transpose::yes;
  check_stride("a", a_transposed ? p.k : p.m, a_transposed ? p.m : p.k, p.lda);
  check_stride("b", b_transposed ? p.n : p.k, b_transposed ? p.k : p.n, p.ldb);
  check_stride("c", p.m, p.n, p.ldc);
  if (p.bias != nullptr && p.use == Use::add) throw std::invalid_argument("matmul: a bias where c is added to");
}

/// Whether there is anything to multiply.
template <class T, class C>
bool is_product(const Matmul<T, C>& p) {
  return p.use != Use::skip && p.m > 0 && p.n > 0 && p.k > 0;
}

}  // namespace lathe
