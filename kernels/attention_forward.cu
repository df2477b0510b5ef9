// Attention in CUDA, forward (docs/kernels/attention.md explains it from the beginning).
//
// Tensor cores (bf16, head sizes 32, 64, 96, 128): a block owns 128 queries of one head, a warp 32 of them with all of their outputs in
// registers. Keys and values come by 64, the next ones while the present ones are computed with. Scores stay in the registers of the warp that
// made them: softmax runs over them there, and rounded to bf16 they are the left factor of the product with V as they lie. A warp of 32 rows
// uses each piece of K and V that it reads from shared memory twice, for two fragments: with 16, shared memory would be the limit.
// Bytes: q read once, out written once; k and v once a tile of 128 queries, of which those after the first find them in the second-level cache.
//
// Plain (fp32, any head size, any alignment): a warp owns four queries, lanes are keys for the scores and columns for the outputs.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/attention_dropout.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/online_softmax.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/tile.cuh"
#include "lathe/kernels/device/tile_copy.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

/// Queries of a tile in the list that a block is launched for.
constexpr int kTileQueries = 128;

enum class Drops : std::uint8_t { no, yes };

/// A block's work: queries of a tile, and a head.
struct Work {
  int sequence;
  int head;
  int first;    ///< query in the sequence
  int queries;  ///< from it on; none or less where the tile has fewer
  int keys;     ///< that the last of them sees, which sees most
  SequenceRows rows;

  /// Queries offset to offset + most of a tile that isn't empty.
  template <class T>
  __device__ __forceinline__ Work(const AttentionForward<T>& args, unsigned tile, unsigned of_head, int offset, int most)
      : sequence(from_first_lane(args.query_tiles.sequence[tile])),
        head(static_cast<int>(of_head)),
        first(from_first_lane(args.query_tiles.first[tile]) + offset),
        rows(sequence_rows(args.cu_q, args.cu_k, sequence)) {
    queries = min(rows.queries - first, most);
    keys = visible_keys(args.mask, rows, first + queries - 1);
  }
  /// The first query's row of the packed batch.
  __device__ __forceinline__ std::int64_t query_row() const { return std::int64_t{rows.first_query} + first; }
  template <class T>
  __device__ __forceinline__ ProbabilityDropout dropout(const AttentionForward<T>& args) const {
    const std::uint32_t before = args.dropout.layer * static_cast<std::uint32_t>(args.heads);
    return {args.dropout, sequence, before + static_cast<std::uint32_t>(head)};
  }
};

template <int kHeadSize>
struct TensorTiles {
  static constexpr int kThreads = 128;
  static constexpr int kKeys = kHeadSize <= 64 ? 64 : 32;
  static constexpr int kFragments = 2;  // of 16 rows, a warp
  static constexpr int kWarpQueries = 16 * kFragments;
  static constexpr Swizzle kSwizzle = kHeadSize % 64 == 0 ? Swizzle::bytes_128 : Swizzle::bytes_64;
  using Queries = SharedTile<Bf16, kTileQueries, kHeadSize, kSwizzle>;
  using Keys = SharedTile<Bf16, kKeys, kHeadSize, kSwizzle>;
  /// Where all of Q's fragments fit beside scores and outputs they are read once; else anew for each tile of keys.
  static constexpr bool kQueriesInRegisters = kHeadSize <= 64;
  static constexpr std::size_t kSharedBytes = Queries::kBytes + 4 * Keys::kBytes;
};

template <int kHeadSize>
using KeyTile = typename TensorTiles<kHeadSize>::Keys;
template <int kHeadSize>
using KeyReader = PieceReader<Factor::right_transposed, KeyTile<kHeadSize>>;
template <int kHeadSize>
using ValueReader = PieceReader<Factor::right, KeyTile<kHeadSize>>;

/// A warp's fragments of Q, [32, 16] for a step along the head, from registers or from shared memory.
template <int kHeadSize>
class QueryFragments {
  using Tiles = TensorTiles<kHeadSize>;
  static constexpr int kM = Tiles::kFragments;

 public:
  __device__ __forceinline__ QueryFragments(typename Tiles::Queries tile, int first_row) : tile_(tile), reader_(first_row) {}
  /// Once, when the tile is there.
  __device__ __forceinline__ void keep() {
    if constexpr (Tiles::kQueriesInRegisters) {
#pragma unroll
      for (int step = 0; step < kHeadSize / 16; ++step) read(kept_[step], step);
    }
  }
  __device__ __forceinline__ void get(std::uint32_t (&a)[kM][4], int step) const {
    if constexpr (Tiles::kQueriesInRegisters) {
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int w = 0; w < 4; ++w) a[m][w] = kept_[step][m][w];
      }
    } else {
      read(a, step);
    }
  }

 private:
  __device__ __forceinline__ void read(std::uint32_t (&a)[kM][4], int step) const {
#pragma unroll
    for (int m = 0; m < kM; ++m) reader_.load(a[m], tile_, 16 * m, 16 * step);
  }

  typename Tiles::Queries tile_;
  PieceReader<Factor::left, typename Tiles::Queries> reader_;
  std::uint32_t kept_[Tiles::kQueriesInRegisters ? kHeadSize / 16 : 1][kM][4];
};

/// Scores = Q K^T of a warp's queries and a tile of keys.
template <int kHeadSize, int kM, int kN>
__device__ __forceinline__ void multiply_keys(Accumulators<kM, kN>& scores, const QueryFragments<kHeadSize>& queries,
                                              const KeyReader<kHeadSize>& reader, KeyTile<kHeadSize> keys) {
  scores.clear();
#pragma unroll
  for (int step = 0; step < kHeadSize / 16; ++step) {
    std::uint32_t a[kM][4];
    queries.get(a, step);
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) {
      std::uint32_t b[4];
      reader.load(b, keys, 16 * n, 16 * step);
      multiply(scores, n, a, b);
    }
  }
}

/// Outputs += P V for the tile's keys [32 group, 32 group + 32).
template <int kHeadSize, int kM, int kN>
__device__ __forceinline__ void multiply_values(Accumulators<kM, kHeadSize / 8>& outputs,
                                                const Accumulators<kM, kN>& probabilities, int group,
                                                const ValueReader<kHeadSize>& reader, KeyTile<kHeadSize> values) {
#pragma unroll
  for (int step = 2 * group; step < 2 * group + 2; ++step) {
    std::uint32_t a[kM][4];
    probabilities.to_left_factor(a, step);
#pragma unroll
    for (int n = 0; n < kHeadSize / 16; ++n) {
      std::uint32_t b[4];
      reader.load(b, values, 16 * step, 16 * n);
      multiply(outputs, n, a, b);
    }
  }
}

/// Sets to 0 what dropout takes of keys [32 group, 32 group + 32) of a tile that begins at `first_key`.
template <int kM, int kN>
__device__ __forceinline__ void drop(Accumulators<kM, kN>& scores, const ProbabilityDropout& dropout,
                                     const ProbabilityDropout::Query (&queries)[kM][2], int group, int first_key) {
  const std::uint32_t block = static_cast<std::uint32_t>(first_key / 8 + 4 * group) + threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    std::uint32_t words[2][4];
    dropout.draw(words, queries[m], block);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      float(&piece)[4] = scores.value[m][4 * group + n];
      dropout.drop(piece[0], piece[1], words[0][n]);
      dropout.drop(piece[2], piece[3], words[1][n]);
    }
  }
}

/// Writes accumulators into a tile, from row `first_row` on, rounded.
template <class Tile, int kM, int kN>
__device__ __forceinline__ void put(Tile tile, int first_row, const Accumulators<kM, kN>& values) {
  const int from = Tile::offset(first_row + fragment_row(0), 2 * static_cast<int>(threadIdx.x % 4));
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float pair[2] = {values.value[m][n][2 * half], values.value[m][n][2 * half + 1]};
        store<2>(tile.at_offset(Tile::moved(from, 16 * m + 8 * half, 8 * n)), from_float<Bf16>(pair));
      }
    }
  }
}

/// Of what the lanes of Accumulators' rows have, the lane's own number's: a row a lane.
__device__ __forceinline__ float by_row(const float (&of_rows)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  float result = 0.0F;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float value = __shfl_sync(kAllLanes, of_rows[r], lane % 8 * 4);
    if (lane / 8 == r) result = value;
  }
  return result;
}

template <int kHeadSize, Drops kDrops>
__global__ void __launch_bounds__(TensorTiles<kHeadSize>::kThreads, 2)
    attention_forward_kernel(const __grid_constant__ AttentionForward<Bf16> args) {
  using Tiles = TensorTiles<kHeadSize>;
  using Keys = KeyTile<kHeadSize>;
  constexpr int kM = Tiles::kFragments;
  constexpr int kKeys = Tiles::kKeys;
  const auto heads = static_cast<unsigned>(args.heads);
  const unsigned tile = blockIdx.x / heads;
  if (args.query_tiles.sequence[tile] < 0) return;
  const Work work(args, tile, blockIdx.x - tile * heads, 0, kTileQueries);

  const typename Tiles::Queries q_tile{dynamic_shared<Bf16>()};
  Bf16* const stages = q_tile.data + kTileQueries * kHeadSize;
  const auto k_tile = [&](int stage) { return Keys{stages + stage * kKeys * kHeadSize}; };
  const auto v_tile = [&](int stage) { return Keys{stages + (2 + stage) * kKeys * kHeadSize}; };

  const int thread = static_cast<int>(threadIdx.x);
  const int warp_first = thread / kWarp * Tiles::kWarpQueries;
  const TileCopy<Keys, Tiles::kThreads> copy(thread);
  const std::int64_t first_key = work.rows.first_key;
  const Bf16* k = copy.first_piece(args.k + first_key * args.k_stride + work.head * kHeadSize, args.k_stride);
  const Bf16* v = copy.first_piece(args.v + first_key * args.v_stride + work.head * kHeadSize, args.v_stride);
  const auto load_keys = [&](int stage, int first) {
    copy.load(k_tile(stage), k, args.k_stride, work.keys - first);
    copy.load(v_tile(stage), v, args.v_stride, work.keys - first);
    k += kKeys * args.k_stride;
    v += kKeys * args.v_stride;
    cp_async_commit();
  };

  QueryFragments<kHeadSize> queries(q_tile, warp_first);
  const KeyReader<kHeadSize> k_reader;
  const ValueReader<kHeadSize> v_reader;
  // Of the warp's own queries: a warp without any has nothing to compute, and a tile whose keys all of them see needs no mask.
  const int warp_queries = min(work.queries - warp_first, Tiles::kWarpQueries);
  const int warp_keys = warp_queries <= 0 ? 0 : visible_keys(args.mask, work.rows, work.first + warp_first + warp_queries - 1);
  const int seen_by_all = visible_keys(args.mask, work.rows, work.first + warp_first);

  Accumulators<kM, kHeadSize / 8> out;
  out.clear();
  const auto scale = static_cast<float>(args.scale);
  OnlineSoftmax<kM> softmax(scale);
  ProbabilityDropout dropout;
  ProbabilityDropout::Query dropped[kM][2];
  if constexpr (kDrops == Drops::yes) {
    dropout = work.dropout(args);
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) dropped[r / 2][r % 2] = dropout.query(work.first + warp_first + fragment_row(r));
  }

  if (work.keys > 0) {
    const TileCopy<typename Tiles::Queries, Tiles::kThreads> copy_queries(thread);
    const Bf16* const q = args.q + work.query_row() * args.q_stride + work.head * kHeadSize;
    copy_queries.load(q_tile, copy_queries.first_piece(q, args.q_stride), args.q_stride, work.queries);
    load_keys(0, 0);
    cp_async_wait<0>();
    __syncthreads();
    queries.keep();
  }
#pragma unroll 1
  for (int first = 0, stage = 0; first < work.keys; first += kKeys, stage ^= 1) {
    // This stage is there for all, and all are through with the other.
    cp_async_wait<0>();
    __syncthreads();
    if (first + kKeys < work.keys) load_keys(stage ^ 1, first + kKeys);
    if (first >= warp_keys) continue;

    Accumulators<kM, kKeys / 8> scores;
    multiply_keys<kHeadSize>(scores, queries, k_reader, k_tile(stage));
    if (first + kKeys > seen_by_all) {
      int visible[2 * kM];
#pragma unroll
      for (int r = 0; r < 2 * kM; ++r) {
        visible[r] = visible_keys(args.mask, work.rows, work.first + warp_first + fragment_row(r)) - first;
      }
      hide(scores, visible);
    }
    softmax.exponentiate(scores, out);

    // The sums have all of the probabilities; what is dropped is missing in the outputs alone.
#pragma unroll
    for (int group = 0; group < kKeys / 32; ++group) {
      if constexpr (kDrops == Drops::yes) drop(scores, dropout, dropped, group, first);
      multiply_values<kHeadSize>(out, scores, group, v_reader, v_tile(stage));
    }
  }
  if (warp_queries <= 0) return;

  float logarithm[2 * kM];
  float inverse[2 * kM];
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const typename OnlineSoftmax<kM>::Sum sum = softmax.sum(r, scale);
    logarithm[r] = sum.logarithm;
    inverse[r] = sum.exponentials == 0.0F ? 0.0F : dropout.scale() / sum.exponentials;
  }
  out.each([&](float& output, int row, int) { output *= inverse[row]; });
  // By way of the warp's own rows of Q's tile, which it has read for the last time: rows go out 16 bytes a lane.
  __syncwarp();
  put(q_tile, warp_first, out);
  __syncwarp();
  const std::int64_t row = work.query_row() + warp_first;
  const TileCopy<typename Tiles::Queries, kWarp, Tiles::kWarpQueries> copy_out(thread % kWarp, warp_first);
  const std::int64_t width = args.heads * kHeadSize;
  copy_out.store(copy_out.first_piece(args.out + row * width + work.head * kHeadSize, width), q_tile, width, warp_queries);
  const float of_lane = by_row(logarithm);
  if (thread % kWarp < warp_queries) args.lse[work.head * args.queries + row + thread % kWarp] = of_lane;
}

/// The plain kernel's block.
constexpr int kPlainWarps = 8;
constexpr int kPlainWarpQueries = 4;
constexpr int kPlainQueries = kPlainWarps * kPlainWarpQueries;
constexpr int kPlainKeys = kWarp;

/// Shared memory of the plain kernel, in floats. Keys have an odd number a row, so that a column's lie in different banks; queries and
/// probabilities have the warp's four side by side.
struct PlainTiles {
  int head_size;
  __host__ __device__ constexpr int key_step() const { return head_size | 1; }
  __host__ __device__ constexpr int probabilities() const { return 0; }
  __host__ __device__ constexpr int queries() const { return kPlainQueries * kPlainKeys; }
  __host__ __device__ constexpr int keys() const { return queries() + kPlainQueries * head_size; }
  __host__ __device__ constexpr int values() const { return keys() + kPlainKeys * key_step(); }
  __host__ __device__ constexpr int size() const { return values() + kPlainKeys * head_size; }
};

/// Copies `present` rows of a head into shared memory as floats, a row a warp, zeroes for those up to `rows`.
template <class T>
__device__ __forceinline__ void copy_rows(float* to, int step, const T* from, std::int64_t stride, int head_size, int present,
                                          int rows) {
  for (int row = static_cast<int>(threadIdx.x) / kWarp; row < rows; row += kPlainWarps) {
    for (int c = static_cast<int>(threadIdx.x) % kWarp; c < head_size; c += kWarp) {
      to[row * step + c] = row < present ? to_float(from[row * stride + c]) : 0.0F;
    }
  }
}

/// Head sizes up to 32 kColumns.
template <int kColumns, class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp, 2)
    attention_forward_plain_kernel(const __grid_constant__ AttentionForward<T> args) {
  constexpr unsigned kParts = kTileQueries / kPlainQueries;
  const auto heads = static_cast<unsigned>(args.heads);
  const unsigned part = blockIdx.x / heads;
  if (args.query_tiles.sequence[part / kParts] < 0) return;
  const Work work(args, part / kParts, blockIdx.x - part * heads, static_cast<int>(part % kParts) * kPlainQueries, kPlainQueries);
  if (work.queries <= 0) return;

  const auto head_size = static_cast<int>(args.head_size);
  const PlainTiles tiles{head_size};
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp_first = static_cast<int>(threadIdx.x / kWarp) * kPlainWarpQueries;
  float* const memory = dynamic_shared<float>();
  float* const probabilities = memory + tiles.probabilities() + warp_first * kPlainKeys;  // [keys][4] of the warp
  float* const queries = memory + tiles.queries() + warp_first * head_size;               // [columns][4] of the warp
  float* const keys = memory + tiles.keys();
  float* const values = memory + tiles.values();

  const std::int64_t row = work.query_row() + warp_first;
  const int present = min(max(work.queries - warp_first, 0), kPlainWarpQueries);
  for (int c = lane; c < head_size; c += kWarp) {
    Vector<float, kPlainWarpQueries> column;
#pragma unroll
    for (int i = 0; i < kPlainWarpQueries; ++i) {
      column[i] = i < present ? to_float(args.q[(row + i) * args.q_stride + work.head * args.head_size + c]) : 0.0F;
    }
    store<kPlainWarpQueries>(queries + c * kPlainWarpQueries, column);
  }
  const ProbabilityDropout dropout = args.dropout.threshold == 0 ? ProbabilityDropout() : work.dropout(args);
  const auto scale = static_cast<float>(args.scale);
  int visible[kPlainWarpQueries];
  float largest[kPlainWarpQueries];
  float sum[kPlainWarpQueries];
  float out[kPlainWarpQueries][kColumns];
#pragma unroll
  for (int i = 0; i < kPlainWarpQueries; ++i) {
    visible[i] = visible_keys(args.mask, work.rows, work.first + warp_first + i);
    largest[i] = -INFINITY;
    sum[i] = 0.0F;
#pragma unroll
    for (float& column : out[i]) column = 0.0F;
  }

#pragma unroll 1
  for (int first = 0; first < work.keys; first += kPlainKeys) {
    const int count = min(work.keys - first, kPlainKeys);
    const std::int64_t key_row = std::int64_t{work.rows.first_key} + first;
    __syncthreads();
    copy_rows(keys, tiles.key_step(), args.k + key_row * args.k_stride + work.head * args.head_size, args.k_stride, head_size,
              count, kPlainKeys);
    copy_rows(values, head_size, args.v + key_row * args.v_stride + work.head * args.head_size, args.v_stride, head_size, count,
              count);
    __syncthreads();

    // A lane is a key.
    float score[kPlainWarpQueries] = {};
    for (int c = 0; c < head_size; ++c) {
      const float key = keys[lane * tiles.key_step() + c];
      const Vector<float, kPlainWarpQueries> query = load<kPlainWarpQueries>(queries + c * kPlainWarpQueries);
#pragma unroll
      for (int i = 0; i < kPlainWarpQueries; ++i) score[i] = fmaf(query[i], key, score[i]);
    }
    Vector<float, kPlainWarpQueries> probability;
#pragma unroll
    for (int i = 0; i < kPlainWarpQueries; ++i) {
      const float scaled = first + lane < visible[i] ? score[i] * scale : -INFINITY;
      const float before = largest[i];
      largest[i] = fmaxf(before, reduce_warp(scaled, [](float a, float b) { return fmaxf(a, b); }));
      // A query that has seen no key yet: any finite number, so that -inf less it stays -inf.
      const float origin = largest[i] == -INFINITY ? 0.0F : largest[i];
      const float shrink = expf(before - origin);
      const float p = expf(scaled - origin);
      sum[i] = sum[i] * shrink + p;
#pragma unroll
      for (float& column : out[i]) column *= shrink;
      const bool kept = args.dropout.threshold == 0 || dropout.kept(work.first + warp_first + i, first + lane);
      probability[i] = kept ? p : 0.0F;
    }
    __syncwarp();
    store<kPlainWarpQueries>(probabilities + lane * kPlainWarpQueries, probability);
    __syncwarp();

    // A lane is every 32nd column.
    for (int j = 0; j < count; ++j) {
      const Vector<float, kPlainWarpQueries> p = load<kPlainWarpQueries>(probabilities + j * kPlainWarpQueries);
#pragma unroll
      for (int x = 0; x < kColumns; ++x) {
        const int c = lane + kWarp * x;
        const float value = c < head_size ? values[j * head_size + c] : 0.0F;
#pragma unroll
        for (int i = 0; i < kPlainWarpQueries; ++i) out[i][x] = fmaf(p[i], value, out[i][x]);
      }
    }
  }

  float of_lane = 0.0F;
#pragma unroll
  for (int i = 0; i < kPlainWarpQueries; ++i) {
    const float all = warp_sum(sum[i]);
    const float inverse = all == 0.0F ? 0.0F : dropout.scale() / all;
    if (lane == i) of_lane = all == 0.0F ? INFINITY : largest[i] + logf(all);
    T* const to = args.out + ((row + i) * args.heads + work.head) * args.head_size;
#pragma unroll
    for (int x = 0; x < kColumns; ++x) {
      const int c = lane + kWarp * x;
      if (i < present && c < head_size) to[c] = from_float<T>(out[i][x] * inverse);
    }
  }
  if (lane < present) args.lse[work.head * args.queries + row + lane] = of_lane;
}

/// Whether the tensor cores' kernel serves: rows of q, k, v and out in pieces of 16 bytes, and scores that grow with their products.
bool for_tensor_cores(const AttentionForward<Bf16>& args) {
  return (args.head_size == 32 || args.head_size == 64 || args.head_size == 96 || args.head_size == 128) && args.scale > 0.0 &&
         rows_aligned_to_16<Bf16>(args.q_stride, args.q) && rows_aligned_to_16<Bf16>(args.k_stride, args.k) &&
         rows_aligned_to_16<Bf16>(args.v_stride, args.v) && aligned_to_16(args.out);
}

template <int kHeadSize>
void launch_for_tensor_cores(CudaStream stream, const AttentionForward<Bf16>& args) {
  using Tiles = TensorTiles<kHeadSize>;
  const LaunchShape shape{
      .grid = blocks_for(args.query_tiles.count * args.heads, 1), .block = Tiles::kThreads, .shared_bytes = Tiles::kSharedBytes};
  if (args.dropout.threshold == 0) {
    launch(attention_forward_kernel<kHeadSize, Drops::no>, shape, stream, args);
  } else {
    launch(attention_forward_kernel<kHeadSize, Drops::yes>, shape, stream, args);
  }
}

template <int kColumns, class T>
void launch_plain(CudaStream stream, const AttentionForward<T>& args) {
  const auto floats = static_cast<std::size_t>(PlainTiles{static_cast<int>(args.head_size)}.size());
  launch(attention_forward_plain_kernel<kColumns, T>,
         {.grid = blocks_for(args.query_tiles.count * (kTileQueries / kPlainQueries) * args.heads, 1),
          .block = kPlainWarps * kWarp,
          .shared_bytes = floats * sizeof(float)},
         stream, args);
}

template <class T>
void check(const AttentionForward<T>& args) {
  if (args.head_size < 1 || args.head_size > kMaxHeadSize) {
    throw std::invalid_argument("attention_forward: heads of " + std::to_string(args.head_size) + " columns, 1 to " +
                                std::to_string(kMaxHeadSize) + " can be computed");
  }
  if (args.query_tiles.rows != kTileQueries) {
    throw std::invalid_argument("attention_forward: tiles of " + std::to_string(args.query_tiles.rows) +
                                " queries, CUDA's have " + std::to_string(kTileQueries));
  }
}

}  // namespace

template <class T>
void attention_forward(CudaStream stream, const AttentionForward<T>& args) {
  const device::Range range("attention_forward");
  check(args);
  if constexpr (std::is_same_v<T, Bf16>) {
    if (for_tensor_cores(args)) {
      switch (args.head_size) {
        case 32:
          return launch_for_tensor_cores<32>(stream, args);
        case 64:
          return launch_for_tensor_cores<64>(stream, args);
        case 96:
          return launch_for_tensor_cores<96>(stream, args);
        default:
          return launch_for_tensor_cores<128>(stream, args);
      }
    }
  }
  if (args.head_size <= 64) return launch_plain<2>(stream, args);
  if (args.head_size <= 128) return launch_plain<4>(stream, args);
  launch_plain<8>(stream, args);
}
template void attention_forward(CudaStream, const AttentionForward<float>&);
template void attention_forward(CudaStream, const AttentionForward<Bf16>&);

}  // namespace lathe
