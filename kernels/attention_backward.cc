// Attention, backward: the probabilities are made again from the scores and the saved logarithms (Dao et al., 2022).
// cpu_attention.h says how scores lie in memory. One thread does all of a (sequence, head), tile by tile of queries and within
// these of keys, so that every sum has one order.
#include <limits>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/cpu_attention.h"
#include "lathe/kernels/cpu_attention_dropout.h"
#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_products.h"
#include "lathe/kernels/cpu_vector.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

constexpr std::int64_t kTileKeys = 32;
constexpr std::int64_t kColumnsBytes = 16384;

/// Below so many operations (about 20 us) a second thread costs more than it brings.
constexpr std::int64_t kLeastParallelFlops = 1'000'000;

/// What a tile of queries keeps while it meets the keys. Rows of the last two are keys, lanes are queries.
template <class T>
struct GradientTile {
  alignas(64) T q[kColumnsBytes / sizeof(T)];      ///< transposed
  alignas(64) T d_out[kColumnsBytes / sizeof(T)];  ///< transposed
  alignas(64) T lse[kTileStep<T>];
  alignas(64) T delta[kTileStep<T>];           ///< sum of d_out * out
  alignas(64) T p[kTileKeys * kTileStep<T>];   ///< scores, then probabilities, 0 where dropped
  alignas(64) T ds[kTileKeys * kTileStep<T>];  ///< gradients of probabilities, then of q . k
};

/// to[i] = sum_d a[i, d] * b[i, d] for the rows, 0 up to the next whole vector.
template <class T>
[[gnu::noinline]] void multiply_rows(const T* a, const T* b, std::int64_t step, std::int64_t rows, std::int64_t columns,
                                     T* to) noexcept {
  constexpr int kWidth = kLanes<T>;
  const std::int64_t whole = columns / kWidth * kWidth;
  const Tail<T> tail = first_lanes<T>(columns - whole);
  for (std::int64_t i = 0; i < rows; i += kWidth) {
    Vector<T> sums[kWidth] = {};
#pragma GCC unroll 16
    for (int r = 0; r < kWidth; ++r) {
      if (i + r < rows) {
        Vector<T> sum{};
        for (std::int64_t d = 0; d < whole; d += kWidth) sum += load_vector(a + d) * load_vector(b + d);
        if (whole < columns) sum += load_vector(a + whole, tail) * load_vector(b + whole, tail);
        sums[r] = sum;
        a += step;
        b += step;
      }
    }
    store_vector(to + i, row_sums<T>(sums));
  }
}

enum class Dropping : std::uint8_t { no, yes };
enum class Wanted : std::uint8_t { probabilities, score_gradients };

/// Scores and gradients of probabilities to probabilities and gradients of scores, in place.
template <class T, Dropping kDropping, Wanted kWanted>
[[gnu::always_inline]] inline void differentiate(GradientTile<T>& tile, std::int64_t keys, std::int64_t vectors,
                                                 const LaneBits* kept, T scale) {
  for (std::int64_t v = 0; v < vectors; ++v) {
    const Vector<T> lse = load_vector(tile.lse + v * kLanes<T>);
    const Vector<T> delta = load_vector(tile.delta + v * kLanes<T>);
#pragma GCC unroll 2
    for (std::int64_t j = 0; j < keys; ++j) {
      T* const at_p = tile.p + j * kTileStep<T> + v * kLanes<T>;
      T* const at_ds = tile.ds + j * kTileStep<T> + v * kLanes<T>;
      const Vector<T> p = exp<T>(load_vector(at_p) - lse);
      if constexpr (kDropping == Dropping::yes) {
        const LaneBits bits = kept[j * kTileVectors + v];
        store_vector(at_p, keep(bits, p));
        if constexpr (kWanted == Wanted::score_gradients)
          store_vector(at_ds, p * (keep(bits, load_vector(at_ds)) - delta) * scale);
      } else {
        store_vector(at_p, p);
        if constexpr (kWanted == Wanted::score_gradients) store_vector(at_ds, p * (load_vector(at_ds) - delta) * scale);
      }
    }
  }
}

template <class T>
[[gnu::always_inline]] inline void differentiate(GradientTile<T>& tile, std::int64_t keys, std::int64_t vectors,
                                                 const LaneBits* kept, T scale, Dropping dropping, Wanted wanted) {
  if (dropping == Dropping::yes && wanted == Wanted::score_gradients) {
    differentiate<T, Dropping::yes, Wanted::score_gradients>(tile, keys, vectors, kept, scale);
  } else if (dropping == Dropping::yes) {
    differentiate<T, Dropping::yes, Wanted::probabilities>(tile, keys, vectors, kept, scale);
  } else if (wanted == Wanted::score_gradients) {
    differentiate<T, Dropping::no, Wanted::score_gradients>(tile, keys, vectors, kept, scale);
  } else {
    differentiate<T, Dropping::no, Wanted::probabilities>(tile, keys, vectors, kept, scale);
  }
}

template <class T>
[[gnu::always_inline]] inline void zero_rows(T* rows, std::int64_t step, std::int64_t count, std::int64_t columns) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t d = 0; d < columns; ++d) rows[i * step + d] = T{0};
  }
}

/// One sequence and one head.
template <class T>
[[gnu::noinline]] void backward_head(const AttentionBackward<T>& args, std::int64_t sequence, std::int64_t head) noexcept {
  constexpr std::int64_t kStep = kTileStep<T>;
  const std::int64_t head_size = args.head_size;
  const std::int64_t out_stride = args.heads * head_size;
  const std::int64_t first_row = args.cu_q[sequence];
  const std::int64_t first_key = args.cu_k[sequence];
  const std::int64_t all_queries = args.cu_q[sequence + 1] - first_row;
  const std::int64_t all_keys = args.cu_k[sequence + 1] - first_key;
  const std::int64_t column = head * head_size;
  const Dropping dropping = args.dropout.threshold != 0 ? Dropping::yes : Dropping::no;
  const Wanted wanted = args.use_q == Use::skip && args.use_k == Use::skip ? Wanted::probabilities : Wanted::score_gradients;
  const T kept_scale = dropping == Dropping::yes ? static_cast<T>(65536.0 / (65536.0 - args.dropout.threshold)) : T{1};
  const auto scale = static_cast<T>(args.scale);
  const T one = 1;

  GradientTile<T> tile;
  TileDropout<T> dropout;
  LaneBits kept[kTileKeys * kTileVectors];
  std::int64_t met = 0;  // keys that an earlier tile has met: their gradients hold something to add to
  const QueryTiles tiles = cut_queries<T>(all_queries, vectors_within<T>(kColumnsBytes, head_size));
  for (std::int64_t first = 0; first < all_queries; first += tiles.rows) {
    const std::int64_t queries = all_queries - first < tiles.rows ? all_queries - first : tiles.rows;
    const std::int64_t vectors = ceil_divide(queries, kLanes<T>);
    const std::int64_t width = vectors * kLanes<T>;
    const std::int64_t row = first_row + first;
    const std::int64_t keys = visible_keys(args.mask, first + queries - 1, all_queries, all_keys);
    const T* const q = args.q + row * args.q_stride + column;
    const T* const d_out = args.d_out + row * out_stride + column;
    if (keys == 0) {
      if (args.use_q == Use::write) zero_rows(args.d_q + row * args.d_q_stride + column, args.d_q_stride, queries, head_size);
      continue;
    }
    transpose_rows<T>(q, args.q_stride, queries, head_size, tile.q, width);
    if (wanted == Wanted::score_gradients) {
      transpose_rows<T>(d_out, out_stride, queries, head_size, tile.d_out, width);
      multiply_rows<T>(d_out, args.out + row * out_stride + column, out_stride, queries, head_size, tile.delta);
    }
    // Lanes beyond the last query get the probability 0.
    for (std::int64_t i = 0; i < width; ++i) {
      tile.lse[i] = i < queries ? args.lse[head * args.queries + row + i] : std::numeric_limits<T>::infinity();
    }
    if (dropping == Dropping::yes) {
      const auto number = args.dropout.layer * static_cast<std::uint32_t>(args.heads) + static_cast<std::uint32_t>(head);
      dropout.start(args.dropout, sequence, number, first, vectors);
    }

    std::int64_t count = 0;
    for (std::int64_t done = 0; done < keys; done += count) {
      count = keys - done < kTileKeys ? keys - done : kTileKeys;
      const bool adds = done < met;
      if (adds && met - done < count) count = met - done;  // a tile of keys is all new, or none of it
      const std::int64_t key = first_key + done;
      const T* const k = args.k + key * args.k_stride + column;
      const T* const v = args.v + key * args.v_stride + column;
      Product<T> scores{.c = tile.p,
                        .c_step = kStep,
                        .a = k,
                        .a_step = args.k_stride,
                        .b = tile.q,
                        .b_step = width,
                        .rows = count,
                        .columns = width,
                        .depth = head_size,
                        .scale = &scale,
                        .old_scale = nullptr,
                        .scale_step = 0};
      evaluate<T, LeftFactor::by_rows>(scores);
      if (wanted == Wanted::score_gradients) {
        scores.c = tile.ds;
        scores.a = v;
        scores.a_step = args.v_stride;
        scores.b = tile.d_out;
        scores.scale = &kept_scale;
        evaluate<T, LeftFactor::by_rows>(scores);
      }
      if (args.mask == AttentionMask::causal) {
        const std::int64_t edge = done - (first + all_keys - all_queries);
        fill_hidden(tile.p, count, width, edge, -std::numeric_limits<T>::infinity());
      }
      if (dropping == Dropping::yes) {
        dropout.draw(done, count, kept);
      }
      differentiate<T>(tile, count, vectors, kept, scale, dropping, wanted);

      Product<T> gradient{.c = nullptr,
                          .c_step = 0,
                          .a = tile.p,
                          .a_step = kStep,
                          .b = d_out,
                          .b_step = out_stride,
                          .rows = count,
                          .columns = head_size,
                          .depth = queries,
                          .scale = &kept_scale,
                          .old_scale = nullptr,
                          .scale_step = 0};
      if (args.use_v != Use::skip) {
        gradient.c = args.d_v + key * args.d_v_stride + column;
        gradient.c_step = args.d_v_stride;
        gradient.old_scale = adds || args.use_v == Use::add ? &one : nullptr;
        evaluate<T, LeftFactor::by_rows>(gradient);
      }
      gradient.a = tile.ds;
      gradient.scale = &one;
      if (args.use_k != Use::skip) {
        gradient.c = args.d_k + key * args.d_k_stride + column;
        gradient.c_step = args.d_k_stride;
        gradient.b = q;
        gradient.b_step = args.q_stride;
        gradient.old_scale = adds || args.use_k == Use::add ? &one : nullptr;
        evaluate<T, LeftFactor::by_rows>(gradient);
      }
      if (args.use_q != Use::skip) {
        gradient.c = args.d_q + row * args.d_q_stride + column;
        gradient.c_step = args.d_q_stride;
        gradient.b = k;
        gradient.b_step = args.k_stride;
        gradient.rows = queries;
        gradient.depth = count;
        gradient.old_scale = done > 0 || args.use_q == Use::add ? &one : nullptr;
        evaluate<T, LeftFactor::by_columns>(gradient);
      }
    }
    met = keys > met ? keys : met;
  }
  if (args.use_k == Use::write)
    zero_rows(args.d_k + (first_key + met) * args.d_k_stride + column, args.d_k_stride, all_keys - met, head_size);
  if (args.use_v == Use::write)
    zero_rows(args.d_v + (first_key + met) * args.d_v_stride + column, args.d_v_stride, all_keys - met, head_size);
}

template <class T>
void backward(CpuStream stream, const AttentionBackward<T>& args) {
  const PackedWork work{args.cu_q, args.cu_k, args.sequences};
  const bool shared = 10 * work.cost() * args.heads * args.head_size >= kLeastParallelFlops;
  const auto units = [&](std::int64_t /*sequence*/) { return args.heads; };
  share_units(shared ? stream.threads : 1, work, units, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) backward_head<T>(args, unit / args.heads, unit % args.heads);
  });
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  backward(stream, args);
}
template void run(CpuStream, const AttentionBackward<float>&);
template void run(CpuStream, const AttentionBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
