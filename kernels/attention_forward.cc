// Attention, forward. cpu_attention.h says how scores lie in memory; the running maximum and sum are those of "Online normalizer
// calculation for softmax" (Milakov and Gimelshein, 2018).
#include <limits>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/cpu_attention.h"
#include "lathe/kernels/cpu_attention_dropout.h"
#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_products.h"
#include "lathe/kernels/cpu_vector.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

constexpr std::int64_t kTileKeys = 64;
constexpr std::int64_t kColumnsBytes = 32768;

/// Below so many operations (about 20 us) a second thread costs more than it brings.
constexpr std::int64_t kLeastParallelFlops = 1'000'000;

/// The tile's scores, and for each of its queries what softmax knows so far: the maximum, and the sum of exponentials of scores less
/// the maximum, undropped.
template <class T>
struct SoftmaxTile {
  alignas(64) T scores[kTileKeys * kTileStep<T>];
  alignas(64) T largest[kTileStep<T>];
  alignas(64) T sum[kTileStep<T>];
  alignas(64) T new_scale[kTileStep<T>];  ///< what this tile's products are multiplied by
  alignas(64) T old_scale[kTileStep<T>];  ///< and what earlier ones are
};

enum class Position : std::uint8_t { first, later };

/// Scores to probabilities, in place, for one vector of queries.
template <class T, Position kPosition>
[[gnu::always_inline]] inline void soften(SoftmaxTile<T>& tile, std::int64_t keys, std::int64_t vector) {
  constexpr std::int64_t kStep = kTileStep<T>;
  const std::int64_t lane = vector * kLanes<T>;
  T* const scores = tile.scores + lane;
  const Vector<T> lowest = broadcast(-std::numeric_limits<T>::infinity());
  const Vector<T> before = kPosition == Position::first ? lowest : load_vector(tile.largest + lane);
  Vector<T> most[4] = {before, before, before, before};
  std::int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) most[i] = maximum(load_vector(scores + (j + i) * kStep), most[i]);
  }
  for (; j < keys; ++j) most[0] = maximum(load_vector(scores + j * kStep), most[0]);
  const Vector<T> largest = maximum(maximum(most[0], most[1]), maximum(most[2], most[3]));
  // A query that has seen no key yet: any finite number, so that -inf less it stays -inf.
  const Vector<T> origin = largest == lowest ? Vector<T>{} : largest;
  Vector<T> sum{};
#pragma GCC unroll 2
  for (j = 0; j < keys; ++j) {
    const Vector<T> p = exp<T>(load_vector(scores + j * kStep) - origin);
    sum += p;
    store_vector(scores + j * kStep, p);
  }
  if constexpr (kPosition == Position::later) {
    const Vector<T> shrink = exp<T>(before - origin);
    sum += load_vector(tile.sum + lane) * shrink;
    store_vector(tile.old_scale + lane, shrink);
  }
  store_vector(tile.sum + lane, sum);
  store_vector(tile.largest + lane, largest);
}

/// After the last keys: makes the scales divide by the sums, and gives the logarithms of the sums of exponentials.
template <class T>
[[gnu::always_inline]] inline void finish(SoftmaxTile<T>& tile, std::int64_t queries, T kept_scale, Accumulator<T>* lse) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  for (std::int64_t lane = 0; lane < queries; lane += kLanes<T>) {
    const Vector<T> largest = load_vector(tile.largest + lane);
    const Vector<T> sum = load_vector(tile.sum + lane);
    const auto none = largest == broadcast(-kInfinity);
    const Vector<T> inverse = none ? Vector<T>{} : kept_scale / sum;
    store_vector(tile.new_scale + lane, inverse);
    store_vector(tile.old_scale + lane, load_vector(tile.old_scale + lane) * inverse);
    const Vector<T> log_sum = largest + log<T>(sum);
    const Tail<T> tail = first_lanes<T>(queries - lane < kLanes<T> ? queries - lane : kLanes<T>);
    store_vector(lse + lane, none ? broadcast(kInfinity) : log_sum, tail);
  }
}

/// Queries [first, first + queries) of one sequence and one head.
struct Tile {
  std::int64_t sequence, head, first, queries;
};

/// The queries' results where no key is to be seen.
template <class T>
void write_nothing_seen(const AttentionForward<T>& args, std::int64_t head, std::int64_t row, std::int64_t queries) {
  T* const out = args.out + (row * args.heads + head) * args.head_size;
  Accumulator<T>* const lse = args.lse + head * args.queries + row;
  for (std::int64_t i = 0; i < queries; ++i) {
    lse[i] = std::numeric_limits<T>::infinity();
    for (std::int64_t d = 0; d < args.head_size; ++d) out[i * args.heads * args.head_size + d] = T{0};
  }
}

template <class T>
[[gnu::noinline]] void forward_tile(const AttentionForward<T>& args, const Tile& at) noexcept {
  constexpr std::int64_t kStep = kTileStep<T>;
  const std::int64_t head_size = args.head_size;
  const std::int64_t row = args.cu_q[at.sequence] + at.first;
  const std::int64_t first_key = args.cu_k[at.sequence];
  const std::int64_t all_queries = args.cu_q[at.sequence + 1] - args.cu_q[at.sequence];
  const std::int64_t all_keys = args.cu_k[at.sequence + 1] - first_key;
  const std::int64_t keys = visible_keys(args.mask, at.first + at.queries - 1, all_queries, all_keys);
  if (keys == 0) {
    write_nothing_seen(args, at.head, row, at.queries);
    return;
  }
  const bool drops = args.dropout.threshold != 0;
  const std::int64_t vectors = ceil_divide(at.queries, kLanes<T>);
  const std::int64_t width = vectors * kLanes<T>;

  alignas(64) T columns[kColumnsBytes / sizeof(T)];
  SoftmaxTile<T> tile;
  LaneBits kept[kTileKeys * kTileVectors];
  const auto scale = static_cast<T>(args.scale);
  const T one = 1;
  transpose_rows<T>(args.q + row * args.q_stride + at.head * head_size, args.q_stride, at.queries, head_size, columns, width);
  for (std::int64_t lane = 0; lane < width; lane += kLanes<T>) store_vector(tile.new_scale + lane, broadcast(one));
  TileDropout<T> dropout;
  if (drops) {
    const auto head = args.dropout.layer * static_cast<std::uint32_t>(args.heads) + static_cast<std::uint32_t>(at.head);
    dropout.start(args.dropout, at.sequence, head, at.first, vectors);
  }

  for (std::int64_t done = 0; done < keys; done += kTileKeys) {
    const std::int64_t count = keys - done < kTileKeys ? keys - done : kTileKeys;
    evaluate<T, LeftFactor::by_rows>({.c = tile.scores,
                                      .c_step = kStep,
                                      .a = args.k + (first_key + done) * args.k_stride + at.head * head_size,
                                      .a_step = args.k_stride,
                                      .b = columns,
                                      .b_step = width,
                                      .rows = count,
                                      .columns = width,
                                      .depth = head_size,
                                      .scale = &scale,
                                      .old_scale = nullptr,
                                      .scale_step = 0});
    if (args.mask == AttentionMask::causal) {
      fill_hidden(tile.scores, count, width, done - (at.first + all_keys - all_queries), -std::numeric_limits<T>::infinity());
    }
    for (std::int64_t v = 0; v < vectors; ++v) {
      if (done == 0) {
        soften<T, Position::first>(tile, count, v);
      } else {
        soften<T, Position::later>(tile, count, v);
      }
    }
    if (drops) {
      dropout.draw(done, count, kept);
      for (std::int64_t j = 0; j < count; ++j) {
        for (std::int64_t v = 0; v < vectors; ++v) {
          T* const p = tile.scores + j * kStep + v * kLanes<T>;
          store_vector(p, keep(kept[j * kTileVectors + v], load_vector(p)));
        }
      }
    }
    if (done + count == keys) {
      const T kept_scale = drops ? static_cast<T>(65536.0 / (65536.0 - args.dropout.threshold)) : one;
      finish<T>(tile, at.queries, kept_scale, args.lse + at.head * args.queries + row);
    }
    evaluate<T, LeftFactor::by_columns>({.c = args.out + (row * args.heads + at.head) * head_size,
                                         .c_step = args.heads * head_size,
                                         .a = tile.scores,
                                         .a_step = kStep,
                                         .b = args.v + (first_key + done) * args.v_stride + at.head * head_size,
                                         .b_step = args.v_stride,
                                         .rows = at.queries,
                                         .columns = head_size,
                                         .depth = count,
                                         .scale = tile.new_scale,
                                         .old_scale = done == 0 ? nullptr : tile.old_scale,
                                         .scale_step = 1});
  }
}

/// Finds the tile of a unit of work, of which each (sequence, head) has one a tile of queries. Units must come in ascending order:
/// each sequence is found by walking on from the last.
template <class T>
class UnitWalk {
 public:
  UnitWalk(const AttentionForward<T>& args, std::int64_t max_vectors) : args_(args), max_vectors_(max_vectors) {}

  Tile at(std::int64_t unit) {
    while (unit - first_unit_ >= tiles_.count * args_.heads) {
      first_unit_ += tiles_.count * args_.heads;
      ++sequence_;
      queries_ = args_.cu_q[sequence_ + 1] - args_.cu_q[sequence_];
      tiles_ = cut_queries<T>(queries_, max_vectors_);
    }
    const std::int64_t in_sequence = unit - first_unit_;
    const std::int64_t first = in_sequence % tiles_.count * tiles_.rows;
    const std::int64_t left = queries_ - first;
    return {sequence_, in_sequence / tiles_.count, first, left < tiles_.rows ? left : tiles_.rows};
  }

 private:
  const AttentionForward<T>& args_;
  std::int64_t max_vectors_;
  std::int64_t sequence_ = -1;
  std::int64_t first_unit_ = 0;
  std::int64_t queries_ = 0;
  QueryTiles tiles_{0, 0};
};

template <class T>
void forward(CpuStream stream, const AttentionForward<T>& args) {
  const std::int64_t max_vectors = vectors_within<T>(kColumnsBytes, args.head_size);
  const PackedWork work{args.cu_q, args.cu_k, args.sequences};
  const bool shared = 4 * work.cost() * args.heads * args.head_size >= kLeastParallelFlops;
  const auto units = [&](std::int64_t b) { return cut_queries<T>(work.queries(b), max_vectors).count * args.heads; };
  share_units(shared ? stream.threads : 1, work, units, [&](std::int64_t begin, std::int64_t end) {
    UnitWalk<T> walk(args, max_vectors);
    for (std::int64_t unit = begin; unit < end; ++unit) forward_tile<T>(args, walk.at(unit));
  });
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  forward(stream, args);
}
template void run(CpuStream, const AttentionForward<float>&);
template void run(CpuStream, const AttentionForward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
