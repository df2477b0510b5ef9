#pragma once
// Fragments of matrices in a warp's registers: from shared memory to the tensor cores, and what a product leaves behind. mma.cuh says which
// element is whose.
#include <cstdint>

#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/ldmatrix.cuh"
#include "lathe/kernels/device/mma.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe::device {

/// A warp's part [16 kM, 8 kN] of a product, in fp32: value[m][n][i] is element (16 m + 8 (i / 2) + lane / 4, 8 n + 2 (lane % 4) + i % 2).
/// So a thread has 2 kM rows, number 2 m + i / 2, and of each 2 kN columns.
template <int kM, int kN>
struct Accumulators {
  float value[kM][kN][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& rows : value) {
#pragma unroll
      for (auto& piece : rows) {
#pragma unroll
        for (float& element : piece) element = 0.0F;
      }
    }
  }

  /// Applies `change(element, row, column)` to each: `row` is the thread's row number (of 2 kM), `column` that within the part.
  template <class Change>
  __device__ __forceinline__ void each(const Change& change) {
    const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) change(value[m][n][i], 2 * m + i / 2, 8 * n + column + i % 2);
      }
    }
  }

  /// Rounded to bf16, columns [16 step, 16 step + 16) as the left factor of a further product: what an accumulator is to its thread, an element
  /// of A is to the same thread, so that nothing moves.
  __device__ __forceinline__ void to_left_factor(std::uint32_t (&a)[kM][4], int step) const {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float(&piece)[4] = value[m][2 * step + w / 2];
        a[m][w] = pack_bf16(piece[w % 2 * 2], piece[w % 2 * 2 + 1]);
      }
    }
  }
};

/// The row, of a warp's first, that is a thread's row number `row` in Accumulators.
__device__ __forceinline__ int fragment_row(int row) { return 8 * row + static_cast<int>(threadIdx.x % kWarp) / 4; }

/// What a 16 x 16 piece of a tile is in a product of which the tile is a factor. left: rows are A's rows. right: rows are B's rows (as V's in
/// P V). left_transposed: columns are A's rows. right_transposed: rows are B's columns (as K's in Q K^T).
enum class Factor : std::uint8_t { left, right, left_transposed, right_transposed };

/// Reads the pieces of tiles of one type: a thread's place is worked out once, and a piece is at a constant distance from it.
template <Factor kFactor, class Tile>
class PieceReader {
 public:
  /// Pieces are counted from row `row`, a multiple of 8, and column 0.
  __device__ __forceinline__ explicit PieceReader(int row = 0) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    constexpr bool kRowsFirst = kFactor == Factor::left || kFactor == Factor::right;
    const int second = kRowsFirst ? lane / 16 : lane / 8 % 2;  // which half of the columns
    const int lower = kRowsFirst ? lane / 8 % 2 : lane / 16;   // which half of the rows
    offset_ = Tile::offset(row + lane % 8 + 8 * lower, 8 * second);
  }

  /// The tile's piece at `row` and `column`, multiples of 16. Left: words are A's. Right: words 0 and 1 are B's of the first 8 columns of the product,
  /// 2 and 3 of the other 8. All lanes take part.
  __device__ __forceinline__ void load(std::uint32_t (&words)[4], Tile tile, int row, int column) const {
    const auto* const from = tile.at_offset(Tile::moved(offset_, row, column));
    if constexpr (kFactor == Factor::left || kFactor == Factor::right_transposed) {
      ldmatrix<4>(words, from);
    } else {
      ldmatrix_transposed<4>(words, from);
    }
  }

 private:
  int offset_;
};

/// Columns 16 n to 16 n + 16 of `sums` += a b, a [16 kM, 16] and b [16, 16] as PieceReader reads them.
template <int kM, int kN>
__device__ __forceinline__ void multiply(Accumulators<kM, kN>& sums, int n, const std::uint32_t (&a)[kM][4],
                                         const std::uint32_t (&b)[4]) {
  const std::uint32_t first[2] = {b[0], b[1]};
  const std::uint32_t second[2] = {b[2], b[3]};
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    mma_16816(sums.value[m][2 * n], a[m], first);
    mma_16816(sums.value[m][2 * n + 1], a[m], second);
  }
}

/// Over the four lanes that share a row of Accumulators. All lanes take part; each gets the same bits as its three neighbours.
template <class Combine>
__device__ __forceinline__ float reduce_quad(float value, Combine combine) {
  value = combine(value, __shfl_xor_sync(kAllLanes, value, 1));
  return combine(value, __shfl_xor_sync(kAllLanes, value, 2));
}

}  // namespace lathe::device
