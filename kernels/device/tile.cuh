#pragma once
// Matrices in shared memory: where an element is. The only place that knows of swizzles, so that ldmatrix, cp.async and later TMA and wgmma
// see one layout.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

/// How the 16-byte pieces of a row change places from row to row, so that eight rows' pieces of one column lie in different banks. The
/// permutations are TMA's: rows of a panel have as many bytes as the swizzle is wide.
enum class Swizzle : std::uint8_t { none, bytes_64, bytes_128 };

/// kRows x kColumns elements of T, row by row in panels of columns as wide as the swizzle (one panel where there is none), the panels one
/// after another. Plain pointer arithmetic on `data`, which TMA and wgmma will want aligned to 1,024 bytes.
template <class T, int kRows, int kColumns, Swizzle kSwizzle>
struct SharedTile {
  static constexpr int kPanelBytes =
      kSwizzle == Swizzle::none ? kColumns * static_cast<int>(sizeof(T)) : (kSwizzle == Swizzle::bytes_64 ? 64 : 128);
  static constexpr int kTileRows = kRows;
  static constexpr int kTileColumns = kColumns;
  static constexpr int kPanelColumns = kPanelBytes / static_cast<int>(sizeof(T));
  static constexpr std::size_t kBytes = sizeof(T) * kRows * kColumns;
  static_assert(kColumns % kPanelColumns == 0);
  static_assert(kPanelBytes % 16 == 0);
  static_assert(kColumns == kPanelColumns || kRows % 8 == 0);  // or a row of a later panel would be flipped otherwise

  T* data;

  /// The element so many bytes from the beginning.
  __device__ __forceinline__ T* at_offset(int bytes) const { return reinterpret_cast<T*>(reinterpret_cast<char*>(data) + bytes); }
  /// The place of an element in bytes from the beginning. Eight elements of two bytes, from a column that is a multiple of eight on, lie
  /// together.
  static constexpr __host__ __device__ int offset(int row, int column) {
    const int plain = column / kPanelColumns * kRows * kPanelBytes + row * kPanelBytes + in_panel(column);
    return plain ^ flipped(row);
  }
  /// The offset of the element `rows` rows and `columns` columns on from the one at `from`: cheaper than a new one where both are constants.
  /// For steps that only set bits: rows % 8 and columns have none in common with the row and the column that `from` is of.
  static constexpr __host__ __device__ int moved(int from, int rows, int columns) {
    const int whole = (columns / kPanelColumns * kRows + rows) * kPanelBytes;
    if constexpr (kSwizzle == Swizzle::none) return from + in_panel(columns) + whole;
    return (from ^ (in_panel(columns) ^ flipped(rows))) + whole;
  }
  __device__ __forceinline__ T* at(int row, int column) const { return at_offset(offset(row, column)); }

 private:
  static constexpr __host__ __device__ int in_panel(int column) { return column % kPanelColumns * static_cast<int>(sizeof(T)); }
  /// The bits of an offset that the row flips: address bits 4-6 (4-5) by bits 7-9 (7-8).
  static constexpr __host__ __device__ int flipped(int row) {
    if constexpr (kSwizzle == Swizzle::none) return 0;
    return (row * kPanelBytes >> 7 & (kPanelBytes / 16 - 1)) << 4;
  }
};

}  // namespace lathe::device
