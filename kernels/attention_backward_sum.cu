// d_q of attention where sequences have several tiles of keys: the tiles' sums of each query, added in order, so that no sum depends on which
// block ran when.
//
// Bytes: each tile's sum is read once, 4 an element and tile, and d_q written.
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/attention_backward_steps.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/memory.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

constexpr int kSumThreads = 256;

/// A block adds the sums of a tile of queries of one head.
__global__ void __launch_bounds__(kSumThreads)
    attention_sum_tiles_kernel(const __grid_constant__ AttentionBackward<Bf16> args, const float* sums) {
  constexpr int kWidth = kWidest<float>;
  const auto heads = static_cast<unsigned>(args.heads);
  const unsigned tile = blockIdx.x / heads;
  const auto head = static_cast<int>(blockIdx.x - tile * heads);
  const int sequence = args.query_tiles.sequence[tile];
  if (sequence < 0) return;
  const SequenceRows rows = sequence_rows(args.cu_q, args.cu_k, sequence);
  if (has_one_tile(args.key_tiles, rows)) return;
  const auto first = static_cast<int>(args.query_tiles.first[tile]);
  const int queries = min(static_cast<int>(args.query_tiles.rows), rows.queries - first);
  const auto head_size = static_cast<int>(args.head_size);
  const auto tile_rows = static_cast<int>(args.key_tiles.rows);
  const int pieces = head_size / kWidth;  // of a row
  const std::int64_t stride = args.heads * head_size;
  const auto scale = static_cast<float>(args.scale);
  for (int i = static_cast<int>(threadIdx.x); i < queries * pieces; i += kSumThreads) {
    const int query = first + i / pieces;
    const int column = head * head_size + i % pieces * kWidth;
    const std::int64_t row = std::int64_t{rows.first_query} + query;
    // Tiles of which the query sees at least the first key: their blocks have all written its sum.
    const int splits = (visible_keys(args.mask, rows, query) + tile_rows - 1) / tile_rows;
    const float* from = sums + row * stride + column;
    float sum[kWidth] = {};
#pragma unroll 4
    for (int s = 0; s < splits; ++s) {
      const Vector<float, kWidth> of_tile = load<kWidth, Reuse::once>(from);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += of_tile[k];
      from += args.queries * stride;
    }
    Bf16* const to = args.d_q + row * args.d_q_stride + column;
    float result[kWidth] = {};
    if (args.use_q == Use::add) to_float(load<kWidth>(to), result);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) result[k] = fmaf(sum[k], scale, result[k]);
    store(to, from_float<Bf16>(result));
  }
}

}  // namespace

void attention_sum_tiles(CudaStream stream, const AttentionBackward<Bf16>& args, const float* sums) {
  launch(attention_sum_tiles_kernel, {.grid = static_cast<unsigned>(args.query_tiles.count * args.heads), .block = kSumThreads},
         stream, args, sums);
}

}  // namespace lathe
