// Attention in CUDA, backward (docs/kernels/attention-backward.md explains it from the beginning). Four steps, each a kernel:
//
// 1. Statistics: delta = d_out . out of each query and head, beside the logarithm of its sum in powers of two.
// 2. Tensor cores (bf16, head sizes 32, 64, 96, 128): a block owns a tile of keys of one head, and walks it in parts of 128 keys, 16 a warp,
//    whose d_k and d_v stay in the warp's registers while the queries pass, the next ones on their way. Scores are made transposed, keys by
//    queries: then P^T and dS^T, rounded to bf16, are the left factors of d_v += P^T d_out and d_k += dS^T q as they lie in the registers of the
//    warp that made them. Only dS goes through shared memory, for d_q = dS k, which sums over the keys of all warps.
// 3. Over the parts of a tile the block sums d_q in order, in memory that nobody else touches: it belongs to the tile's number in its sequence.
//    Where the sequence has one tile d_q is then complete, and written; and where that has one part, no sum went through memory.
// 4. Where sequences have several tiles, a last kernel adds their sums of each query in order. So no sum depends on which block runs when.
//
// Dropout's decisions are made by the block for the next queries while the tensor cores compute, one Philox call for eight of them, and wait
// in shared memory, a bit each: a fragment of transposed scores has two of a call's eight.
//
// Plain (fp32, any head size, any alignment): tiles of 16 x 16 scores, once in a kernel that owns queries, for d_q, and once in one that owns
// keys, for d_k and d_v.
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/attention_dropout.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/cp_async.cuh"
#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/math.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/tile.cuh"
#include "lathe/kernels/device/tile_copy.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

enum class Drops : std::uint8_t { no, yes };

/// What the kernels hand to each other in the workspace.
struct Scratch {
  float* statistics;  ///< [NH, Tq, 2]: lse * log2(e) and delta
  float* sums;        ///< [splits, Tq, NH, HS] of d_q before its scale; null where no sequence has several parts
};

/// Keys that a block of the tensor cores' kernel has at once.
constexpr auto kPartKeys = static_cast<int>(kAttentionPartKeys);

template <class T>
__device__ __forceinline__ ProbabilityDropout dropout_of(const AttentionBackward<T>& args, int sequence, int head) {
  if (args.dropout.threshold == 0) return {};
  return {args.dropout, sequence, args.dropout.layer * static_cast<std::uint32_t>(args.heads) + static_cast<std::uint32_t>(head)};
}

// ---------------------------------------------------------------- statistics

constexpr int kStatisticsThreads = 256;
constexpr int kStatisticsQueries = 128;
constexpr int kStatisticsLanes = 8;  // of a row

template <class T, int kWidth>
__global__ void __launch_bounds__(kStatisticsThreads)
    attention_statistics_kernel(const __grid_constant__ AttentionBackward<T> args, float* statistics) {
  __shared__ float delta[kStatisticsQueries];
  const auto head = static_cast<int>(blockIdx.x % static_cast<unsigned>(args.heads));
  const std::int64_t first = std::int64_t{blockIdx.x / static_cast<unsigned>(args.heads)} * kStatisticsQueries;
  const int queries =
      static_cast<int>(max(min(args.cu_q[args.sequences] - first, std::int64_t{kStatisticsQueries}), std::int64_t{0}));
  const auto head_size = static_cast<int>(args.head_size);
  const int lane = static_cast<int>(threadIdx.x) % kStatisticsLanes;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) / kStatisticsLanes; row < kStatisticsQueries;
       row += kStatisticsThreads / kStatisticsLanes) {
    const std::int64_t from = ((first + row) * args.heads + head) * head_size;
    float sum = 0.0F;
    for (int column = lane * kWidth; row < queries && column < head_size; column += kStatisticsLanes * kWidth) {
      float a[kWidth];
      float b[kWidth];
      to_float(load<kWidth, Reuse::once>(args.d_out + from + column), a);
      to_float(load<kWidth, Reuse::once>(args.out + from + column), b);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum = fmaf(a[i], b[i], sum);
    }
#pragma unroll
    for (int distance = 1; distance < kStatisticsLanes; distance *= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (lane == 0) delta[row] = sum;
  }
  __syncthreads();
  const auto query = static_cast<int>(threadIdx.x);
  if (query >= queries) return;
  const std::int64_t place = head * args.queries + first + query;
  store(statistics + 2 * place, Vector<float, 2>{args.lse[place] * kLog2E, delta[query]});
}

// ---------------------------------------------------------------- tensor cores

template <int kHeadSize>
struct TensorTiles {
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kWarpKeys = 16;
  static_assert(kWarps * kWarpKeys == kPartKeys);
  static constexpr int kQueries = kHeadSize <= 64 ? 128 : 64;
  /// Queries whose scores a warp has in registers at a time.
  static constexpr int kChunk = 32;
  static constexpr Swizzle kSwizzle = kHeadSize % 64 == 0 ? Swizzle::bytes_128 : Swizzle::bytes_64;
  using Keys = SharedTile<Bf16, kPartKeys, kHeadSize, kSwizzle>;
  using Queries = SharedTile<Bf16, kQueries, kHeadSize, kSwizzle>;
  using Scores = SharedTile<Bf16, kPartKeys, kQueries, Swizzle::bytes_128>;
  /// Where the warp's fragments of K and V fit beside the gradients they are read once; else anew for each chunk of queries.
  static constexpr bool kKeysInRegisters = kHeadSize <= 64;
  /// Of d_q [kQueries, kHeadSize] a warp has a quarter of the queries and half of the columns.
  static constexpr int kQueryFragments = kQueries / 64;
  static constexpr int kColumns = kHeadSize / 2;
  /// Words of 32 decisions: the keys of a part in groups of 32, by queries.
  static constexpr int kKeyGroups = kPartKeys / 32;

  /// Two stages of queries; of each q, d_out and statistics.
  static constexpr std::size_t kStageBytes = 2 * Queries::kBytes + 2 * kQueries * sizeof(float);
  static constexpr std::size_t kSharedBytes =
      2 * Keys::kBytes + Scores::kBytes + 2 * kStageBytes + kKeyGroups * kQueries * sizeof(std::uint32_t);
  static_assert(kSharedBytes <= kSharedBytesAtMost);
};

/// A block's dynamic shared memory.
template <int kHeadSize>
struct TensorMemory {
  using Tiles = TensorTiles<kHeadSize>;
  std::byte* begin = dynamic_shared<std::byte>();

  __device__ __forceinline__ typename Tiles::Keys k() const { return {at(0)}; }
  __device__ __forceinline__ typename Tiles::Keys v() const { return {at(Tiles::Keys::kBytes)}; }
  __device__ __forceinline__ typename Tiles::Scores scores() const { return {at(2 * Tiles::Keys::kBytes)}; }
  __device__ __forceinline__ typename Tiles::Queries q(int stage) const { return {at(stage_begin(stage))}; }
  __device__ __forceinline__ typename Tiles::Queries d_out(int stage) const {
    return {at(stage_begin(stage) + Tiles::Queries::kBytes)};
  }
  __device__ __forceinline__ float* statistics(int stage) const {
    return reinterpret_cast<float*>(begin + stage_begin(stage) + 2 * Tiles::Queries::kBytes);
  }
  /// [kKeyGroups, kQueries]: bit 8 c + 2 i + e of a word for key 8 i + 2 c + e of its group.
  __device__ __forceinline__ std::uint32_t* kept() const { return reinterpret_cast<std::uint32_t*>(begin + stage_begin(2)); }

 private:
  static __device__ __forceinline__ std::size_t stage_begin(int stage) {
    return 2 * Tiles::Keys::kBytes + Tiles::Scores::kBytes + static_cast<std::size_t>(stage) * Tiles::kStageBytes;
  }
  __device__ __forceinline__ Bf16* at(std::size_t bytes) const { return reinterpret_cast<Bf16*>(begin + bytes); }
};

/// A warp's fragments of 16 rows of a tile of keys, [16, 16] for a step along the head, from registers or from shared memory.
template <int kHeadSize>
class KeyFragments {
  using Tiles = TensorTiles<kHeadSize>;

 public:
  __device__ __forceinline__ KeyFragments(typename Tiles::Keys tile, int first_row) : tile_(tile), reader_(first_row) {}
  /// Once a part, when the tile is there.
  __device__ __forceinline__ void keep() {
    if constexpr (Tiles::kKeysInRegisters) {
#pragma unroll
      for (int step = 0; step < kHeadSize / 16; ++step) reader_.load(kept_[step], tile_, 0, 16 * step);
    }
  }
  __device__ __forceinline__ void get(std::uint32_t (&a)[1][4], int step) const {
    if constexpr (Tiles::kKeysInRegisters) {
#pragma unroll
      for (int w = 0; w < 4; ++w) a[0][w] = kept_[step][w];
    } else {
      reader_.load(a[0], tile_, 0, 16 * step);
    }
  }

 private:
  typename Tiles::Keys tile_;
  PieceReader<Factor::left, typename Tiles::Keys> reader_;
  std::uint32_t kept_[Tiles::kKeysInRegisters ? kHeadSize / 16 : 1][4];
};

/// Calls put(row of the 16, first of four columns, values) for the two rows that a thread has of two neighbouring pieces of Accumulators. Lanes
/// first exchange halves with their neighbours, so that each has four columns together: 8 bytes of bf16, and 32 without a gap for the four lanes
/// of a row. All lanes take part.
template <class Put>
__device__ __forceinline__ void by_four(const float (&left)[4], const float (&right)[4], Put put) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const bool odd = lane % 2 != 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float own[2];
    float other[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      own[e] = odd ? right[2 * r + e] : left[2 * r + e];
      other[e] = __shfl_xor_sync(kAllLanes, odd ? left[2 * r + e] : right[2 * r + e], 1);
    }
    const float four[4] = {odd ? other[0] : own[0], odd ? other[1] : own[1], odd ? own[0] : other[0], odd ? own[1] : other[1]};
    put(lane / 4 + 8 * r, 8 * (lane % 2) + 4 * (lane % 4 / 2), four);
  }
}

/// A destination of gradients: rows of one head.
struct Destination {
  Bf16* rows;
  std::int64_t stride;
  Use use;
};

/// Writes scale * values of the first `present` rows, or adds it. `to.rows` is that of row 0 and column 0. All lanes take part.
template <int kM, int kN>
__device__ __forceinline__ void put_gradients(const Destination& to, const Accumulators<kM, kN>& values, int present,
                                              float scale) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      by_four(values.value[m][n], values.value[m][n + 1], [&](int row, int column, const float(&four)[4]) {
        if (16 * m + row >= present) return;
        Bf16* const place = to.rows + (16 * m + row) * to.stride + 8 * n + column;
        float result[4] = {};
        if (to.use == Use::add) to_float(load<4>(place), result);
#pragma unroll
        for (int i = 0; i < 4; ++i) result[i] = fmaf(four[i], scale, result[i]);
        store(place, from_float<Bf16>(result));
      });
    }
  }
}

/// The first `present` rows of d_q's sum over parts, zeroes behind them. A thread reads what it has written itself.
template <int kM, int kN>
__device__ __forceinline__ void load_sum(Accumulators<kM, kN>& values, const float* rows, std::int64_t stride, int present) {
  const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int row = fragment_row(r);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      Vector<float, 2> pair = {};
      if (row < present) pair = load<2>(rows + row * stride + column + 8 * n);
      values.value[r / 2][n][2 * (r % 2)] = pair[0];
      values.value[r / 2][n][2 * (r % 2) + 1] = pair[1];
    }
  }
}
template <int kM, int kN>
__device__ __forceinline__ void add(Accumulators<kM, kN>& to, const Accumulators<kM, kN>& values) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to.value[m][n][i] += values.value[m][n][i];
    }
  }
}
template <int kM, int kN>
__device__ __forceinline__ void store_sum(float* rows, std::int64_t stride, const Accumulators<kM, kN>& values, int present) {
  const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
  for (int r = 0; r < 2 * kM; ++r) {
    const int row = fragment_row(r);
    if (row >= present) continue;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      store(rows + row * stride + column + 8 * n,
            Vector<float, 2>{values.value[r / 2][n][2 * (r % 2)], values.value[r / 2][n][2 * (r % 2) + 1]});
    }
  }
}

/// A block's work: a tile of keys of a sequence, and a head. Heads are neighbours, so that blocks that run together read whole rows.
struct Work {
  int sequence;
  int head;
  SequenceRows rows;
  int first, end;  ///< keys of the sequence
  int split;       ///< the tile's number in the sequence

  template <class T>
  __device__ __forceinline__ Work(const AttentionBackward<T>& args, unsigned unit) {
    const auto heads = static_cast<unsigned>(args.heads);
    const unsigned tile = unit / heads;
    head = static_cast<int>(unit - tile * heads);
    sequence = args.key_tiles.sequence[tile];
    if (sequence < 0) return;
    rows = sequence_rows(args.cu_q, args.cu_k, sequence);
    first = args.key_tiles.first[tile];
    const auto tile_rows = static_cast<int>(args.key_tiles.rows);
    end = min(first + tile_rows, rows.keys);
    split = first / tile_rows;
  }
};

/// Whether a sequence has one tile of keys, whose block then writes all of its d_q.
__device__ __forceinline__ bool has_one_tile(const AttentionTiles& key_tiles, const SequenceRows& rows) {
  return rows.keys <= key_tiles.rows;
}

/// The first query that sees the key.
__device__ __forceinline__ int first_viewer(AttentionMask mask, const SequenceRows& rows, int key) {
  return mask == AttentionMask::full ? 0 : max(key - (rows.keys - rows.queries), 0);
}

/// Which of a thread's scores are of keys that exist and that their query sees.
struct View {
  int keys;       ///< keys that exist, less the thread's first
  int seen_from;  ///< the query of the chunk from which on the thread's first key is seen

  __device__ __forceinline__ bool sees(int key, int query) const { return key < keys && key <= query - seen_from; }
};

/// Scores become probabilities, rounded to 0 where dropped, and `d_p`, the gradients of probabilities, those of scores before their scale.
/// Rows are keys, columns queries. `statistics` of the chunk's first query. `words`: of the chunk's first query, `bit` the thread's first key's.
template <bool kMasked, Drops kDrops, int kN>
__device__ __forceinline__ void differentiate(Accumulators<1, kN>& p, Accumulators<1, kN>& d_p, float slope, float kept_scale,
                                              const float* statistics, const View& view, const std::uint32_t* words, int bit) {
  const int column = 2 * static_cast<int>(threadIdx.x % 4);
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const Vector<float, 4> of_queries = load<4>(statistics + 2 * (8 * n + column));
    std::uint32_t kept[2] = {};
    if constexpr (kDrops == Drops::yes) {
      const Vector<std::uint32_t, 2> pair = load<2>(words + 8 * n + column);
      kept[0] = pair[0] >> bit;
      kept[1] = pair[1] >> bit;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float lse = of_queries[2 * (i % 2)];
      const float delta = of_queries[2 * (i % 2) + 1];
      float& score = p.value[0][n][i];
      float& gradient = d_p.value[0][n][i];
      float probability = fast_exp2(fmaf(score, slope, -lse));
      if constexpr (kMasked) {
        if (!view.sees(8 * (i / 2), 8 * n + column + i % 2)) probability = 0.0F;
      }
      if constexpr (kDrops == Drops::yes) {
        const bool keeps = (kept[i % 2] & (i / 2 == 0 ? 1U : 4U)) != 0;
        score = keeps ? probability : 0.0F;
        gradient = probability * fmaf(keeps ? gradient : 0.0F, kept_scale, -delta);
      } else {
        score = probability;
        gradient = probability * (gradient - delta);
      }
    }
  }
}

template <int kHeadSize, Drops kDrops>
__global__ void __launch_bounds__(TensorTiles<kHeadSize>::kThreads, 1)
    attention_backward_kernel(const __grid_constant__ AttentionBackward<Bf16> args, const Scratch scratch) {
  using Tiles = TensorTiles<kHeadSize>;
  constexpr int kQueries = Tiles::kQueries;
  constexpr int kChunk = Tiles::kChunk;
  constexpr int kSteps = kHeadSize / 16;
  const Work work(args, blockIdx.x);
  if (work.sequence < 0) return;
  const SequenceRows rows = work.rows;
  const TensorMemory<kHeadSize> memory;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const int column = work.head * kHeadSize;

  const std::int64_t out_stride = args.heads * kHeadSize;
  const TileCopy<typename Tiles::Queries, Tiles::kThreads> copy_queries(thread);
  const auto load_queries = [&](int tile) {
    const int first = tile * kQueries;
    const int present = rows.queries - first;
    if (present > 0) {
      const std::int64_t row = std::int64_t{rows.first_query} + first;
      const Bf16* const q = copy_queries.first_piece(args.q + row * args.q_stride + column, args.q_stride);
      const Bf16* const d_out = copy_queries.first_piece(args.d_out + row * out_stride + column, out_stride);
      copy_queries.load(memory.q(tile % 2), q, args.q_stride, present);
      copy_queries.load(memory.d_out(tile % 2), d_out, out_stride, present);
      if (thread < kQueries) {
        cp_async<8>(memory.statistics(tile % 2) + 2 * thread,
                    scratch.statistics + 2 * (work.head * args.queries + row + (thread < present ? thread : 0)),
                    thread < present);
      }
    }
    cp_async_commit();
  };

  const float slope = static_cast<float>(args.scale) * kLog2E;
  const ProbabilityDropout dropout = dropout_of(args, work.sequence, work.head);
  // Decisions for the queries of a tile, by all threads: each makes some of the words of 32 keys.
  const auto decide = [&](int tile, int first_key) {
    if constexpr (kDrops == Drops::yes) {
#pragma unroll 1
      for (int i = thread; i < Tiles::kKeyGroups * kQueries; i += Tiles::kThreads) {
        const int query = tile * kQueries + i % kQueries;
        std::uint32_t word = 0;
        if (query < rows.queries) {
          const ProbabilityDropout::Query of_query[1] = {dropout.query(query)};
          const auto group = static_cast<std::uint32_t>(first_key / 32 + i / kQueries);
#pragma unroll
          for (std::uint32_t c = 0; c < 4; ++c) {
            std::uint32_t words[1][4];
            dropout.draw(words, of_query, 4 * group + c);
            word |= dropout.kept(words[0]) << (8 * c);
          }
        }
        memory.kept()[i] = word;
      }
    }
  };
  // Bit of the thread's first key in its group: 16 (warp % 2) + lane / 4; of its second, 8 keys on, two bits on.
  const int lane = thread % kWarp;
  const int bit = 8 * (lane / 8) + 4 * (warp % 2) + lane / 4 % 2;
  const std::uint32_t* const words = memory.kept() + warp / 2 * kQueries;

  KeyFragments<kHeadSize> k_fragments(memory.k(), warp * Tiles::kWarpKeys);
  KeyFragments<kHeadSize> v_fragments(memory.v(), warp * Tiles::kWarpKeys);
  const PieceReader<Factor::right_transposed, typename Tiles::Queries> as_columns;
  const PieceReader<Factor::right, typename Tiles::Queries> as_rows;
  const PieceReader<Factor::right, typename Tiles::Keys> keys_as_rows;
  const PieceReader<Factor::left_transposed, typename Tiles::Scores> scores_reader;
  const int own_scores = Tiles::Scores::offset(warp * Tiles::kWarpKeys + lane / 4, 2 * (lane % 4));

  const bool one_tile = has_one_tile(args.key_tiles, rows);
  const int tiles = (rows.queries + kQueries - 1) / kQueries;
  int first = work.first;
  do {
    const int keys = min(work.end - first, kPartKeys);
    const bool first_part = first == work.first;
    // Tiles of queries that see this part's keys, and those that see the next one's. Where d_q is written here it is written of all queries, also
    // of those that see nothing.
    const int first_tile = one_tile && first_part ? 0 : first_viewer(args.mask, rows, first) / kQueries;
    const int next_tile = first + kPartKeys < work.end ? first_viewer(args.mask, rows, first + kPartKeys) / kQueries : tiles;
    {
      const TileCopy<typename Tiles::Keys, Tiles::kThreads> copy_keys(thread);
      const std::int64_t row = std::int64_t{rows.first_key} + first;
      if (!first_part) __syncthreads();  // all are through with the part before
      copy_keys.load(memory.k(), copy_keys.first_piece(args.k + row * args.k_stride + column, args.k_stride), args.k_stride,
                     keys);
      copy_keys.load(memory.v(), copy_keys.first_piece(args.v + row * args.v_stride + column, args.v_stride), args.v_stride,
                     keys);
      cp_async_commit();
    }
    load_queries(first_tile);
    load_queries(first_tile + 1);
    decide(first_tile, first);
    cp_async_wait<2>();
    __syncthreads();
    k_fragments.keep();
    v_fragments.keep();

    Accumulators<1, kHeadSize / 8> d_k;
    Accumulators<1, kHeadSize / 8> d_v;
    d_k.clear();
    d_v.clear();
#pragma unroll 1
    for (int tile = first_tile; tile < tiles; ++tile) {
      const int queries = min(rows.queries - tile * kQueries, kQueries);
      const typename Tiles::Queries q = memory.q(tile % 2);
      const typename Tiles::Queries d_out = memory.d_out(tile % 2);
      cp_async_wait<1>();
      __syncthreads();  // this tile is there for all, and all are through with the scores of the one before

      const int warp_key = warp * Tiles::kWarpKeys;
      if (warp_key < keys) {
#pragma unroll 1
        for (int chunk = 0; chunk < queries; chunk += kChunk) {
          Accumulators<1, kChunk / 8> p;
          Accumulators<1, kChunk / 8> d_p;
          p.clear();
          d_p.clear();
#pragma unroll
          for (int step = 0; step < kSteps; ++step) {
            std::uint32_t a[1][4];
            std::uint32_t b[4];
            k_fragments.get(a, step);
#pragma unroll
            for (int n = 0; n < kChunk / 16; ++n) {
              as_columns.load(b, q, chunk + 16 * n, 16 * step);
              multiply(p, n, a, b);
            }
            v_fragments.get(a, step);
#pragma unroll
            for (int n = 0; n < kChunk / 16; ++n) {
              as_columns.load(b, d_out, chunk + 16 * n, 16 * step);
              multiply(d_p, n, a, b);
            }
          }

          const int own_key = warp_key + lane / 4;
          const int seen_from = args.mask == AttentionMask::full
                                    ? -kPartKeys
                                    : first + own_key - (rows.keys - rows.queries) - tile * kQueries - chunk;
          const View view{.keys = keys - own_key, .seen_from = seen_from};
          const float* const statistics = memory.statistics(tile % 2) + 2 * chunk;
          // The same for all lanes: whether the warp's last key is behind the end, or hidden from the chunk's first query.
          const int last_key = warp_key + Tiles::kWarpKeys - 1;
          if (last_key >= keys || seen_from - own_key + last_key > 0) {
            differentiate<true, kDrops>(p, d_p, slope, dropout.scale(), statistics, view, words + chunk, bit);
          } else {
            differentiate<false, kDrops>(p, d_p, slope, dropout.scale(), statistics, view, words + chunk, bit);
          }

#pragma unroll
          for (int step = 0; step < kChunk / 16; ++step) {
            std::uint32_t a[1][4];
            std::uint32_t b[4];
            d_p.to_left_factor(a, step);
#pragma unroll
            for (int w = 0; w < 4; ++w) {
              const int place = Tiles::Scores::moved(own_scores, 8 * (w % 2), chunk + 16 * step + 8 * (w / 2));
              *reinterpret_cast<std::uint32_t*>(memory.scores().at_offset(place)) = a[0][w];
            }
#pragma unroll
            for (int n = 0; n < kSteps; ++n) {
              as_rows.load(b, q, chunk + 16 * step, 16 * n);
              multiply(d_k, n, a, b);
            }
            p.to_left_factor(a, step);
#pragma unroll
            for (int n = 0; n < kSteps; ++n) {
              as_rows.load(b, d_out, chunk + 16 * step, 16 * n);
              multiply(d_v, n, a, b);
            }
          }
        }
      }
      __syncthreads();  // dS is there, and all are through with the queries and their decisions
      load_queries(tile + 2);
      if (tile + 1 < tiles) decide(tile + 1, first);
      if (args.use_q == Use::skip) continue;

      const int query = warp / 2 * (kQueries / 4);
      const int warp_column = warp % 2 * Tiles::kColumns;
      if (query >= queries) continue;
      const std::int64_t row = std::int64_t{rows.first_query} + tile * kQueries + query;
      float* const sum = scratch.sums + (work.split * args.queries + row) * out_stride + column + warp_column;
      Accumulators<Tiles::kQueryFragments, Tiles::kColumns / 8> before;
      before.clear();
      if (!first_part) load_sum(before, sum, out_stride, queries - query);  // on its way while the product is made
      Accumulators<Tiles::kQueryFragments, Tiles::kColumns / 8> d_q;
      d_q.clear();
#pragma unroll 2
      for (int key = 0; key < keys; key += 16) {
        std::uint32_t a[Tiles::kQueryFragments][4];
        std::uint32_t b[4];
#pragma unroll
        for (int m = 0; m < Tiles::kQueryFragments; ++m) scores_reader.load(a[m], memory.scores(), key, query + 16 * m);
#pragma unroll
        for (int n = 0; n < Tiles::kColumns / 16; ++n) {
          keys_as_rows.load(b, memory.k(), key, warp_column + 16 * n);
          multiply(d_q, n, a, b);
        }
      }
      add(d_q, before);
      if (one_tile && tile < next_tile) {
        put_gradients({args.d_q + row * args.d_q_stride + column + warp_column, args.d_q_stride, args.use_q}, d_q,
                      queries - query, static_cast<float>(args.scale));
      } else {
        store_sum(sum, out_stride, d_q, queries - query);
      }
    }
    cp_async_wait<0>();

    const int warp_key = warp * Tiles::kWarpKeys;
    const std::int64_t row = std::int64_t{rows.first_key} + first + warp_key;
    if (args.use_k != Use::skip) {
      put_gradients({args.d_k + row * args.d_k_stride + column, args.d_k_stride, args.use_k}, d_k, keys - warp_key,
                    static_cast<float>(args.scale));
    }
    if (args.use_v != Use::skip) {
      put_gradients({args.d_v + row * args.d_v_stride + column, args.d_v_stride, args.use_v}, d_v, keys - warp_key,
                    dropout.scale());
    }
    first += kPartKeys;
  } while (first < work.end);
}

// ---------------------------------------------------------------- d_q from the sums of tiles

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

// ---------------------------------------------------------------- plain

/// Scores of a tile are kPlainTile x kPlainTile, one a thread.
constexpr int kPlainTile = 16;
constexpr int kPlainThreads = kPlainTile * kPlainTile;
/// Columns of a row of gradients that a thread has at most.
constexpr int kPlainColumns = static_cast<int>(kMaxHeadSize) / kPlainTile;

/// Rows of a tile's four matrices in fp32, an odd number of words apart, so that sixteen of them are in different banks; and what comes of them.
struct PlainMemory {
  float* begin = dynamic_shared<float>();
  int head_size, stride;

  __device__ __forceinline__ explicit PlainMemory(int of_head_size) : head_size(of_head_size), stride(of_head_size | 1) {}
  static std::size_t bytes(std::int64_t head_size) {
    return static_cast<std::size_t>(4 * kPlainTile * (head_size | 1) + 2 * kPlainTile * kPlainTile) * sizeof(float);
  }
  __device__ __forceinline__ float* q() const { return begin; }
  __device__ __forceinline__ float* d_out() const { return q() + kPlainTile * stride; }
  __device__ __forceinline__ float* k() const { return d_out() + kPlainTile * stride; }
  __device__ __forceinline__ float* v() const { return k() + kPlainTile * stride; }
  /// Probabilities, 0 where dropped, and gradients of scores before their scale, by query and key.
  __device__ __forceinline__ float* p(int query, int key) const { return v() + kPlainTile * stride + query * kPlainTile + key; }
  __device__ __forceinline__ float* ds(int query, int key) const { return p(query, key) + kPlainTile * kPlainTile; }

  /// Rows from `present` on become zeroes.
  template <class T>
  __device__ __forceinline__ void fill(float* tile, const T* from, std::int64_t row_stride, int present) const {
    for (int i = static_cast<int>(threadIdx.x); i < kPlainTile * head_size; i += kPlainThreads) {
      const int row = i / head_size;
      const int column = i % head_size;
      tile[row * stride + column] = row < present ? to_float(from[row * row_stride + column]) : 0.0F;
    }
  }
};

/// Whose rows a block owns.
enum class Side : std::uint8_t { queries, keys };

/// A block's work: kPlainTile rows of a tile in the side's list, and a head.
struct PlainWork {
  int sequence;
  int head;
  SequenceRows rows;
  int first, end;

  template <class T>
  __device__ __forceinline__ PlainWork(const AttentionBackward<T>& args, Side side) {
    const AttentionTiles& list = side == Side::queries ? args.query_tiles : args.key_tiles;
    const auto heads = static_cast<unsigned>(args.heads);
    const unsigned per_tile = (static_cast<unsigned>(list.rows) + kPlainTile - 1) / kPlainTile;
    const unsigned unit = blockIdx.x / heads;
    head = static_cast<int>(blockIdx.x - unit * heads);
    sequence = list.sequence[unit / per_tile];
    if (sequence < 0) return;
    rows = sequence_rows(args.cu_q, args.cu_k, sequence);
    const int tile_first = list.first[unit / per_tile];
    first = tile_first + static_cast<int>(unit % per_tile) * kPlainTile;
    end = min(first + kPlainTile, tile_first + static_cast<int>(list.rows));
    end = min(end, side == Side::queries ? rows.queries : rows.keys);
  }
  __device__ __forceinline__ bool empty() const { return sequence < 0 || first >= end; }
};

/// Fills `memory` with the rows of a tile of queries, or of keys. The caller synchronises.
template <class T>
__device__ __forceinline__ void fill_queries(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                             int first) {
  const std::int64_t row = std::int64_t{work.rows.first_query} + first;
  const std::int64_t column = work.head * args.head_size;
  const std::int64_t out_stride = args.heads * args.head_size;
  memory.fill(memory.q(), args.q + row * args.q_stride + column, args.q_stride, work.rows.queries - first);
  memory.fill(memory.d_out(), args.d_out + row * out_stride + column, out_stride, work.rows.queries - first);
}
template <class T>
__device__ __forceinline__ void fill_keys(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                          int first) {
  const std::int64_t row = std::int64_t{work.rows.first_key} + first;
  const std::int64_t column = work.head * args.head_size;
  memory.fill(memory.k(), args.k + row * args.k_stride + column, args.k_stride, work.rows.keys - first);
  memory.fill(memory.v(), args.v + row * args.v_stride + column, args.v_stride, work.rows.keys - first);
}

/// p and ds of the tile in `memory`, one of each a thread.
template <class T>
__device__ __forceinline__ void score(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                      const ProbabilityDropout& dropout, const float* statistics, int first_query,
                                      int first_key) {
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  const int column = static_cast<int>(threadIdx.x) % kPlainTile;
  const int query = first_query + row;
  const int key = first_key + column;
  float s = 0.0F;
  float d_p = 0.0F;
  for (int c = 0; c < memory.head_size; ++c) {
    s = fmaf(memory.q()[row * memory.stride + c], memory.k()[column * memory.stride + c], s);
    d_p = fmaf(memory.d_out()[row * memory.stride + c], memory.v()[column * memory.stride + c], d_p);
  }
  float lse = INFINITY;
  float delta = 0.0F;
  if (query < work.rows.queries && key < visible_keys(args.mask, work.rows, query)) {
    const std::int64_t place = work.head * args.queries + work.rows.first_query + query;
    lse = args.lse[place];
    delta = statistics[2 * place + 1];
  }
  const float p = lse == INFINITY ? 0.0F : expf(fmaf(s, static_cast<float>(args.scale), -lse));
  const bool keeps = args.dropout.threshold == 0 || dropout.kept(query, key);
  *memory.p(row, column) = keeps ? p : 0.0F;
  *memory.ds(row, column) = p * ((keeps ? d_p * dropout.scale() : 0.0F) - delta);
}

/// Puts a thread's columns of a row of gradients there.
template <class T>
__device__ __forceinline__ void put_columns(T* row, Use use, const float (&values)[kPlainColumns], int head_size, float scale) {
  if (use == Use::skip) return;
#pragma unroll
  for (int n = 0; n < kPlainColumns; ++n) {
    const int column = static_cast<int>(threadIdx.x) % kPlainTile + n * kPlainTile;
    if (column >= head_size) continue;
    const float before = use == Use::add ? to_float(row[column]) : 0.0F;
    row[column] = from_float<T>(fmaf(values[n], scale, before));
  }
}

/// sums[n] += sum over i of factor(i) * tile[i, the thread's column n].
template <class Factors>
__device__ __forceinline__ void accumulate(float (&sums)[kPlainColumns], const PlainMemory& memory, const float* tile,
                                           const Factors& factor) {
  const float* const from = tile + threadIdx.x % kPlainTile;
#pragma unroll 1
  for (int i = 0; i < kPlainTile; ++i) {
    const float of_row = factor(i);
#pragma unroll
    for (int n = 0; n < kPlainColumns; ++n) {
      if (static_cast<int>(threadIdx.x) % kPlainTile + n * kPlainTile < memory.head_size)
        sums[n] = fmaf(of_row, from[i * memory.stride + n * kPlainTile], sums[n]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_plain_queries_kernel(const __grid_constant__ AttentionBackward<T> args, const float* statistics) {
  const PlainWork work(args, Side::queries);
  if (work.empty()) return;
  const PlainMemory memory(static_cast<int>(args.head_size));
  const ProbabilityDropout dropout = dropout_of(args, work.sequence, work.head);
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  float d_q[kPlainColumns] = {};
  fill_queries(args, memory, work, work.first);
  const int keys = visible_keys(args.mask, work.rows, work.end - 1);
  for (int first = 0; first < keys; first += kPlainTile) {
    fill_keys(args, memory, work, first);
    __syncthreads();
    score(args, memory, work, dropout, statistics, work.first, first);
    __syncthreads();
    accumulate(d_q, memory, memory.k(), [&](int key) { return *memory.ds(row, key); });
    __syncthreads();
  }
  if (work.first + row >= work.end) return;
  const std::int64_t to = std::int64_t{work.rows.first_query} + work.first + row;
  put_columns(args.d_q + to * args.d_q_stride + work.head * args.head_size, args.use_q, d_q, memory.head_size,
              static_cast<float>(args.scale));
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_plain_keys_kernel(const __grid_constant__ AttentionBackward<T> args, const float* statistics) {
  const PlainWork work(args, Side::keys);
  if (work.empty()) return;
  const PlainMemory memory(static_cast<int>(args.head_size));
  const ProbabilityDropout dropout = dropout_of(args, work.sequence, work.head);
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  float d_k[kPlainColumns] = {};
  float d_v[kPlainColumns] = {};
  fill_keys(args, memory, work, work.first);
  for (int first = first_viewer(args.mask, work.rows, work.first); first < work.rows.queries; first += kPlainTile) {
    fill_queries(args, memory, work, first);
    __syncthreads();
    score(args, memory, work, dropout, statistics, first, work.first);
    __syncthreads();
    accumulate(d_k, memory, memory.q(), [&](int query) { return *memory.ds(query, row); });
    accumulate(d_v, memory, memory.d_out(), [&](int query) { return *memory.p(query, row); });
    __syncthreads();
  }
  if (work.first + row >= work.end) return;
  const std::int64_t to = std::int64_t{work.rows.first_key} + work.first + row;
  const std::int64_t column = work.head * args.head_size;
  put_columns(args.d_k + to * args.d_k_stride + column, args.use_k, d_k, memory.head_size, static_cast<float>(args.scale));
  put_columns(args.d_v + to * args.d_v_stride + column, args.use_v, d_v, memory.head_size, dropout.scale());
}

// ---------------------------------------------------------------- launches

template <class T, int kWidth>
void launch_statistics(CudaStream stream, const AttentionBackward<T>& args, float* statistics) {
  launch(attention_statistics_kernel<T, kWidth>,
         {.grid = blocks_for(args.queries, kStatisticsQueries) * static_cast<unsigned>(args.heads), .block = kStatisticsThreads},
         stream, args, statistics);
}

template <int kHeadSize>
void launch_tensor(CudaStream stream, const AttentionBackward<Bf16>& args, const Scratch& scratch) {
  using Tiles = TensorTiles<kHeadSize>;
  const auto kernel = args.dropout.threshold != 0 ? attention_backward_kernel<kHeadSize, Drops::yes>
                                                  : attention_backward_kernel<kHeadSize, Drops::no>;
  launch(kernel,
         {.grid = static_cast<unsigned>(args.key_tiles.count * args.heads),
          .block = Tiles::kThreads,
          .shared_bytes = Tiles::kSharedBytes},
         stream, args, scratch);
}

template <class T>
void launch_plain(CudaStream stream, const AttentionBackward<T>& args, const float* statistics) {
  const auto blocks = [&](const AttentionTiles& list) {
    return static_cast<unsigned>(list.count * ((list.rows + kPlainTile - 1) / kPlainTile) * args.heads);
  };
  const std::size_t bytes = PlainMemory::bytes(args.head_size);
  if (args.use_q != Use::skip) {
    launch(attention_plain_queries_kernel<T>, {.grid = blocks(args.query_tiles), .block = kPlainThreads, .shared_bytes = bytes},
           stream, args, statistics);
  }
  if (args.use_k != Use::skip || args.use_v != Use::skip) {
    launch(attention_plain_keys_kernel<T>, {.grid = blocks(args.key_tiles), .block = kPlainThreads, .shared_bytes = bytes},
           stream, args, statistics);
  }
}

template <class T>
Scratch scratch_of(const AttentionBackward<T>& args) {
  const std::int64_t statistics = attention_statistics_bytes<T>(args.queries, args.heads);
  const std::int64_t bytes =
      attention_backward_workspace<T>(args.queries, args.heads, args.head_size, args.key_tiles.rows, args.splits);
  return {.statistics = reinterpret_cast<float*>(args.workspace),
          .sums = bytes > statistics ? reinterpret_cast<float*>(args.workspace + statistics) : nullptr};
}

/// Whether rows of q, k, v, d_out, out and of the destinations begin at multiples of 16 bytes.
template <class T>
bool is_aligned(const AttentionBackward<T>& args) {
  const auto whole = [](const T* rows, std::int64_t stride) { return aligned_to_16(rows) && stride % kWidest<T> == 0; };
  const auto used = [&](Use use, const T* rows, std::int64_t stride) { return use == Use::skip || whole(rows, stride); };
  return args.head_size % kWidest<T> == 0 && aligned_to_16(args.d_out, args.out) && whole(args.q, args.q_stride) &&
         whole(args.k, args.k_stride) && whole(args.v, args.v_stride) && used(args.use_q, args.d_q, args.d_q_stride) &&
         used(args.use_k, args.d_k, args.d_k_stride) && used(args.use_v, args.d_v, args.d_v_stride);
}

template <class T>
void check(const AttentionBackward<T>& args) {
  if (args.head_size < 1 || args.head_size > kMaxHeadSize) {
    throw std::invalid_argument("attention_backward: heads of " + std::to_string(args.head_size) + " columns, 1 to " +
                                std::to_string(kMaxHeadSize) + " can be computed");
  }
  if (args.key_tiles.rows < 32 || args.key_tiles.rows % 32 != 0) {
    throw std::invalid_argument("attention_backward: tiles of " + std::to_string(args.key_tiles.rows) +
                                " keys, CUDA takes multiples of 32");
  }
}

/// Whether there was a kernel for the head size.
bool run_on_tensor_cores(CudaStream stream, const AttentionBackward<Bf16>& args, const Scratch& scratch) {
  switch (args.head_size) {
    case 32:
      launch_tensor<32>(stream, args, scratch);
      break;
    case 64:
      launch_tensor<64>(stream, args, scratch);
      break;
    case 96:
      launch_tensor<96>(stream, args, scratch);
      break;
    case 128:
      launch_tensor<128>(stream, args, scratch);
      break;
    default:
      return false;
  }
  if (args.splits > 1 && args.use_q != Use::skip) {
    launch(attention_sum_tiles_kernel, {.grid = static_cast<unsigned>(args.query_tiles.count * args.heads), .block = kSumThreads},
           stream, args, static_cast<const float*>(scratch.sums));
  }
  return true;
}

}  // namespace

template <class T>
void attention_backward(CudaStream stream, const AttentionBackward<T>& args) {
  const device::Range range("attention_backward");
  if (args.use_q == Use::skip && args.use_k == Use::skip && args.use_v == Use::skip) return;
  check(args);
  const bool aligned = is_aligned(args);
  const Scratch scratch = scratch_of(args);
  if (aligned) {
    launch_statistics<T, kWidest<T>>(stream, args, scratch.statistics);
  } else {
    launch_statistics<T, 1>(stream, args, scratch.statistics);
  }
  if constexpr (std::is_same_v<T, Bf16>) {
    if (aligned && run_on_tensor_cores(stream, args, scratch)) return;
  }
  launch_plain(stream, args, scratch.statistics);
}

template void attention_backward(CudaStream, const AttentionBackward<float>&);
template void attention_backward(CudaStream, const AttentionBackward<Bf16>&);

}  // namespace lathe
