// Embeddings in CUDA.
//
// Forward: as LayerNorm's, a team of warps holds a token's row; three gathers, and y and z are written. Bytes an element, in sizes of T: a row
// of words read, y and z written (3), positions and types from caches. Backward of the norm: device/norm_backward.cuh, 3. Words: a block owns
// a split of at most 64 tokens, reads their rows of d_z once and adds them to the table's row; only where a word has several splits do sums
// go through the workspace. Positions and types read d_z once more, together, by columns. No atomics: each sum has an order of its own.
#include "lathe/kernels/embedding.h"

#include <algorithm>

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/column_sums.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/norm_backward.cuh"
#include "lathe/kernels/device/normalisation.cuh"
#include "lathe/kernels/device/part_sums.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/shared.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

/// The row of `table` that index[t] says; nothing where there is no table, or no token t.
template <class Shape, Reuse kReuse, class T>
__device__ __forceinline__ StoredRow<T, Shape> load_embedding(const T* table, const std::int32_t* index, std::int64_t t,
                                                              std::int64_t channels, bool present) {
  const bool wanted = present && table != nullptr;
  const std::int64_t row = from_first_lane(wanted && threadIdx.x % kWarp == 0 ? index[t] : 0);
  return load_row<Shape, kReuse>(table + row * channels, wanted ? static_cast<int>(channels) : 0);
}

template <class T, class Shape>
__global__ void __launch_bounds__(kNormThreads, Shape::kWidth > 1 ? 2 : 1)
    embedding_forward_kernel(const __grid_constant__ EmbeddingForward<T> args, int rows) {
  __shared__ NormScratch<Shape> scratch;
  const auto channels = static_cast<int>(args.channels);
  const bool normalises = args.gamma != nullptr;
  T* const gamma = dynamic_shared<T>();
  T* const beta = gamma + channels;
  if (normalises) {
    stage_parameters<Shape::kWidth>(gamma, args.gamma, channels);
    stage_parameters<Shape::kWidth>(beta, args.beta, channels);
    __syncthreads();
  }
  const ElementDropout dropout(args.dropout);
  const float per_channel = 1.0F / static_cast<float>(channels);
  const auto epsilon = static_cast<float>(args.epsilon);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * rows;
  const std::int64_t end = min(begin + rows, args.tokens);
  // The trips are the same for all teams, as in layernorm.cu.
  for (std::int64_t first = begin; first < end; first += NormScratch<Shape>::kTeams) {
    const std::int64_t t = first + team_number<Shape>();
    const bool present = t < end;
    const int columns = present ? channels : 0;
    const auto word = load_embedding<Shape, Reuse::once>(args.words, args.token, t, args.channels, present);
    const auto position = load_embedding<Shape, Reuse::again>(args.positions, args.position, t, args.channels, present);
    const auto type = load_embedding<Shape, Reuse::again>(args.types, args.type, t, args.channels, present);
    std::uint32_t kept = 0;
    if (dropout.active()) kept = kept_columns<Shape>(dropout, dropout.row(present ? t : first));

    Row<Shape> z = to_float(word);
    add(z, to_float(position));
    add(z, to_float(type));
    if (normalises) {
      store_row(args.z + t * args.channels, z, columns);
      const Statistics statistics = row_statistics(z, columns, per_channel, epsilon, scratch);
      if (present && first_column<Shape>() == 0) {
        args.mean[t] = statistics.mean;
        args.rstd[t] = statistics.rstd;
      }
      normalise(z, statistics, gamma, beta, columns);
    }
    if (dropout.active()) multiply(z, kept, dropout.scale());
    store_row(args.y + t * args.channels, z, columns);
  }
}

/// d_z = d_y through the dropout, where there is no LayerNorm.
template <class T, class Shape>
__global__ void __launch_bounds__(kNormThreads)
    embedding_dropout_backward_kernel(const __grid_constant__ EmbeddingNormBackward<T> args) {
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * (kNormThreads / Shape::kThreads) + team_number<Shape>();
  if (t >= args.tokens) return;
  const ElementDropout dropout(args.dropout);
  const auto channels = static_cast<int>(args.channels);
  Row<Shape> d = to_float(load_row<Shape, Reuse::once>(args.d_y + t * args.channels, channels));
  if (dropout.active()) multiply(d, kept_columns<Shape>(dropout, dropout.row(t)), dropout.scale());
  store_row(args.d_z + t * args.channels, d, channels);
}

/// Threads of a block that sums words: each kWidth columns of a split or of a segment.
inline constexpr int kWordThreads = 128;

/// The segment that a split belongs to: the last that begins at or before it. All lanes of a warp take part, and probe 32 places at a time.
__device__ __forceinline__ std::int64_t segment_of(const EmbeddingSegments& segments, std::int64_t split) {
  const auto lane = static_cast<std::int64_t>(threadIdx.x % kWarp);
  std::int64_t first = 0;
  std::int64_t end = segments.segments;
  while (end - first > 1) {
    const std::int64_t step = (end - first + kWarp - 1) / kWarp;
    const std::int64_t probe = first + (lane + 1) * step;
    const unsigned before = __ballot_sync(kAllLanes, probe < end && segments.segment_split[probe] <= split);
    first += __popc(before) * step;
    end = min(first + step, end);
  }
  return first;
}

/// What a lane has of a warp's kWidth * 32 sums: columns p * 32 * kPiece + lane * kPiece + 0..kPiece for each piece p of 16 bytes, so that a
/// warp stores side by side. It had kWidth columns side by side.
template <int kWidth, int kPiece>
__device__ __forceinline__ void deal_columns(float (&sum)[kWidth]) {
  constexpr int kPieces = kWidth / kPiece;
  if constexpr (kPieces == 2) {
    const auto lane = static_cast<int>(threadIdx.x) % kWarp;
    float dealt[kWidth];
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int source = p * kWarp / kPieces + lane / kPieces;
#pragma unroll
      for (int k = 0; k < kPiece; ++k) {
        const float even = __shfl_sync(kAllLanes, sum[k], source);
        const float odd = __shfl_sync(kAllLanes, sum[kPiece + k], source);
        dealt[p * kPiece + k] = lane % kPieces == 0 ? even : odd;
      }
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum[k] = dealt[k];
  }
}

/// A split's sum, straight to the table where the segment has no other, else to the workspace.
template <class T, int kWidth>
__global__ void __launch_bounds__(kWordThreads) embedding_splits_kernel(const __grid_constant__ EmbeddingBackward<T> args) {
  constexpr int kPiece = kWidth < 4 ? kWidth : 4;
  const EmbeddingSegments& segments = args.segments;
  const std::int64_t split = blockIdx.x;
  if (split >= segments.segment_split[segments.segments]) return;  // padding
  const std::int64_t segment = segment_of(segments, split);
  const std::int64_t row = segments.segment_row[segment];
  if (row < 0) return;
  const bool alone = segments.segment_split[segment + 1] - segments.segment_split[segment] == 1;
  const auto lane = static_cast<std::int64_t>(threadIdx.x % kWarp);
  const std::int64_t tile = (static_cast<std::int64_t>(blockIdx.y) * kWordThreads + threadIdx.x - lane) * kWidth;
  const std::int64_t column = tile + lane * kWidth;
  float sum[kWidth] = {};
  add_rows(sum, segments.split_start[split], segments.split_start[split + 1], 1, [&](std::int64_t i) -> const T* {
    return column < args.channels ? args.d_z + segments.order[i] * args.channels + column : nullptr;
  });
  deal_columns<kWidth, kPiece>(sum);
  float* const to = alone ? args.d_words + row * args.channels : reinterpret_cast<float*>(args.workspace) + split * args.channels;
#pragma unroll
  for (int p = 0; p < kWidth / kPiece; ++p) {
    const std::int64_t place = tile + p * kWarp * kPiece + lane * kPiece;
    if (place >= args.channels) continue;
    Vector<float, kPiece> piece = {};
    if (alone) piece = load<kPiece, Reuse::once>(to + place);
#pragma unroll
    for (int k = 0; k < kPiece; ++k) piece[k] += sum[p * kPiece + k];
    store_global(to + place, piece);
  }
}

/// The sums of a segment's splits, where it has several, in order.
template <int kWidth>
__global__ void __launch_bounds__(kWordThreads)
    embedding_segments_kernel(float* d_words, const float* sums, const __grid_constant__ EmbeddingSegments segments,
                              std::int64_t channels) {
  const std::int64_t row = segments.segment_row[blockIdx.x];
  const std::int64_t first = segments.segment_split[blockIdx.x];
  const std::int64_t end = segments.segment_split[blockIdx.x + 1];
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * kWordThreads + threadIdx.x) * kWidth;
  if (row < 0 || end - first < 2 || column >= channels) return;
  float sum[kWidth] = {};
  add_rows(sum, first, end, 1, [&](std::int64_t split) { return sums + split * channels + column; });
  float* const to = d_words + row * channels + column;
  auto piece = load<kWidth, Reuse::once>(to);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) piece[k] += sum[k];
  store_global(to, piece);
}

/// Blocks, along the positions, that sum them: enough with the tiles of columns to fill a large GPU, and so few that their sums of two types are
/// 3 % of 16,384 rows of bf16.
inline constexpr std::int64_t kPositionBlocks = 64;
/// Types whose sums a walk over the rows keeps.
inline constexpr int kTypesAtOnce = 2;

/// sum[:] += values[:].
template <int kWidth>
__device__ __forceinline__ void add_columns(float (&sum)[kWidth], const float (&values)[kWidth]) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum[k] += values[k];
}

/// A lane's sums of a walk over rows.
template <int kWidth>
struct PositionSums {
  float of_position[kWidth];
  float of_type[kTypesAtOnce][kWidth];
};

/// Adds the lane's columns, from `column` on, of the tokens at `index` of the sequences begin, begin + 1, ... below `end`, in order. What tells
/// where tokens lie, and their types, is read for all of the rows on their way before one is waited for: no branch depends on it.
template <int kWidth, class T>
__device__ __forceinline__ void add_position(PositionSums<kWidth>& sums, const EmbeddingBackward<T>& args, std::int64_t begin,
                                             std::int64_t end, std::int64_t index, std::int64_t column, std::int64_t types,
                                             std::int64_t first_type) {
  for (std::int64_t first = begin; first < end; first += kRowsInFlight) {
    const T* rows[kRowsInFlight];
    std::int64_t kinds[kRowsInFlight];
    StoredPiece<T, kWidth> pieces[kRowsInFlight];
#pragma unroll
    for (int u = 0; u < kRowsInFlight; ++u) {
      const std::int64_t b = min(first + u, end - 1);
      const std::int64_t t = args.cu_seqlens[b] + index;
      const std::int64_t behind = args.cu_seqlens[b + 1];
      const bool present = (first + u < end) & (t < behind);
      rows[u] = present ? args.d_z + t * args.channels + column : nullptr;
      kinds[u] = types > 0 ? args.type[present ? t : 0] - first_type : 0;
    }
#pragma unroll
    for (int u = 0; u < kRowsInFlight; ++u) {
      pieces[u] = {};
      if (rows[u] != nullptr) pieces[u] = load_piece<kWidth, Reuse::once>(rows[u]);
    }
#pragma unroll
    for (int u = 0; u < kRowsInFlight; ++u) {
      float values[kWidth];
      to_float(pieces[u], values);
      add_columns(sums.of_position, values);
#pragma unroll
      for (int y = 0; y < kTypesAtOnce; ++y) {
        if (kinds[u] == y) add_columns(sums.of_type[y], values);
      }
    }
  }
}

/// A block owns every gridDim.x-th position and a tile of columns; each of its warps takes a run of sequences. Its sums of the types `first_type`
/// and the next, over all those positions, are a part of theirs: type_sums [blocks, types, C], not written where `types` is 0.
template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnWarps* kWarp)
    embedding_positions_kernel(const __grid_constant__ EmbeddingBackward<T> args, float* type_sums, std::int64_t types,
                               std::int64_t first_type) {
  constexpr int kPiece = WarpSums<kWidth>::kPiece;
  __shared__ WarpSums<kWidth> shared;
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.y) * kTileColumns<kWidth>;
  const std::int64_t column = tile + threadIdx.x % kWarp * kWidth;
  const auto warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t begin = args.sequences * warp / kColumnWarps;
  const std::int64_t end = args.sequences * (warp + 1) / kColumnWarps;
  const bool stores = first_type == 0 && args.use_positions != Use::skip;
  PositionSums<kWidth> sums = {};
  for (std::int64_t position = blockIdx.x; position < args.positions; position += gridDim.x) {
    const std::int64_t index = position - args.first_position;
    for (float& sum : sums.of_position) sum = 0.0F;
    if (index >= 0 && column < args.channels) add_position(sums, args, begin, end, index, column, types, first_type);
    if (!stores) continue;
    sum_warps(sums.of_position, shared, [&](int c, auto total) {
      if (tile + c >= args.channels) return;
      float* const to = args.d_positions + position * args.channels + tile + c;
      if (args.use_positions == Use::add) {
        const auto before = load<kPiece, Reuse::once>(to);
#pragma unroll
        for (int k = 0; k < kPiece; ++k) total[k] += before[k];
      }
      store_global(to, total);
    });
  }
#pragma unroll
  for (int y = 0; y < kTypesAtOnce; ++y) {
    if (first_type + y >= types) break;
    float* const to = type_sums + (blockIdx.x * types + first_type + y) * args.channels + tile;
    sum_warps(sums.of_type[y], shared, [&](int c, const auto& total) {
      if (tile + c < args.channels) store_global(to + c, total);
    });
  }
}

template <class T, int kWidth>
void sum_words(CudaStream stream, const EmbeddingBackward<T>& args) {
  if (args.use_words == Use::skip) return;
  if (args.use_words == Use::write) {
    const std::int64_t bytes = args.vocabulary * args.channels * static_cast<std::int64_t>(sizeof(float));
    fill_zero(stream, args.d_words, bytes);
  }
  launch(
      embedding_splits_kernel<T, kWidth>,
      {.grid = dim3(static_cast<unsigned>(args.segments.splits), blocks_for(args.channels, std::int64_t{kWordThreads} * kWidth)),
       .block = kWordThreads},
      stream, args);
  constexpr int kSumWidth = kWidth < 4 ? kWidth : 4;
  launch(embedding_segments_kernel<kSumWidth>,
         {.grid = dim3(static_cast<unsigned>(args.segments.segments),
                       blocks_for(args.channels, std::int64_t{kWordThreads} * kSumWidth)),
          .block = kWordThreads},
         stream, args.d_words, reinterpret_cast<const float*>(args.workspace), args.segments, args.channels);
}

template <class T, int kWidth>
void sum_positions_and_types(CudaStream stream, const EmbeddingBackward<T>& args) {
  if (args.use_positions == Use::skip && args.use_types == Use::skip) return;
  const std::int64_t types = args.use_types == Use::skip ? 0 : args.types;
  const std::int64_t blocks = std::min({args.positions, row_parts(args.tokens), kPositionBlocks});
  float* const type_sums = reinterpret_cast<float*>(args.workspace) + args.segments.splits * args.channels;
  std::int64_t first_type = 0;
  do {
    launch(embedding_positions_kernel<T, kWidth>,
           {.grid = dim3(static_cast<unsigned>(blocks), blocks_for(args.channels, kTileColumns<kWidth>)),
            .block = kColumnWarps * kWarp},
           stream, args, type_sums, types, first_type);
    first_type += kTypesAtOnce;
  } while (first_type < types);
  sum_parts<1>(
      stream,
      {.partials = type_sums, .parts = blocks, .channels = types * args.channels, .sums = {{args.d_types, args.use_types}}});
}

}  // namespace

template <class T>
void embedding_forward(CudaStream stream, const EmbeddingForward<T>& args) {
  const device::Range range("embedding_forward");
  const std::int64_t rows = norm_rows(args.tokens);
  const bool wide =
      rows_aligned_to_16<T>(args.channels, args.y, args.z, args.words, args.positions, args.types, args.gamma, args.beta);
  with_row_shape<T>("embedding_forward", args.channels, wide, [&]<class Shape>() {
    launch(embedding_forward_kernel<T, Shape>,
           {.grid = blocks_for(args.tokens, rows),
            .block = kNormThreads,
            .shared_bytes = static_cast<std::size_t>(2 * args.channels) * sizeof(T)},
           stream, args, static_cast<int>(rows));
  });
}

template <class T>
void embedding_norm_backward(CudaStream stream, const EmbeddingNormBackward<T>& args) {
  const device::Range range("embedding_norm_backward");
  if (args.gamma == nullptr) {
    const bool wide = rows_aligned_to_16<T>(args.channels, args.d_z, args.d_y);
    with_row_shape<T>("embedding_norm_backward", args.channels, wide, [&]<class Shape>() {
      launch(embedding_dropout_backward_kernel<T, Shape>,
             {.grid = blocks_for(args.tokens, kNormThreads / Shape::kThreads), .block = kNormThreads}, stream, args);
    });
    return;
  }
  norm_backward<DropoutPlace::after>("embedding_norm_backward", stream,
                                     LayerNormBackward<T>{.d_x = nullptr,
                                                          .use_x = Use::skip,
                                                          .d_residual = args.d_z,
                                                          .use_residual = Use::write,
                                                          .d_bias = nullptr,
                                                          .use_bias = Use::skip,
                                                          .d_gamma = args.d_gamma,
                                                          .use_gamma = args.use_gamma,
                                                          .d_beta = args.d_beta,
                                                          .use_beta = args.use_beta,
                                                          .d_y = args.d_y,
                                                          .z = args.z,
                                                          .mean = args.mean,
                                                          .rstd = args.rstd,
                                                          .gamma = args.gamma,
                                                          .dropout = args.dropout,
                                                          .workspace = args.workspace,
                                                          .tokens = args.tokens,
                                                          .channels = args.channels});
}

template <class T>
void embedding_backward(CudaStream stream, const EmbeddingBackward<T>& args) {
  const device::Range range("embedding_backward");
  const auto run = [&]<int kWidth>() {
    sum_words<T, kWidth>(stream, args);
    sum_positions_and_types<T, kWidth>(stream, args);
  };
  // The workspace is aligned, and where rows of T are, so are its rows of fp32.
  if (rows_aligned_to_16<T>(args.channels, args.d_z, args.d_words, args.d_positions)) {
    run.template operator()<kWidest<T>>();
  } else {
    run.template operator()<1>();
  }
}

template void embedding_forward(CudaStream, const EmbeddingForward<float>&);
template void embedding_forward(CudaStream, const EmbeddingForward<Bf16>&);
template void embedding_norm_backward(CudaStream, const EmbeddingNormBackward<float>&);
template void embedding_norm_backward(CudaStream, const EmbeddingNormBackward<Bf16>&);
template void embedding_backward(CudaStream, const EmbeddingBackward<float>&);
template void embedding_backward(CudaStream, const EmbeddingBackward<Bf16>&);

}  // namespace lathe
