#pragma once
// What the CPU kernels over rows [T, C] share: when threads pay, how rows are cut into parts, runs of columns that stay in the
// first-level cache, and the three uses of a result. Internal to the CPU kernels: every instruction set has its own copy, with
// internal linkage (cpu_dispatch.h).
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/cpu_vector.h"
#include "lathe/kernels/types.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Columns that are taken at once: what dropout decides at once. Results between one step and the next wait in buffers of
/// this length.
inline constexpr std::int64_t kTile = kDropoutColumns;

/// Elements from which a memory-bound kernel gains more from threads than waking them costs (some 5 us of work).
inline constexpr std::int64_t kParallelElements = 1 << 14;

struct Range {
  std::int64_t first, end;
};

/// The rows of part `part` of `parts` parts as equal as can be.
[[gnu::always_inline]] inline Range part_rows(std::int64_t rows, std::int64_t parts, std::int64_t part) {
  return {rows * part / parts, rows * (part + 1) / parts};
}

/// Columns of the tile that starts at `column`.
[[gnu::always_inline]] inline std::int64_t tile_columns(std::int64_t columns, std::int64_t column) {
  return columns - column < kTile ? columns - column : kTile;
}

/// to[i] = from[i], to[i] += from[i], or neither.
template <class T>
[[gnu::always_inline]] inline void put(Use use, T* to, const T* from, std::int64_t count) {
  if (use == Use::write) {  // NOLINT(bugprone-branch-clone): it does not look into loops under a pragma
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
  } else if (use == Use::add) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
  }
}

/// to[i] = 0.
template <class T>
[[gnu::always_inline]] inline void clear(T* to, std::int64_t count) {
  __builtin_memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

/// y[column + i] (by `use`) = the sum over parts p, in order, of partials[p * stride + column + i], for the tile at `column`.
template <class T>
[[gnu::always_inline]] inline void sum_parts(Use use, T* y, const T* partials, std::int64_t parts, std::int64_t stride,
                                             std::int64_t column, std::int64_t count) {
  if (use == Use::skip) return;
  alignas(64) T total[kTile];
  put(Use::write, total, partials + column, count);
  for (std::int64_t p = 1; p < parts; ++p) put(Use::add, total, partials + p * stride + column, count);
  put(use, y + column, total, count);
}

/// Stands for all lanes where a Tail could stand.
struct AllLanes {};
template <class T>
[[gnu::always_inline]] inline Vector<T> load_vector(const T* from, AllLanes /*lanes*/) {
  return load_vector(from);
}
template <class T>
[[gnu::always_inline]] inline void store_vector(T* to, Vector<T> x, AllLanes /*lanes*/) {
  store_vector(to, x);
}

/// Sums that over_columns() keeps apart, so that an addition need not wait for the one before.
inline constexpr int kChains = 4;

/// Calls body(i, lanes, chain) for the vectors of columns 0..count: `lanes` is AllLanes, at last a Tail; `chain` (0..kChains) is
/// known to the compiler.
template <class T, class Body>
[[gnu::always_inline]] inline void over_columns(std::int64_t count, Body body) {
  constexpr std::int64_t kWidth = kLanes<T>;
  std::int64_t i = 0;
  for (; i + kChains * kWidth <= count; i += kChains * kWidth) {
    body(i, AllLanes{}, 0);
    body(i + kWidth, AllLanes{}, 1);
    body(i + 2 * kWidth, AllLanes{}, 2);
    body(i + 3 * kWidth, AllLanes{}, 3);
  }
  for (; i + kWidth <= count; i += kWidth) body(i, AllLanes{}, 0);
  if (i < count) body(i, first_lanes<T>(count - i), 1);
}

/// The sum of all lanes of all chains.
template <class T>
[[gnu::always_inline]] inline T sum_chains(const Vector<T> (&sums)[kChains]) {
  T lanes[kLanes<T>];
  store_vector(lanes, (sums[0] + sums[1]) + (sums[2] + sums[3]));
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

/// *to = x, *to += x, or neither, for the lanes.
template <class T, class Lanes>
[[gnu::always_inline]] inline void put_vector(Use use, T* to, Vector<T> x, Lanes lanes) {
  if (use == Use::skip) return;
  store_vector(to, use == Use::add ? load_vector(to, lanes) + x : x, lanes);
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
