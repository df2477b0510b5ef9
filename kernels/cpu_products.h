#pragma once
// Small matrix products whose operands lie in cache, for kernels that make a product a step among others: a block of the result
// stays in registers through the whole depth. Internal to the CPU kernels (cpu_dispatch.h).
#include <cstdint>
#include <utility>

#include "lathe/kernels/cpu_vector.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// How the left factor lies in memory: element (row, k) at a[row * a_step + k], or at a[k * a_step + row].
enum class LeftFactor : std::uint8_t { by_rows, by_columns };

/// c[row, :] = scale[row] * sum_k a(row, k) * b[k, :], or with old_scale: c[row, :] = old_scale[row] * c[row, :] + that. The sum
/// runs in order of k, in one accumulator an element. Columns of b and c are contiguous; nothing beyond them is touched.
template <class T>
struct Product {
  T* c;
  std::int64_t c_step;
  const T* a;
  std::int64_t a_step;
  const T* b;
  std::int64_t b_step;
  std::int64_t rows, columns, depth;
  const T* scale;
  const T* old_scale;       ///< null: c is written, not read
  std::int64_t scale_step;  ///< 1: a factor a row; 0: one for all rows
};

/// Rows of a block with so many vectors a row (from 1): as many accumulators as leave registers for the operands, 0 where such
/// blocks don't pay.
constexpr std::uint32_t max_block_rows(int vectors) {
  constexpr std::uint32_t kMany[] = {16, 13, 8, 6};
  constexpr std::uint32_t kFew[] = {12, 6, 0, 0};
  return kManyRegisters ? kMany[vectors - 1] : kFew[vectors - 1];
}
inline constexpr int kMaxBlockVectors = kManyRegisters ? 4 : 2;

/// Rows [row, row + kRows) x vectors [column, column + kVectors) of a product; with a tail, its one vector is the last and partial.
template <class T, LeftFactor kLeft, int kRows, int kVectors, bool kPartial>
[[gnu::noinline]] void product_block(const Product<T>& p, std::int64_t row, std::int64_t column) noexcept {
  constexpr int kWidth = kLanes<T>;
  constexpr int kGroups = (kRows + 3) / 4;  // four rows are addressed from one pointer
  const Tail<T> tail = first_lanes<T>(kPartial ? p.columns - column : 0);
  const auto load = [&](const T* from, int n) {
    if constexpr (kPartial) {
      return load_vector(from, tail);
    } else {
      return load_vector(from + n * kWidth);
    }
  };
  Vector<T> sum[kRows][kVectors] = {};
  const T* b = p.b + column;
  const std::int64_t a_step = p.a_step;
  const std::int64_t b_step = p.b_step;
  const T* group[kGroups];
#pragma GCC unroll 4
  for (std::int64_t g = 0; g < kGroups; ++g) {
    const std::int64_t first = row + 4 * g;
    group[g] = p.a + (kLeft == LeftFactor::by_rows ? first * a_step : first);
  }
  for (std::int64_t k = p.depth; k > 0; --k) {
    Vector<T> right[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) right[n] = load(b, n);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const Vector<T> left = broadcast(group[m / 4][kLeft == LeftFactor::by_rows ? (m % 4) * a_step : m % 4]);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] += left * right[n];
    }
    b += b_step;
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) group[g] += kLeft == LeftFactor::by_rows ? 1 : a_step;
  }
  T* c = p.c + row * p.c_step + column;
  const std::int64_t c_step = p.c_step;
  const std::int64_t scale_step = p.scale_step;
  const T* scale = p.scale + row * scale_step;
  const T* old_scale = p.old_scale == nullptr ? nullptr : p.old_scale + row * scale_step;
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) sum[m][n] *= *scale;
    if (old_scale != nullptr) {
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sum[m][n] += load(c, n) * *old_scale;
      old_scale += scale_step;
    }
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      if constexpr (kPartial) {
        store_vector(c, sum[m][n], tail);
      } else {
        store_vector(c + n * kWidth, sum[m][n]);
      }
    }
    c += c_step;
    scale += scale_step;
  }
}

template <class T>
struct BlockTable {
  void (*rows[16])(const Product<T>&, std::int64_t, std::int64_t) noexcept;
};

template <class T, LeftFactor kLeft, int kVectors, bool kPartial, std::size_t... kRow>
constexpr BlockTable<T> block_table(std::index_sequence<kRow...> /*rows*/) {
  return {{&product_block<T, kLeft, static_cast<int>(kRow) + 1, kVectors, kPartial>...}};
}

template <class T, LeftFactor kLeft, int kVectors, bool kPartial>
[[gnu::noinline]] void product_column(const Product<T>& p, std::int64_t column) noexcept {
  constexpr std::uint32_t kMaxRows = max_block_rows(kVectors);
  static constexpr BlockTable<T> kBlocks = block_table<T, kLeft, kVectors, kPartial>(std::make_index_sequence<kMaxRows>{});
  const auto rows = static_cast<std::uint32_t>(p.rows);
  const std::uint32_t blocks = (rows + kMaxRows - 1) / kMaxRows;
  const std::uint32_t least = blocks <= 1 ? rows : rows / blocks;
  const std::uint32_t larger = rows - blocks * least;  // blocks of one row more come first
  std::int64_t row = 0;
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const std::uint32_t count = i < larger ? least + 1 : least;
    kBlocks.rows[count - 1](p, row, column);
    row += count;
  }
}

/// Cuts the result's columns into blocks of vectors of nearly equal width, each of these into blocks of rows.
template <class T, LeftFactor kLeft>
[[gnu::noinline]] void evaluate(const Product<T>& p) noexcept {
  const auto vectors = static_cast<std::uint32_t>(p.columns / kLanes<T>);
  const std::uint32_t blocks = (vectors + kMaxBlockVectors - 1) / kMaxBlockVectors;
  const std::uint32_t least = blocks <= 1 ? vectors : vectors / blocks;
  const std::uint32_t larger = vectors - blocks * least;  // blocks of one vector more come first
  std::int64_t column = 0;
  for (std::uint32_t i = 0; i < blocks; ++i) {
    const std::uint32_t width = i < larger ? least + 1 : least;
    if (width == 1) {
      product_column<T, kLeft, 1, false>(p, column);
    } else if (width == 2) {
      product_column<T, kLeft, 2, false>(p, column);
    } else if constexpr (kMaxBlockVectors == 4) {
      if (width == 3) {
        product_column<T, kLeft, 3, false>(p, column);
      } else {
        product_column<T, kLeft, 4, false>(p, column);
      }
    }
    column += width * kLanes<T>;
  }
  if (column < p.columns) product_column<T, kLeft, 1, true>(p, column);
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
