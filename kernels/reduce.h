#pragma once
// Sums in a fixed order, and the element-wise sum that the tape needs.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/row_parts.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// y[c] (written or added to) = sum_t x[t,c]: a bias gradient. Shapes: x [T, C]; y [C]. Parts and order as in LayerNormBackward.
template <class T>
struct ColumnSum {
  Accumulator<T>* y;
  Use use;
  const T* x;
  std::byte* workspace;  ///< column_sum_workspace<T>(tokens, channels) bytes, aligned to 64
  std::int64_t tokens, channels;
};

template <class T>
constexpr std::int64_t column_sum_workspace(std::int64_t tokens, std::int64_t channels) {
  return row_parts(tokens) * channels * static_cast<std::int64_t>(sizeof(Accumulator<T>));
}

/// *y = sum of x[0..count) in fp64, rounded at the end; the CPU adds in order, a CUDA block in a fixed order of its own. For the few
/// numbers that are reported (a loss per row), not for tensors.
template <class T>
struct Sum {
  T* y;
  const T* x;
  std::int64_t count;
};

/// y[i] = a[i] + b[i]; y may be a or b.
template <class T>
struct Add {
  T* y;
  const T* a;
  const T* b;
  std::int64_t count;
};

template <class T>
void column_sum(CpuStream stream, const ColumnSum<T>& args);
template <class T>
void column_sum(CudaStream stream, const ColumnSum<T>& args);
template <class T>
void sum(CpuStream stream, const Sum<T>& args);
template <class T>
void sum(CudaStream stream, const Sum<T>& args);
template <class T>
void add(CpuStream stream, const Add<T>& args);
template <class T>
void add(CudaStream stream, const Add<T>& args);

}  // namespace lathe
