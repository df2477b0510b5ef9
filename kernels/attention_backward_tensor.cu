// Attention's gradients by the tensor cores: bf16, head sizes 32, 64, 96 and 128 (docs/kernels/attention-backward.md).
//
// A block owns a tile of keys of one head, and walks it in parts of 128 keys, 16 a warp, whose d_k and d_v stay in the warp's registers while
// the queries pass, the next ones on their way. Scores are made transposed, keys by queries: then P^T and dS^T, rounded to bf16, are the left
// factors of d_v += P^T d_out and d_k += dS^T q as they lie in the registers of the warp that made them. Only dS goes through shared memory, for
// d_q = dS k, which sums over the keys of all warps.
//
// Over the parts of a tile the block sums d_q in order, in memory that nobody else touches: it belongs to the tile's number in its sequence.
// Where the sequence has one tile d_q is then complete, and written; and where that has one part, no sum went through memory.
//
// Dropout's decisions are made by the block for the next queries while the tensor cores compute, one Philox call for eight of them, and wait
// in shared memory, a bit each: a fragment of transposed scores has two of a call's eight.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/attention_backward_steps.cuh"
#include "lathe/kernels/device/attention_dropout.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/cp_async.cuh"
#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/fragment_rows.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/math.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/tile.cuh"
#include "lathe/kernels/device/tile_copy.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

enum class Drops : std::uint8_t { no, yes };

/// Keys that a block has at once.
constexpr auto kPartKeys = static_cast<int>(kAttentionPartKeys);

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
    attention_backward_kernel(const __grid_constant__ AttentionBackward<Bf16> args, const AttentionScratch scratch) {
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

template <int kHeadSize>
void launch_products(CudaStream stream, const AttentionBackward<Bf16>& args, const AttentionScratch& scratch) {
  using Tiles = TensorTiles<kHeadSize>;
  const auto kernel = args.dropout.threshold != 0 ? attention_backward_kernel<kHeadSize, Drops::yes>
                                                  : attention_backward_kernel<kHeadSize, Drops::no>;
  launch(kernel,
         {.grid = static_cast<unsigned>(args.key_tiles.count * args.heads),
          .block = Tiles::kThreads,
          .shared_bytes = Tiles::kSharedBytes},
         stream, args, scratch);
}

}  // namespace

bool attention_tensor_products(CudaStream stream, const AttentionBackward<Bf16>& args, const AttentionScratch& scratch) {
  switch (args.head_size) {
    case 32:
      launch_products<32>(stream, args, scratch);
      return true;
    case 64:
      launch_products<64>(stream, args, scratch);
      return true;
    case 96:
      launch_products<96>(stream, args, scratch);
      return true;
    case 128:
      launch_products<128>(stream, args, scratch);
      return true;
    default:
      return false;
  }
}

}  // namespace lathe
