#pragma once
// LayerNorm's backward, for LayerNorm with what stands before it and for the embeddings' LayerNorm with the dropout after it.
#include <cstdint>

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/part_sums.cuh"
#include "lathe/kernels/device/row.cuh"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/layernorm.h"

namespace lathe::device {

/// Where the forward drops: x + bias, ahead of the normalization, or y.
enum class DropoutPlace : std::uint8_t { before, after };

/// A block of 128 threads (256 where a row needs them) owns a part. Its sums for d_gamma, d_beta and d_bias stay in registers from row to
/// row: 96 a thread at 32 columns, which leaves 255 registers a thread and 256 threads a processor. What hides memory's latency is then
/// not other warps but the next row, which is loaded while the present one is computed with, where it is of bf16 (32 registers); rows of
/// fp32 bring twice the bytes in flight by themselves.
template <class T, class Shape>
struct NormBackwardBlock {
  static constexpr int kThreads = Shape::kThreads < 128 ? 128 : Shape::kThreads;
  static constexpr int kTeams = kThreads / Shape::kThreads;
  static constexpr int kPerProcessor = 256 / kThreads;
  static constexpr bool kAhead = sizeof(T) == 2 && Shape::kWidth > 1;
};

/// What a row's gradient comes from; the numbers as the first lane of each warp has them.
template <class T, class Shape>
struct NormBackwardRow {
  StoredRow<T, Shape> d_y;
  StoredRow<T, Shape> z;
  float mean, rstd;
  ElementDropout::Row place;
};

/// Row t, if it is one (t < end); else zeros.
template <class T, class Shape>
__device__ __forceinline__ NormBackwardRow<T, Shape> load_norm_backward_row(const LayerNormBackward<T>& args,
                                                                            const ElementDropout& dropout, std::int64_t t,
                                                                            std::int64_t end) {
  const bool present = t < end;
  const int columns = present ? static_cast<int>(args.channels) : 0;
  NormBackwardRow<T, Shape> row;
  row.d_y = load_row<Shape, Reuse::once>(args.d_y + t * args.channels, columns);
  row.z = load_row<Shape, Reuse::once>(args.z + t * args.channels, columns);
  const bool reads = present && threadIdx.x % kWarp == 0;
  row.mean = reads ? args.mean[t] : 0.0F;
  row.rstd = reads ? args.rstd[t] : 0.0F;
  row.place = {};
  if (present) row.place = dropout.row(t);
  return row;
}

/// Where a block adds up its teams' sums, in shared memory: pieces of 16 bytes, each of all threads of a team together, so that threads
/// meet on no bank; 16 words between pieces that would, when they are read column by column.
template <class Shape>
struct TeamSums {
  static constexpr int kPiece = Shape::kWidth < 4 ? Shape::kWidth : 4;
  static constexpr int kPerWidth = Shape::kWidth / kPiece;
  static constexpr int kStride = Shape::kThreads * kPiece + (kPerWidth > 1 ? 16 : 0);
  static constexpr std::size_t kBytes = sizeof(float) * Shape::kPieces * kPerWidth * kStride;

  /// The place of column i of piece p of a thread.
  static __device__ __forceinline__ int place(int p, int thread, int i) {
    return (p * kPerWidth + i / kPiece) * kStride + thread * kPiece + i % kPiece;
  }
  static __device__ __forceinline__ int place_of(int column) {
    const int within = column % Shape::kStride;
    return place(column / Shape::kStride, within / Shape::kWidth, within % Shape::kWidth);
  }
};

/// to[:] = the sum of the teams' `mine`, in the order of their numbers. All threads of the block.
template <class Shape, int kTeams>
__device__ __forceinline__ void store_teams_sum(float* to, const Row<Shape>& mine, float* shared, int channels) {
  using Sums = TeamSums<Shape>;
  const int first = first_column<Shape>();
  const int thread = static_cast<int>(threadIdx.x) % Shape::kThreads;
  for (int team = 0; team < kTeams; ++team) {
    if (team == team_number<Shape>()) {
#pragma unroll
      for (int p = 0; p < Shape::kPieces; ++p) {
        if (first + p * Shape::kStride >= channels) continue;
#pragma unroll
        for (int i = 0; i < Shape::kWidth; i += Sums::kPiece) {
          float* const place = shared + Sums::place(p, thread, i);
          Vector<float, Sums::kPiece> sum = {};
          if (team > 0) sum = load<Sums::kPiece>(place);
#pragma unroll
          for (int k = 0; k < Sums::kPiece; ++k) sum[k] += mine.piece[p][i + k];
          store(place, sum);
        }
      }
    }
    __syncthreads();
  }
  for (int c = static_cast<int>(threadIdx.x); c < channels; c += static_cast<int>(blockDim.x)) to[c] = shared[Sums::place_of(c)];
  __syncthreads();
}

template <class T, class Shape, DropoutPlace kPlace>
__global__ void __launch_bounds__(NormBackwardBlock<T, Shape>::kThreads, NormBackwardBlock<T, Shape>::kPerProcessor)
    norm_backward_kernel(const __grid_constant__ LayerNormBackward<T> args, int parts) {
  using Block = NormBackwardBlock<T, Shape>;
  // Two places, taken in turn: a row's sums have been read before the barrier ahead of the row after the next.
  __shared__ float scratch[2][Block::kTeams][2 * Shape::kWarps];
  T* const gamma = dynamic_shared<T>();
  const auto channels = static_cast<int>(args.channels);
  const float per_channel = 1.0F / static_cast<float>(channels);
  stage_parameters<Shape::kWidth>(gamma, args.gamma, channels);
  __syncthreads();

  const ElementDropout dropout(args.dropout);
  const std::int64_t begin = args.tokens * blockIdx.x / parts;
  const std::int64_t end = args.tokens * (blockIdx.x + 1) / parts;
  const int team = team_number<Shape>();
  Row<Shape> d_gamma = {};
  Row<Shape> d_beta = {};
  Row<Shape> d_bias = {};
  NormBackwardRow<T, Shape> next;
  if constexpr (Block::kAhead) next = load_norm_backward_row<T, Shape>(args, dropout, begin + team, end);
  int turn = 0;
  // The trips are the same for all teams, which may meet at barriers: a team without a row computes with zeros and stores nothing.
  for (std::int64_t first = begin; first < end; first += Block::kTeams) {
    const std::int64_t t = first + team;
    const bool present = t < end;
    const int columns = present ? channels : 0;
    if constexpr (!Block::kAhead) next = load_norm_backward_row<T, Shape>(args, dropout, t, end);
    Row<Shape> d = to_float(next.d_y);
    Row<Shape> n = to_float(next.z);
    const float mean = from_first_lane(next.mean);
    const float rstd = from_first_lane(next.rstd);
    const ElementDropout::Row place = next.place;
    if constexpr (Block::kAhead) next = load_norm_backward_row<T, Shape>(args, dropout, t + Block::kTeams, end);
    std::uint32_t kept = 0;
    if (dropout.active()) kept = kept_columns<Shape>(dropout, place);
    if constexpr (kPlace == DropoutPlace::after) {
      if (dropout.active()) multiply(d, kept, dropout.scale());
    }

    float sums[2] = {0.0F, 0.0F};
#pragma unroll
    for (int p = 0; p < Shape::kPieces; ++p) {
      float scale[Shape::kWidth];
      load_columns<Shape>(scale, gamma, p, channels);
#pragma unroll
      for (int i = 0; i < Shape::kWidth; ++i) {
        n.piece[p][i] = (n.piece[p][i] - mean) * rstd;
        d_gamma.piece[p][i] += d.piece[p][i] * n.piece[p][i];
        d_beta.piece[p][i] += d.piece[p][i];
        d.piece[p][i] *= scale[i];
        sums[0] += d.piece[p][i];
        sums[1] += d.piece[p][i] * n.piece[p][i];
      }
    }
    sum_over_team<Shape>(sums, scratch[turn][team]);
    turn ^= 1;
    const float mean_g = sums[0] * per_channel;
    const float mean_g_n = sums[1] * per_channel;
    const float shift = -rstd * mean_g;
    const float slope = -rstd * mean_g_n;
    combine(d, n, [&](float& g, float normalised) { g = rstd * g + (slope * normalised + shift); });

    // d_x first: it may be the same buffer as d_residual, which then adds to it.
    if constexpr (kPlace == DropoutPlace::before) {
      Row<Shape> d_x = d;
      if (dropout.active()) multiply(d_x, kept, dropout.scale());
      if (args.use_bias != Use::skip) add(d_bias, d_x);
      put_row(args.use_x, args.d_x + t * args.channels, d_x, columns);
    }
    put_row(args.use_residual, args.d_residual + t * args.channels, d, columns);
  }

  // gamma's place is free: all threads have used it.
  __syncthreads();
  auto* const shared = dynamic_shared<float>();
  float* const part = reinterpret_cast<float*>(args.workspace) + blockIdx.x * 3 * args.channels;
  if (args.use_gamma != Use::skip) store_teams_sum<Shape, Block::kTeams>(part, d_gamma, shared, channels);
  if (args.use_beta != Use::skip) store_teams_sum<Shape, Block::kTeams>(part + channels, d_beta, shared, channels);
  if (args.use_bias != Use::skip) store_teams_sum<Shape, Block::kTeams>(part + 2 * channels, d_bias, shared, channels);
}

/// Both launches. Where kPlace is after, only d_residual, d_gamma and d_beta are made, of d_y through the dropout.
/// `what` names the kernel in an exception.
template <DropoutPlace kPlace, class T>
void norm_backward(const char* what, CudaStream stream, const LayerNormBackward<T>& args) {
  const std::int64_t parts = row_parts(args.tokens);
  const bool wide = rows_aligned_to_16<T>(args.channels, args.d_x, args.d_residual, args.d_y, args.z, args.gamma);
  with_row_shape<T>(what, args.channels, wide, [&]<class Shape>() {
    using Block = NormBackwardBlock<T, Shape>;
    launch(norm_backward_kernel<T, Shape, kPlace>,
           {.grid = static_cast<unsigned>(parts), .block = Block::kThreads, .shared_bytes = TeamSums<Shape>::kBytes}, stream,
           args, static_cast<int>(parts));
  });
  sum_parts<3>(stream, {.partials = reinterpret_cast<const float*>(args.workspace),
                        .parts = parts,
                        .channels = args.channels,
                        .sums = {{args.d_gamma, args.use_gamma}, {args.d_beta, args.use_beta}, {args.d_bias, args.use_bias}}});
}

}  // namespace lathe::device
