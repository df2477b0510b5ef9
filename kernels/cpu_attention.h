#pragma once
// What the two directions of attention share on the CPU: how queries are cut into tiles, the transposed copy of a tile's rows,
// and the causal mask. Internal to the CPU kernels (cpu_dispatch.h).
//
// Scores are held transposed: a row a key, a lane a query. So K and V, which change from tile to tile, are read as they lie in
// memory, one element at a time against whole vectors of queries; only Q (and d_out, in backward) is copied, once a tile of
// queries. Softmax runs down the lanes, without a horizontal sum or maximum, and products that sum over queries or keys read a
// tile's exact rows: no key and no query beyond a sequence's end takes part.
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/cpu_vector.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Vectors of queries that a tile has at most, and the elements from one of its rows to the next.
inline constexpr int kTileVectors = 4;
template <class T>
inline constexpr std::int64_t kTileStep = kTileVectors* kLanes<T>;

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// A sequence's queries are cut into tiles of `rows`, the last one less: as few tiles as can be, of equal numbers of vectors
/// where possible.
struct QueryTiles {
  std::int64_t count;
  std::int64_t rows;
};
template <class T>
[[gnu::always_inline]] inline QueryTiles cut_queries(std::int64_t queries, std::int64_t max_vectors) {
  const std::int64_t vectors = ceil_divide(queries, kLanes<T>);
  const std::int64_t count = ceil_divide(vectors, max_vectors);
  if (count == 0) return {0, 0};
  return {count, ceil_divide(vectors, count) * kLanes<T>};
}

/// Vectors a tile may have so that its transposed copy takes at most so many bytes.
template <class T>
[[gnu::always_inline]] inline std::int64_t vectors_within(std::int64_t bytes, std::int64_t head_size) {
  const std::int64_t fit = bytes / (kVectorBytes * ceil_divide(head_size, kLanes<T>) * kLanes<T>);
  return fit < 1 ? 1 : (fit > kTileVectors ? kTileVectors : fit);
}

/// to[d * to_step + i] = factor * from[i * from_step + d] for i below rows and d below columns, and 0 up to the next whole vector
/// of each.
template <class T>
[[gnu::always_inline]] inline void transpose_rows(const T* from, std::int64_t from_step, std::int64_t rows, std::int64_t columns,
                                                  T factor, T* to, std::int64_t to_step) {
  constexpr int kWidth = kLanes<T>;
  for (std::int64_t i = 0; i < rows; i += kWidth) {
    for (std::int64_t d = 0; d < columns; d += kWidth) {
      const Tail<T> tail = first_lanes<T>(columns - d < kWidth ? columns - d : kWidth);
      Vector<T> block[kWidth];
#pragma GCC unroll 16
      for (int r = 0; r < kWidth; ++r) {
        block[r] = i + r < rows ? load_vector(from + (i + r) * from_step + d, tail) * factor : Vector<T>{};
      }
      transpose<T>(block);
#pragma GCC unroll 16
      for (int r = 0; r < kWidth; ++r) store_vector(to + (d + r) * to_step + i, block[r]);
    }
  }
}

/// Keys that the last of a tile's queries sees, of those that the sequence has.
[[gnu::always_inline]] inline std::int64_t visible_keys(AttentionMask mask, std::int64_t last_query, std::int64_t queries,
                                                        std::int64_t keys) {
  if (mask == AttentionMask::full) return keys;
  const std::int64_t seen = last_query + 1 + keys - queries;
  return seen < 0 ? 0 : (seen > keys ? keys : seen);
}

/// Fills the lanes of queries that a causal mask keeps from a key, in each row of a tile. `first_edge` is the first row's key less
/// the first lane's last visible key; negative where that query sees more.
template <class T>
[[gnu::always_inline]] inline void fill_hidden(T* tile, std::int64_t keys, std::int64_t lanes, std::int64_t first_edge, T value) {
  for (std::int64_t j = first_edge < 0 ? -first_edge : 0; j < keys; ++j) {
    const std::int64_t hidden = first_edge + j < lanes ? first_edge + j : lanes;
    for (std::int64_t lane = 0; lane < hidden; ++lane) tile[j * kTileStep<T> + lane] = value;
  }
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
