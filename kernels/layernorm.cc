// LayerNorm on the CPU: a row's passes follow each other while it lies in the first-level cache.
#include "lathe/kernels/layernorm.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/cpu_rows.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// z = residual + (x + bias) * multipliers, without what is not there, for `count` columns; returns the sum of z.
template <bool kBias, bool kDropout, bool kResidual, class T>
[[gnu::always_inline]] inline T combine(T* z, const T* x, const T* bias, const T* multipliers, const T* residual,
                                        std::int64_t count) {
  T sum{0};
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    T value = x[i];
    if constexpr (kBias) value += bias[i];
    if constexpr (kDropout) value *= multipliers[i];
    if constexpr (kResidual) value += residual[i];
    z[i] = value;
    sum += value;
  }
  return sum;
}

template <class T>
[[gnu::always_inline]] inline T sum_of(const T* x, std::int64_t count) {
  T sum{0};
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

template <class T>
[[gnu::always_inline]] inline T squares_around(const T* x, T mean, std::int64_t count) {
  T sum{0};
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}

template <bool kBias, bool kDropout, bool kResidual, class T>
void forward_row(const LayerNormForward<T>& a, std::int64_t t) {
  const std::int64_t row = t * a.channels;
  const bool in_place = a.z == nullptr;
  const T* z = in_place ? a.x + row : a.z + row;
  alignas(64) T multipliers[kTile];
  T sum{0};
  for (std::int64_t c = 0; c < a.channels; c += kTile) {
    const std::int64_t count = tile_columns(a.channels, c);
    if (in_place) {
      sum += sum_of(z + c, count);
      continue;
    }
    if constexpr (kDropout) dropout_multipliers(a.dropout, t, c, multipliers);
    sum += combine<kBias, kDropout, kResidual>(a.z + row + c, a.x + row + c, kBias ? a.bias + c : nullptr, multipliers,
                                               kResidual ? a.residual + row + c : nullptr, count);
  }
  const T mean = sum / static_cast<T>(a.channels);
  T squares{0};
  for (std::int64_t c = 0; c < a.channels; c += kTile) squares += squares_around(z + c, mean, tile_columns(a.channels, c));
  const T rstd = T{1} / sqrt(squares / static_cast<T>(a.channels) + static_cast<T>(a.epsilon));
  a.mean[t] = mean;
  a.rstd[t] = rstd;
  T* y = a.y + row;
#pragma omp simd
  for (std::int64_t c = 0; c < a.channels; ++c) y[c] = a.gamma[c] * ((z[c] - mean) * rstd) + a.beta[c];
}

template <bool kBias, bool kDropout, bool kResidual, class T>
void forward_rows(CpuStream stream, const LayerNormForward<T>& a) {
#pragma omp parallel for num_threads(stream.threads) schedule(static) if (a.tokens * a.channels >= kParallelElements)
  for (std::int64_t t = 0; t < a.tokens; ++t) forward_row<kBias, kDropout, kResidual>(a, t);
}

template <bool kBias, bool kDropout, class T>
void forward_rows(CpuStream stream, const LayerNormForward<T>& a) {
  a.residual != nullptr ? forward_rows<kBias, kDropout, true>(stream, a) : forward_rows<kBias, kDropout, false>(stream, a);
}

template <bool kBias, class T>
void forward_rows(CpuStream stream, const LayerNormForward<T>& a) {
  a.dropout.threshold != 0 ? forward_rows<kBias, true>(stream, a) : forward_rows<kBias, false>(stream, a);
}

template <class T>
void compute(CpuStream stream, const LayerNormForward<T>& a) {
  a.bias != nullptr ? forward_rows<true>(stream, a) : forward_rows<false>(stream, a);
}

/// Sums over a row that its d_z needs, with g = d_y * gamma and n = (z - mean) * rstd.
template <class T>
struct RowSums {
  T g, g_n;
};

/// Adds `count` columns to the row's sums, and the row to its part's sums over rows.
template <class T>
[[gnu::always_inline]] inline void add_columns(RowSums<T>& sums, T* d_gamma, T* d_beta, const T* d_y, const T* z, const T* gamma,
                                               T mean, T rstd, std::int64_t count) {
  T sum_g{0};
  T sum_g_n{0};
#pragma omp simd reduction(+ : sum_g, sum_g_n)
  for (std::int64_t i = 0; i < count; ++i) {
    const T n = (z[i] - mean) * rstd;
    const T g = d_y[i] * gamma[i];
    sum_g += g;
    sum_g_n += g * n;
    d_gamma[i] += d_y[i] * n;
    d_beta[i] += d_y[i];
  }
  sums.g += sum_g;
  sums.g_n += sum_g_n;
}

/// A part's sums over its rows, in the workspace.
template <class T>
struct PartSums {
  T* d_gamma;
  T* d_beta;
  T* d_bias;
};

template <class T>
[[gnu::always_inline]] inline void backward_row(const LayerNormBackward<T>& a, std::int64_t t, const PartSums<T>& part) {
  const std::int64_t row = t * a.channels;
  const T mean = a.mean[t];
  const T rstd = a.rstd[t];
  RowSums<T> sums{T{0}, T{0}};
  for (std::int64_t c = 0; c < a.channels; c += kTile) {
    add_columns(sums, part.d_gamma + c, part.d_beta + c, a.d_y + row + c, a.z + row + c, a.gamma + c, mean, rstd,
                tile_columns(a.channels, c));
  }
  const T mean_g = sums.g / static_cast<T>(a.channels);
  const T mean_g_n = sums.g_n / static_cast<T>(a.channels);
  // d_x and d_residual may lie where d_y does: a tile's d_z is complete before anything is written.
  alignas(64) T d_z[kTile];
  alignas(64) T dropped[kTile];
  for (std::int64_t c = 0; c < a.channels; c += kTile) {
    const std::int64_t count = tile_columns(a.channels, c);
    const T* d_y = a.d_y + row + c;
    const T* z = a.z + row + c;
    const T* gamma = a.gamma + c;
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) d_z[i] = rstd * (d_y[i] * gamma[i] - mean_g - (z[i] - mean) * rstd * mean_g_n);
    const T* d_x = d_z;
    if (a.dropout.threshold != 0) {
      dropout_multipliers(a.dropout, t, c, dropped);
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) dropped[i] *= d_z[i];
      d_x = dropped;
    }
    put(a.use_x, a.d_x + row + c, d_x, count);
    put(a.use_residual, a.d_residual + row + c, d_z, count);
    if (a.use_bias != Use::skip) put(Use::add, part.d_bias + c, d_x, count);
  }
}

template <class T>
void compute(CpuStream stream, const LayerNormBackward<T>& a) {
  const std::int64_t parts = layernorm_backward_parts(a.tokens);
  const std::int64_t stride = 3 * a.channels;
  T* const sums = reinterpret_cast<T*>(a.workspace);
#pragma omp parallel num_threads(stream.threads) if (a.tokens * a.channels >= kParallelElements)
  {
#pragma omp for schedule(static)
    for (std::int64_t p = 0; p < parts; ++p) {
      T* const first = sums + p * stride;
      clear(first, stride);
      const Range rows = part_rows(a.tokens, parts, p);
      for (std::int64_t t = rows.first; t < rows.end; ++t) {
        backward_row(a, t, PartSums<T>{first, first + a.channels, first + 2 * a.channels});
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t c = 0; c < a.channels; c += kTile) {
      const std::int64_t count = tile_columns(a.channels, c);
      sum_parts(a.use_gamma, a.d_gamma, sums, parts, stride, c, count);
      sum_parts(a.use_beta, a.d_beta, sums + a.channels, parts, stride, c, count);
      sum_parts(a.use_bias, a.d_bias, sums + 2 * a.channels, parts, stride, c, count);
    }
  }
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const LayerNormForward<float>&);
template void run(CpuStream, const LayerNormForward<double>&);
template void run(CpuStream, const LayerNormBackward<float>&);
template void run(CpuStream, const LayerNormBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
