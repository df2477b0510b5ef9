// LayerNorm on the CPU: a row's passes follow each other while it lies in the first-level cache.
#include "lathe/kernels/layernorm.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"
#include "lathe/kernels/cpu_vector.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// What a tile's columns are multiplied by: ones where nothing is dropped.
template <class T>
class Multipliers {
 public:
  explicit Multipliers(const Dropout& dropout) : dropout_(dropout) {
    for (T& value : values_) value = T{1};
  }
  [[gnu::always_inline]] const T* of(std::int64_t t, std::int64_t column) {
    if (dropout_.threshold != 0) dropout_multipliers(dropout_, t, column, values_);
    return values_;
  }

 private:
  const Dropout& dropout_;
  alignas(64) T values_[kTile];
};

/// Writes z of row t, where it has a place, and returns its sum.
template <class T>
[[gnu::always_inline]] inline T combine(const LayerNormForward<T>& a, std::int64_t t, Multipliers<T>& multipliers) {
  Vector<T> sums[kChains] = {};
  for (std::int64_t c = 0; c < a.channels; c += kTile) {
    const std::int64_t at = t * a.channels + c;
    const T* const multiplier = multipliers.of(t, c);
    over_columns<T>(
        tile_columns(a.channels, c), [&](std::int64_t i, auto lanes, int chain) __attribute__((always_inline)) {
          Vector<T> z = load_vector(a.x + at + i, lanes);
          if (a.bias != nullptr) z += load_vector(a.bias + c + i, lanes);
          z *= load_vector(multiplier + i);
          if (a.residual != nullptr) z += load_vector(a.residual + at + i, lanes);
          if (a.z != nullptr) store_vector(a.z + at + i, z, lanes);
          sums[chain] += z;
        });
  }
  return sum_chains<T>(sums);
}

template <class T>
[[gnu::always_inline]] inline T squares_around(T mean, const T* z, std::int64_t count) {
  alignas(64) T means[kLanes<T>];
  for (T& value : means) value = mean;
  Vector<T> sums[kChains] = {};
  over_columns<T>(
      count, [&](std::int64_t i, auto lanes, int chain) __attribute__((always_inline)) {
        // Lanes past the row's end have z = 0 and must have a mean of 0.
        const Vector<T> distance = load_vector(z + i, lanes) - load_vector(means, lanes);
        sums[chain] += distance * distance;
      });
  return sum_chains<T>(sums);
}

template <class T>
[[gnu::always_inline]] inline void forward_row(const LayerNormForward<T>& a, std::int64_t t, Multipliers<T>& multipliers) {
  const auto channels = static_cast<T>(a.channels);
  const T mean = combine(a, t, multipliers) / channels;
  const T* const z = (a.z != nullptr ? a.z : a.x) + t * a.channels;
  const T rstd = T{1} / sqrt(squares_around(mean, z, a.channels) / channels + static_cast<T>(a.epsilon));
  a.mean[t] = mean;
  a.rstd[t] = rstd;
  over_columns<T>(
      a.channels, [&](std::int64_t i, auto lanes, int /*chain*/) __attribute__((always_inline)) {
        const Vector<T> n = (load_vector(z + i, lanes) - mean) * rstd;
        store_vector(a.y + t * a.channels + i, load_vector(a.gamma + i, lanes) * n + load_vector(a.beta + i, lanes), lanes);
      });
}

template <class T>
void compute(CpuStream stream, const LayerNormForward<T>& a) {
  const int threads = threads_for(stream, a.tokens * a.channels);
  share_ranges(threads, a.tokens, [&](Range range) {
    Multipliers<T> multipliers(a.dropout);
    for (std::int64_t t = range.first; t < range.end; ++t) {
      forward_row(a, t, multipliers);
    }
  });
}

/// A part's sums over its rows, in the workspace.
template <class T>
struct PartSums {
  T* d_gamma;
  T* d_beta;
  T* d_bias;
};

template <class T>
[[gnu::always_inline]] inline void backward_row(const LayerNormBackward<T>& a, std::int64_t t, const PartSums<T>& part,
                                                Multipliers<T>& multipliers) {
  const T* const d_y = a.d_y + t * a.channels;
  const T* const z = a.z + t * a.channels;
  const T mean = a.mean[t];
  const T rstd = a.rstd[t];
  Vector<T> sums_g[kChains] = {};
  Vector<T> sums_g_n[kChains] = {};
  over_columns<T>(
      a.channels, [&](std::int64_t i, auto lanes, int chain) __attribute__((always_inline)) {
        const Vector<T> d = load_vector(d_y + i, lanes);
        const Vector<T> n = (load_vector(z + i, lanes) - mean) * rstd;
        const Vector<T> g = d * load_vector(a.gamma + i, lanes);
        sums_g[chain] += g;
        sums_g_n[chain] += g * n;
        store_vector(part.d_gamma + i, load_vector(part.d_gamma + i, lanes) + d * n, lanes);
        store_vector(part.d_beta + i, load_vector(part.d_beta + i, lanes) + d, lanes);
      });
  const T mean_g = sum_chains<T>(sums_g) / static_cast<T>(a.channels);
  const T mean_g_n = sum_chains<T>(sums_g_n) / static_cast<T>(a.channels);
  for (std::int64_t c = 0; c < a.channels; c += kTile) {
    const T* const multiplier = multipliers.of(t, c);
    over_columns<T>(
        tile_columns(a.channels, c), [&](std::int64_t j, auto lanes, int /*chain*/) __attribute__((always_inline)) {
          // d_x and d_residual may lie where d_y does, or both in one place: all is read before anything is written.
          const std::int64_t i = c + j;
          const Vector<T> g = load_vector(d_y + i, lanes) * load_vector(a.gamma + i, lanes);
          const Vector<T> n = (load_vector(z + i, lanes) - mean) * rstd;
          const Vector<T> d_z = rstd * (g - mean_g - n * mean_g_n);
          const Vector<T> d_x = d_z * load_vector(multiplier + j);
          put_vector(a.use_x, a.d_x + t * a.channels + i, d_x, lanes);
          put_vector(a.use_residual, a.d_residual + t * a.channels + i, d_z, lanes);
          if (a.use_bias != Use::skip) put_vector(Use::add, part.d_bias + i, d_x, lanes);
        });
  }
}

template <class T>
void compute(CpuStream stream, const LayerNormBackward<T>& a) {
  const std::int64_t parts = row_parts(a.tokens);
  const std::int64_t stride = 3 * a.channels;
  T* const sums = reinterpret_cast<T*>(a.workspace);
  const int threads = threads_for(stream, a.tokens * a.channels);
  share_ranges(threads, parts, [&](Range range) {
    Multipliers<T> multipliers(a.dropout);
    for (std::int64_t p = range.first; p < range.end; ++p) {
      T* const first = sums + p * stride;
      clear(first, stride);
      const Range rows = part_rows(a.tokens, parts, p);
      for (std::int64_t t = rows.first; t < rows.end; ++t) {
        backward_row(a, t, PartSums<T>{first, first + a.channels, first + 2 * a.channels}, multipliers);
      }
    }
  });
  share_tiles(threads, a.channels, [&](std::int64_t c, std::int64_t count) {
    sum_parts(a.use_gamma, a.d_gamma, sums, parts, stride, c, count);
    sum_parts(a.use_beta, a.d_beta, sums + a.channels, parts, stride, c, count);
    sum_parts(a.use_bias, a.d_bias, sums + 2 * a.channels, parts, stride, c, count);
  });
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
