#pragma once
// Sums over rows, column by column. A warp adds rows of a tile of columns, each lane those of its own columns with several rows on their way
// at a time; the warps of a block then add up in order.
#include <cstdint>

#include "lathe/kernels/device/row.cuh"

namespace lathe::device {

/// Warps of a block that sum different rows of one tile.
inline constexpr int kColumnWarps = 8;
/// Columns of a tile: kWidth a lane.
template <int kWidth>
inline constexpr int kTileColumns = kWarp* kWidth;
/// Rows that a warp has on their way.
inline constexpr int kRowsInFlight = 8;

/// sum[:] += the lane's kWidth columns of each row first, first + step, ... below `end`, in order. row_of(i) is where those columns of row i
/// lie, or null for a row that is not to be added.
template <int kWidth, class RowOf>
__device__ __forceinline__ void add_rows(float (&sum)[kWidth], std::int64_t first, std::int64_t end, std::int64_t step,
                                         RowOf row_of) {
  using T = std::remove_cvref_t<decltype(*row_of(first))>;
  for (std::int64_t i = first; i < end; i += kRowsInFlight * step) {
    StoredPiece<T, kWidth> rows[kRowsInFlight];
#pragma unroll
    for (int u = 0; u < kRowsInFlight; ++u) {
      rows[u] = {};
      const T* const row = i + u * step < end ? row_of(i + u * step) : nullptr;
      if (row != nullptr) rows[u] = load_piece<kWidth, Reuse::once>(row);
    }
#pragma unroll
    for (int u = 0; u < kRowsInFlight; ++u) {
      float values[kWidth];
      to_float(rows[u], values);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += values[k];
    }
  }
}

/// Shared memory for the sums of a block's warps: a lane's columns in pieces of 16 bytes, each piece of all lanes together, so that lanes
/// store without conflicts; the pieces 16 words apart from what would put them on the same banks when they are read in the columns' order.
template <int kWidth>
struct WarpSums {
  static constexpr int kPiece = kWidth < 4 ? kWidth : 4;
  static constexpr int kStride = kWarp * kPiece + 16;
  alignas(16) float value[kColumnWarps][kWidth / kPiece][kStride];
};

/// Calls put(first column of the tile, sums over the block's warps in their order of the columns from there: 16 bytes of them, or one) for the
/// tile's columns. All threads of the block take part; `shared` may be used again afterwards.
template <int kWidth, class Put>
__device__ __forceinline__ void sum_warps(const float (&sum)[kWidth], WarpSums<kWidth>& shared, Put put) {
  constexpr int kPiece = WarpSums<kWidth>::kPiece;
  constexpr int kPieces = kWidth / kPiece;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    Vector<float, kPiece> piece;
#pragma unroll
    for (int k = 0; k < kPiece; ++k) piece[k] = sum[p * kPiece + k];
    store(&shared.value[warp][p][lane * kPiece], piece);
  }
  __syncthreads();
  const auto place = static_cast<int>(threadIdx.x);
  if (place < kTileColumns<kWidth> / kPiece) {
    Vector<float, kPiece> total = {};
#pragma unroll
    for (int w = 0; w < kColumnWarps; ++w) {
      const auto piece = load<kPiece>(&shared.value[w][place % kPieces][place / kPieces * kPiece]);
#pragma unroll
      for (int k = 0; k < kPiece; ++k) total[k] += piece[k];
    }
    put(place * kPiece, total);
  }
  __syncthreads();
}

}  // namespace lathe::device
