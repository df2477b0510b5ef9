// The checks and the empty cases of every matrix product, whichever library computes it.
#include "lathe/kernels/matmul.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/matmul_backend.h"

// Exported as in the headers: what is instantiated here doesn't take its visibility from the declaration.
namespace [[gnu::visibility("default")]] lathe {
namespace {

[[noreturn]] void refuse(const char* what, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  throw std::invalid_argument(std::string("matmul: ") + what + " [" + std::to_string(rows) + ", " + std::to_string(columns) +
                              "] with row stride " + std::to_string(stride));
}

template <class T>
void check_shapes(CpuStream stream, const Matmul<T>& p) {
  if (stream.threads < 1) throw std::invalid_argument("matmul: a stream of " + std::to_string(stream.threads) + " threads");
  if (p.m < 0 || p.n < 0 || p.k < 0) {
    throw std::invalid_argument("matmul: negative size, M = " + std::to_string(p.m) + ", N = " + std::to_string(p.n) +
                                ", K = " + std::to_string(p.k));
  }
  const bool a_transposed = p.transpose_a == Transpose::yes;
  const bool b_transposed = p.transpose_b == Transpose::yes;
  if (p.lda < (a_transposed ? p.m : p.k)) refuse("rows overlap in a", a_transposed ? p.k : p.m, a_transposed ? p.m : p.k, p.lda);
  if (p.ldb < (b_transposed ? p.k : p.n)) refuse("rows overlap in b", b_transposed ? p.n : p.k, b_transposed ? p.k : p.n, p.ldb);
  if (p.ldc < p.n) refuse("rows overlap in c", p.m, p.n, p.ldc);
  if (p.bias != nullptr && p.use == Use::add) throw std::invalid_argument("matmul: a bias where c is added to");
}

template <class T>
bool is_product(const Matmul<T>& p) {
  return p.use != Use::skip && p.m > 0 && p.n > 0 && p.k > 0;
}

/// K = 0: the sum over nothing, plus the bias.
template <class T>
void write_empty_sum(const Matmul<T>& p) {
  for (std::int64_t i = 0; i < p.m; ++i) {
    if (p.bias != nullptr) {
      std::copy_n(p.bias, p.n, p.c + i * p.ldc);
    } else {
      std::fill_n(p.c + i * p.ldc, p.n, T{0});
    }
  }
}

}  // namespace

template <class T>
std::int64_t matmul_workspace(CpuStream stream, const Matmul<T>& args) {
  check_shapes(stream, args);
  if (!is_product(args)) return 0;
  if constexpr (std::is_same_v<T, float>) {
    return fp32_matmul_workspace(stream, args);
  } else {
    return eigen_matmul_workspace(stream, args);
  }
}
template std::int64_t matmul_workspace(CpuStream, const Matmul<float>&);
template std::int64_t matmul_workspace(CpuStream, const Matmul<double>&);

template <class T>
void matmul(CpuStream stream, const Matmul<T>& args) {
  check_shapes(stream, args);
  if (!is_product(args)) {
    if (args.use == Use::write) write_empty_sum(args);
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    fp32_matmul(stream, args);
  } else {
    eigen_matmul(stream, args);
  }
}
template void matmul(CpuStream, const Matmul<float>&);
template void matmul(CpuStream, const Matmul<double>&);

}  // namespace lathe
