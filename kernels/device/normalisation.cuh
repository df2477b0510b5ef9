#pragma once
// LayerNorm of rows in registers, forward.
#include <cstdint>

#include "lathe/kernels/device/row.cuh"

namespace lathe::device {

/// Threads of a block, whatever a team is.
inline constexpr int kNormThreads = 256;
/// Blocks that a processor must have registers for: 24 or 16 warps, of 80 or 128 registers a thread.
template <class T, class Shape>
inline constexpr int kNormBlocks = sizeof(T) == 2 && Shape::kWidth > 1 && Shape::kWarps == 1 ? 3 : 2;

/// Rows that a block takes, one after another by each of its teams: with 32 of them the parameters, read once a block, are 2 to 3 % of a
/// block's bytes; less where a batch is too small to fill a GPU so. A multiple of 8, the most teams that a block has.
constexpr std::int64_t norm_rows(std::int64_t tokens) {
  const std::int64_t rows = tokens / 4096 * 8;
  return rows < 8 ? 8 : (rows > 32 ? 32 : rows);
}

struct Statistics {
  float mean, rstd;
};

/// Shared memory in which a block's teams find their sums: one place for the mean and one for the variance, so that each has been read
/// before the barrier ahead of its next use.
template <class Shape>
struct NormScratch {
  static constexpr int kTeams = kNormThreads / Shape::kThreads;
  float mean[kTeams][Shape::kWarps];
  float variance[kTeams][Shape::kWarps];
};

/// Mean and 1 / sqrt(variance + epsilon) of the row, whose columns from `columns` on are 0 and don't count. The variance comes from
/// distances to the mean: E[z^2] - mean^2 would cancel.
template <class Shape>
__device__ __forceinline__ Statistics row_statistics(const Row<Shape>& z, int columns, float per_channel, float epsilon,
                                                     NormScratch<Shape>& scratch) {
  float sum[1] = {0.0F};
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
#pragma unroll
    for (int i = 0; i < Shape::kWidth; ++i) sum[0] += z.piece[p][i];
  }
  sum_over_team<Shape>(sum, scratch.mean[team_number<Shape>()]);
  const float mean = sum[0] * per_channel;

  const int first = first_column<Shape>();
  float squares[1] = {0.0F};
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
    float of_piece = 0.0F;
#pragma unroll
    for (int i = 0; i < Shape::kWidth; ++i) of_piece += (z.piece[p][i] - mean) * (z.piece[p][i] - mean);
    if (first + p * Shape::kStride < columns) squares[0] += of_piece;
  }
  sum_over_team<Shape>(squares, scratch.variance[team_number<Shape>()]);
  return {.mean = mean, .rstd = 1.0F / sqrtf(squares[0] * per_channel + epsilon)};
}

/// z becomes gamma * ((z - mean) * rstd) + beta; the parameters lie in shared memory.
template <class T, class Shape>
__device__ __forceinline__ void normalise(Row<Shape>& z, Statistics statistics, const T* gamma, const T* beta, int columns) {
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
    float scale[Shape::kWidth];
    float shift[Shape::kWidth];
    load_columns<Shape>(scale, gamma, p, columns);
    load_columns<Shape>(shift, beta, p, columns);
#pragma unroll
    for (int i = 0; i < Shape::kWidth; ++i) {
      z.piece[p][i] = scale[i] * ((z.piece[p][i] - statistics.mean) * statistics.rstd) + shift[i];
    }
  }
}

}  // namespace lathe::device
