// The checks and the empty cases of every matrix product on the CPU, whichever library computes it.
#include "lathe/kernels/matmul.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/matmul_backend.h"
#include "lathe/kernels/matmul_check.h"

// Exported as in the headers: what is instantiated here doesn't take its visibility from the declaration.
namespace [[gnu::visibility("default")]] lathe {
namespace {

template <class T>
void check(CpuStream stream, const Matmul<T>& p) {
  if (stream.threads < 1) throw std::invalid_argument("matmul: a stream of " + std::to_string(stream.threads) + " threads");
  check_matmul(p);
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
  check(stream, args);
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
  check(stream, args);
  if (stream.work == Work::rehearsed) return;
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
