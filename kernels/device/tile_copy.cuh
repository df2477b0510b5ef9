#pragma once
// Rows of a matrix between global memory and a tile in shared memory, 16 bytes at a time.
#include <cstdint>

#include "lathe/kernels/device/cp_async.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/tile.cuh"

namespace lathe::device {

/// Copies between kRows rows of tiles of one type and rows of a matrix, by kThreads threads: neighbours take neighbouring pieces of a row.
/// Which pieces of a tile are a thread's is worked out once.
template <class Tile, int kThreads, int kRows = Tile::kTileRows>
class TileCopy {
 public:
  /// `thread` counts the threads that take part, from 0. The tile's rows are those from `first_row` on, a multiple of 8.
  __device__ __forceinline__ explicit TileCopy(int thread, int first_row = 0)
      : row_(thread / kPieces), column_(thread % kPieces * kPiece), offset_(Tile::offset(first_row + row_, column_)) {}

  /// Where the thread's first piece is of the rows that begin at `matrix`, `stride` elements apart.
  template <class T>
  __device__ __forceinline__ T* first_piece(T* matrix, std::int64_t stride) const {
    return matrix + row_ * stride + column_;
  }

  /// Starts to copy rows [0, present) of a matrix, which begin at multiples of 16 bytes; `from` is the thread's first piece of it. The tile's
  /// rows behind them become zeroes. The caller commits and waits (cp_async.cuh).
  template <class T>
  __device__ __forceinline__ void load(Tile tile, const T* from, std::int64_t stride, int present) const {
#pragma unroll
    for (int row = 0; row < kRows; row += kStep) {
#pragma unroll
      for (int column = 0; column < Tile::kTileColumns; column += Tile::kPanelColumns) {
        cp_async<16>(tile.at_offset(Tile::moved(offset_, row, column)), from + column, row + row_ < present);
      }
      from += kStep * stride;
    }
  }

  /// Writes rows [0, present) to a matrix; `to` is the thread's first piece of it.
  template <class T>
  __device__ __forceinline__ void store(T* to, Tile tile, std::int64_t stride, int present) const {
#pragma unroll
    for (int row = 0; row < kRows; row += kStep) {
      if (row + row_ < present) {
#pragma unroll
        for (int column = 0; column < Tile::kTileColumns; column += Tile::kPanelColumns) {
          device::store<kPiece>(to + column, device::load<kPiece>(tile.at_offset(Tile::moved(offset_, row, column))));
        }
      }
      to += kStep * stride;
    }
  }

 private:
  static constexpr int kPiece = 16 * Tile::kPanelColumns / Tile::kPanelBytes;  // elements
  static constexpr int kPieces = Tile::kPanelBytes / 16;                       // of a panel's row
  static constexpr int kStep = kThreads / kPieces;                             // rows that all threads take at once
  static_assert(kThreads % kPieces == 0 && kRows % kStep == 0 && (kStep % 8 == 0 || 8 % kStep == 0));

  int row_;
  int column_;
  int offset_;
};

}  // namespace lathe::device
