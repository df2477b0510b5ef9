#pragma once
// What the CPU kernels over rows [T, C] share: when threads pay, how rows are cut into parts, runs of columns that stay in the
// first-level cache, and the three uses of a result. Internal to the CPU kernels: every instruction set has its own copy, with
// internal linkage (cpu_dispatch.h).
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/types.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Columns that are taken at once. Results on their way from one step to the next wait in buffers of this length; it is a constant
/// that keeps the inner loops short of branches, and what dropout decides at once.
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
  if (use == Use::write) {
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

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
