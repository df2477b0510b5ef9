// Activations on the CPU.
#include "lathe/kernels/activation.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// gelu_tanh is x sigmoid(2 u), since (1 + tanh u) / 2 = sigmoid(2 u): nothing cancels.
template <class T>
[[gnu::always_inline]] inline T gelu_argument(T x) {
  constexpr T kTwiceRoot = static_cast<T>(1.5957691216057307117597842397375);  // 2 sqrt(2 / pi)
  return kTwiceRoot * x * (T{1} + static_cast<T>(0.044715) * x * x);
}
template <class T>
[[gnu::always_inline]] inline T gelu_argument_slope(T x) {
  constexpr T kTwiceRoot = static_cast<T>(1.5957691216057307117597842397375);
  return kTwiceRoot * (T{1} + static_cast<T>(3 * 0.044715) * x * x);
}

template <Activation kActivation, class T>
[[gnu::always_inline]] inline T value(T x) {
  if constexpr (kActivation == Activation::gelu_erf) return x * normal(x).cumulative;
  if constexpr (kActivation == Activation::gelu_tanh) return x * sigmoid(gelu_argument(x));
  if constexpr (kActivation == Activation::relu) return x < T{0} ? T{0} : x;
  if constexpr (kActivation == Activation::tanh) return tanh(x);
  if constexpr (kActivation == Activation::sigmoid) return sigmoid(x);
  if constexpr (kActivation == Activation::silu) return x * sigmoid(x);
}

template <Activation kActivation, class T>
[[gnu::always_inline]] inline T slope(T x) {
  if constexpr (kActivation == Activation::gelu_erf) {
    const Normal<T> n = normal(x);
    return n.cumulative + x * n.density;
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    const Logistic<T> s = logistic(gelu_argument(x));
    return s.value + x * s.slope * gelu_argument_slope(x);
  }
  if constexpr (kActivation == Activation::relu) return x > T{0} ? T{1} : (x <= T{0} ? T{0} : x);  // 0 at 0; NaN comes through
  if constexpr (kActivation == Activation::tanh) return T{4} * logistic(T{2} * x).slope;  // 1 - tanh(x)^2, where 1 - y^2 cancels
  if constexpr (kActivation == Activation::sigmoid) return logistic(x).slope;
  if constexpr (kActivation == Activation::silu) {
    const Logistic<T> s = logistic(x);
    return s.value + x * s.slope;
  }
}

template <Activation kActivation, class T>
void forward(CpuStream stream, const ActivationForward<T>& a) {
  share_ranges(threads_for(stream, a.tokens * a.channels), a.tokens, [&](Range range) {
    for (std::int64_t t = range.first; t < range.end; ++t) {
      T* const y = a.y + t * a.channels;
      const T* const x = a.x + t * a.channels;
      if (a.bias != nullptr) {  // NOLINT(bugprone-branch-clone): it does not look into loops under a pragma
#pragma omp simd
        for (std::int64_t f = 0; f < a.channels; ++f) y[f] = value<kActivation>(x[f] + a.bias[f]);
      } else {
#pragma omp simd
        for (std::int64_t f = 0; f < a.channels; ++f) y[f] = value<kActivation>(x[f]);
      }
    }
  });
}

/// d_x of a row, and the row added to its part's sum over rows where `d_bias` is not null.
template <Activation kActivation, class T>
[[gnu::always_inline]] inline void backward_row(const ActivationBackward<T>& a, std::int64_t t, T* d_bias) {
  const std::int64_t row = t * a.channels;
  alignas(64) T d_x[kTile];
  for (std::int64_t f = 0; f < a.channels; f += kTile) {
    const std::int64_t count = tile_columns(a.channels, f);
    const T* const d_y = a.d_y + row + f;
    const T* const x = a.x + row + f;
    if (a.bias != nullptr) {
      const T* const bias = a.bias + f;
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) d_x[i] = d_y[i] * slope<kActivation>(x[i] + bias[i]);
    } else {
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) d_x[i] = d_y[i] * slope<kActivation>(x[i]);
    }
    put(a.use_x, a.d_x + row + f, d_x, count);
    if (d_bias != nullptr) put(Use::add, d_bias + f, d_x, count);
  }
}

template <Activation kActivation, class T>
void backward(CpuStream stream, const ActivationBackward<T>& a) {
  const bool sums_bias = a.d_bias != nullptr && a.use_bias != Use::skip;
  const std::int64_t parts = row_parts(a.tokens);
  T* const sums = reinterpret_cast<T*>(a.workspace);
  const int threads = threads_for(stream, a.tokens * a.channels);
  share_ranges(threads, parts, [&](Range range) {
    for (std::int64_t p = range.first; p < range.end; ++p) {
      T* const d_bias = sums_bias ? sums + p * a.channels : nullptr;
      if (sums_bias) clear(d_bias, a.channels);
      const Range rows = part_rows(a.tokens, parts, p);
      for (std::int64_t t = rows.first; t < rows.end; ++t) backward_row<kActivation>(a, t, d_bias);
    }
  });
  if (sums_bias) {
    share_tiles(threads, a.channels,
                [&](std::int64_t f, std::int64_t count) { sum_parts(a.use_bias, a.d_bias, sums, parts, a.channels, f, count); });
  }
}

template <Activation kActivation, class T>
void compute(CpuStream stream, const ActivationForward<T>& args) {
  forward<kActivation>(stream, args);
}
template <Activation kActivation, class T>
void compute(CpuStream stream, const ActivationBackward<T>& args) {
  backward<kActivation>(stream, args);
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  switch (args.activation) {
    case Activation::gelu_erf:
      return compute<Activation::gelu_erf>(stream, args);
    case Activation::gelu_tanh:
      return compute<Activation::gelu_tanh>(stream, args);
    case Activation::relu:
      return compute<Activation::relu>(stream, args);
    case Activation::tanh:
      return compute<Activation::tanh>(stream, args);
    case Activation::sigmoid:
      return compute<Activation::sigmoid>(stream, args);
    case Activation::silu:
      return compute<Activation::silu>(stream, args);
  }
}
template void run(CpuStream, const ActivationForward<float>&);
template void run(CpuStream, const ActivationForward<double>&);
template void run(CpuStream, const ActivationBackward<float>&);
template void run(CpuStream, const ActivationBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
