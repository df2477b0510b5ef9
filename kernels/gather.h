#pragma once
// The labelled rows of a packed batch, and back. The loader gives both directions of the selection, so that neither scatters.
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// y[r,:] = x[row_token[r],:]. Shapes: x [T, C]; y [R, C]; row_token [R], each in [0, T). Deterministic.
template <class T>
struct GatherForward {
  T* y;
  const T* x;
  const std::int32_t* row_token;
  std::int64_t rows, channels;
};

/// d_x[t,:] (written or added to) = token_row[t] < 0 ? 0 : d_y[token_row[t],:]: one pass over T, no zero fill, no atomics.
/// Shapes: d_x [T, C]; d_y [R, C]; token_row [T]. A token is in at most one row. Deterministic.
template <class T>
struct GatherBackward {
  T* d_x;
  Use use;
  const T* d_y;
  const std::int32_t* token_row;
  std::int64_t tokens, channels;
};

template <class T>
void gather_forward(CpuStream stream, const GatherForward<T>& args);
template <class T>
void gather_forward(CudaStream stream, const GatherForward<T>& args);
template <class T>
void gather_backward(CpuStream stream, const GatherBackward<T>& args);
template <class T>
void gather_backward(CudaStream stream, const GatherBackward<T>& args);

}  // namespace lathe
