#pragma once
// Element-wise activations with the bias before them.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/row_parts.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// gelu_erf: x/2 (1 + erf(x / sqrt 2)), Hugging Face's "gelu"; gelu_tanh: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), its
/// "gelu_new" (Hendrycks and Gimpel, 2016). They differ by up to 4.7e-4: never one forward and the other backward. silu: x
/// sigmoid(x).
enum class Activation : std::uint8_t { gelu_erf, gelu_tanh, relu, tanh, sigmoid, silu };

/// y[t,f] = activation(x[t,f] + bias[f]). Shapes: x, y [T, F]; bias [F] or null. y may be x unless backward needs x.
/// Deterministic.
template <class T>
struct ActivationForward {
  T* y;
  const T* x;
  const T* bias;
  Activation activation;
  std::int64_t tokens, channels;
};

/// d_x = d_y * activation'(x + bias); d_bias[f] = sum_t of that. x is forward's x, for every activation (recomputed, not derived
/// from y). d_x may be d_y where it is written. d_bias and workspace may be null where d_bias is skipped. Sums over T:
/// row_parts(T) parts, each in a fixed order, then the parts in one. Deterministic, whatever the threads.
template <class T>
struct ActivationBackward {
  T* d_x;
  Use use_x;
  Accumulator<T>* d_bias;
  Use use_bias;
  const T* d_y;
  const T* x;
  const T* bias;
  Activation activation;
  std::byte* workspace;  ///< activation_backward_workspace<T>(tokens, channels) bytes, aligned to 64
  std::int64_t tokens, channels;
};

template <class T>
constexpr std::int64_t activation_backward_workspace(std::int64_t tokens, std::int64_t channels) {
  return row_parts(tokens) * channels * static_cast<std::int64_t>(sizeof(Accumulator<T>));
}

template <class T>
void activation_forward(CpuStream stream, const ActivationForward<T>& args);
template <class T>
void activation_forward(CudaStream stream, const ActivationForward<T>& args);
template <class T>
void activation_backward(CpuStream stream, const ActivationBackward<T>& args);
template <class T>
void activation_backward(CudaStream stream, const ActivationBackward<T>& args);

}  // namespace lathe
