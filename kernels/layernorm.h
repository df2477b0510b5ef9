#pragma once
// LayerNorm (Ba et al., 2016) with what stands before it in a post-norm transformer: bias, dropout and residual.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/dropout.h"
#include "lathe/kernels/row_parts.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// y[t,:] = gamma * (z[t,:] - mean[t]) * rstd[t] + beta, with z[t,:] = residual[t,:] + dropout(x[t,:] + bias) and
/// rstd = 1 / sqrt(variance + epsilon), variance over C (biased).
/// Shapes: x, residual, z, y [T, C]; bias, gamma, beta [C]; mean, rstd [T]. bias and residual may be null (absent); where both
/// are and threshold is 0, z may be null: it is x then, and backward is given x for it. z may be x or residual; y may be neither.
/// A CUDA block owns whole rows, of at most 8,192 channels (std::invalid_argument beyond). Deterministic; no workspace.
template <class T>
struct LayerNormForward {
  T* y;
  T* z;
  Accumulator<T>* mean;
  Accumulator<T>* rstd;
  const T* x;
  const T* bias;
  const T* residual;
  const T* gamma;
  const T* beta;
  Dropout dropout;
  double epsilon;
  std::int64_t tokens, channels;
};

/// With n = (z - mean) * rstd and g = d_y * gamma: d_z = rstd * (g - mean_C(g) - n * mean_C(g * n)).
/// d_residual (use_residual) takes d_z; d_x (use_x) takes d_z through the dropout; d_bias[c] = sum_t of what d_x would take, also
/// where use_x is skip; d_gamma[c] = sum_t d_y * n; d_beta[c] = sum_t d_y. Each has a use of its own and may be null where that is
/// skip; those of parameters are of the accumulator's type, since they lie in the gradient arena.
/// d_x or d_residual may be d_y's memory where it is written. d_x and d_residual may be one buffer only if threshold is 0 and they
/// are the same tensor: use_x is applied first, then use_residual.
/// Sums over T: rows are cut into row_parts(T) equal parts, each is summed in a fixed order into the workspace,
/// then the parts in a fixed order. The CPU takes rows in order of t and parts in order; a CUDA block owns a part and deals its
/// rows to its warps, whose sums it adds in order. Deterministic, whatever the number of threads.
template <class T>
struct LayerNormBackward {
  T* d_x;
  Use use_x;
  T* d_residual;
  Use use_residual;
  Accumulator<T>* d_bias;
  Use use_bias;
  Accumulator<T>* d_gamma;
  Use use_gamma;
  Accumulator<T>* d_beta;
  Use use_beta;
  const T* d_y;
  const T* z;
  const Accumulator<T>* mean;
  const Accumulator<T>* rstd;
  const T* gamma;
  Dropout dropout;
  std::byte* workspace;  ///< layernorm_backward_workspace<T>(tokens, channels) bytes, aligned to 64
  std::int64_t tokens, channels;
};

/// Bytes of workspace: three rows of partial sums a part.
template <class T>
constexpr std::int64_t layernorm_backward_workspace(std::int64_t tokens, std::int64_t channels) {
  return row_parts(tokens) * 3 * channels * static_cast<std::int64_t>(sizeof(Accumulator<T>));
}

template <class T>
void layernorm_forward(CpuStream stream, const LayerNormForward<T>& args);
template <class T>
void layernorm_forward(CudaStream stream, const LayerNormForward<T>& args);
template <class T>
void layernorm_backward(CpuStream stream, const LayerNormBackward<T>& args);
template <class T>
void layernorm_backward(CudaStream stream, const LayerNormBackward<T>& args);

}  // namespace lathe
