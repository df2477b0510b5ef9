#pragma once
// Dropout whose masks are a function of (seed, step, sample, position, site, column): equal for every packing, launch geometry,
// backend and number of ranks, and never stored.
#include <cstdint>

#include "lathe/kernels/philox.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// The random bits of one element-wise dropout site over rows of C columns. Element (t, c) draws value c % 8 of the Philox call
/// with counter (sample[t], position[t], site, c / 8) and is kept where the value >= threshold, then multiplied by
/// dropout_scale(threshold).
struct Dropout {
  const RandomKey* key = nullptr;          ///< device scalar; not read where threshold is 0
  const std::int32_t* sample = nullptr;    ///< [T] number of the row's sequence in the global batch
  const std::int32_t* position = nullptr;  ///< [T] position in its sequence
  std::uint32_t site = 0;                  ///< which dropout of the model this is
  std::uint32_t threshold = 0;             ///< round(65,536 p), at most 65,535; 0 keeps everything
};

/// round(65,536 p) for 0 <= p < 1.
constexpr std::uint32_t dropout_threshold(double p) {
  // NOLINTNEXTLINE(bugprone-incorrect-roundings): std::lround is not constexpr
  const auto rounded = static_cast<std::uint32_t>(p * 65536.0 + 0.5);
  return rounded > 65535U ? 65535U : rounded;
}

/// What kept elements are multiplied by: 1 / (1 - threshold / 65,536), the exact inverse of the share that is kept.
constexpr double dropout_scale(std::uint32_t threshold) { return 65536.0 / (65536.0 - threshold); }

/// y[t,c] = x[t,c] times dropout_scale where it is kept, times 0 where not, so that NaN comes through. Shapes: x, y [T, C]; y may
/// be x. Deterministic.
template <class T>
struct DropoutForward {
  T* y;
  const T* x;
  Dropout dropout;
  std::int64_t tokens, channels;
};

/// d_x[t,c] (written or added to) = d_y[t,c] kept and scaled, or 0. d_x may be d_y where it is written. Deterministic.
template <class T>
struct DropoutBackward {
  T* d_x;
  Use use;
  const T* d_y;
  Dropout dropout;
  std::int64_t tokens, channels;
};

template <class T>
void dropout_forward(CpuStream stream, const DropoutForward<T>& args);
template <class T>
void dropout_forward(CudaStream stream, const DropoutForward<T>& args);
template <class T>
void dropout_backward(CpuStream stream, const DropoutBackward<T>& args);
template <class T>
void dropout_backward(CudaStream stream, const DropoutBackward<T>& args);

}  // namespace lathe
