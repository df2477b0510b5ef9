#pragma once
// What the two directions of attention share on the CPU: how queries are cut into tiles, the transposed copy of a tile's rows,
// and the causal mask. Internal to the CPU kernels (cpu_dispatch.h).
//
// Scores are held transposed: a row a key, a lane a query. So K and V, which change from tile to tile, are read as they lie in
// memory, one element at a time against whole vectors of queries; only Q (and d_out, in backward) is copied, once a tile of
// queries. Softmax runs down the lanes, without a horizontal sum or maximum, and products that sum over queries or keys read a
// tile's exact rows: no key and no query beyond a sequence's end takes part.
#include <omp.h>

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

/// Writes to[d * to_step + i] = from[i * step + d] for a vector of rows i and the columns d of `kQuarters` quarters. Of the rows from
/// `rows` on, each repeats an earlier one.
template <class T, int kQuarters>
[[gnu::always_inline]] inline void transpose_block(const T* from, std::int64_t step, std::int64_t rows, T* to,
                                                   std::int64_t to_step) {
  constexpr int kPieces = kVectorBytes / 16;
  Vector<T> block[kQuarters][kQuarter<T>];
#pragma GCC unroll 4
  for (int r = 0; r < kQuarter<T>; ++r) {
    const T* row[kPieces];
    row[0] = from + (r < rows ? r : 0) * step;
#pragma GCC unroll 4
    for (int i = 1; i < kPieces; ++i) row[i] = r + i * kQuarter<T> < rows ? from + (r + i * kQuarter<T>)*step : row[0];
#pragma GCC unroll 4
    for (int c = 0; c < kQuarters; ++c) {
      block[c][r] = load_quarters(row);
      for (const T*& at : row) at += kQuarter<T>;
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kQuarters; ++c) {
    transpose_quarters(block[c]);
#pragma GCC unroll 4
    for (int r = 0; r < kQuarter<T>; ++r) {
      store_vector(to, block[c][r]);
      to += to_step;
    }
  }
}

/// to[d * to_step + i] = from[i * from_step + d] for i below rows and d below columns. Up to the next whole vector of queries rows
/// are repeated.
template <class T>
[[gnu::noinline]] void transpose_rows(const T* from, std::int64_t from_step, std::int64_t rows, std::int64_t columns, T* to,
                                      std::int64_t to_step) noexcept {
  constexpr int kQuarters = kManyRegisters ? 4 : 2;
  for (std::int64_t i = 0; i < rows; i += kLanes<T>) {
    const T* block = from + i * from_step;
    std::int64_t d = 0;
    for (; d + kQuarters * kQuarter<T> <= columns; d += kQuarters * kQuarter<T>) {
      transpose_block<T, kQuarters>(block + d, from_step, rows - i, to + d * to_step + i, to_step);
    }
    for (; d + kQuarter<T> <= columns; d += kQuarter<T>) {
      transpose_block<T, 1>(block + d, from_step, rows - i, to + d * to_step + i, to_step);
    }
    for (; d < columns; ++d) {
      for (int r = 0; r < kLanes<T>; ++r) to[d * to_step + i + r] = block[(i + r < rows ? r : 0) * from_step + d];
    }
  }
}

/// The sequences of a packed batch, each with `units` pieces of work of about equal cost.
struct PackedWork {
  const std::int32_t* cu_q;
  const std::int32_t* cu_k;
  std::int64_t sequences;

  std::int64_t queries(std::int64_t b) const { return cu_q[b + 1] - cu_q[b]; }
  std::int64_t keys(std::int64_t b) const { return cu_k[b + 1] - cu_k[b]; }
  /// In scores of one head; what a query costs besides is worth some 16. Never 0: an empty sequence may have gradients to zero.
  std::int64_t cost(std::int64_t b) const { return (queries(b) + 1) * (keys(b) + 16); }
  std::int64_t cost() const {
    std::int64_t sum = 0;
    for (std::int64_t b = 0; b < sequences; ++b) sum += cost(b);
    return sum;
  }

  /// The first unit of a thread's share, which ends where the next thread's begins. Shares are runs of units, so that a thread meets
  /// the rows that it met in other kernels, which share rows out in runs; they cost about the same. units(b): those of a sequence.
  template <class Units>
  std::int64_t share_begin(std::int64_t thread, std::int64_t threads, const Units& units) const {
    const std::int64_t target = cost() * thread / threads;
    std::int64_t before = 0;
    std::int64_t first = 0;
    for (std::int64_t b = 0; b < sequences; ++b) {
      const std::int64_t here = cost(b);
      if (before + here > target) return first + (target - before) * units(b) / here;
      before += here;
      first += units(b);
    }
    return first;
  }
};

/// Runs body(begin, end) for runs of the units that together are all of them, each run on a thread of its own. One thread works
/// without OpenMP: a team of one would cost an allocation, and the other threads' team.
template <class Units, class Body>
[[gnu::always_inline]] inline void share_units(int threads, const PackedWork& work, const Units& units, const Body& body) {
  if (threads <= 1) {
    body(work.share_begin(0, 1, units), work.share_begin(1, 1, units));
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int all = omp_get_num_threads();
    const int thread = omp_get_thread_num();
    body(work.share_begin(thread, all, units), work.share_begin(thread + 1, all, units));
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
