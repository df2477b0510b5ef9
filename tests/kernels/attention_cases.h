#pragma once
// What the tests of attention's two directions share: operands, the definition in plain loops, and the rule of accuracy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lathe/kernels/attention.h"
#include "tests/kernels/kernel_test.h"

namespace lathe::test {

struct Lengths {
  std::int32_t queries, keys;
};

struct Shape {
  std::vector<Lengths> sequences;
  std::int64_t heads = 1;
  std::int64_t head_size = 32;
  AttentionMask mask = AttentionMask::full;
  double dropout = 0.0;
  std::int64_t key_tile_rows = 128;
  std::int64_t query_tile_rows = 128;
  double offset = 0.0;     ///< is the mean of q, and -offset that of k
  double magnitude = 1.0;  ///< of q's deviations
  double scale = 0.0;      ///< 0: 1 / sqrt(head_size)
  std::int64_t gap = 8;    ///< elements between a row's end and the next, which belong to no tensor

  std::string text() const {
    return "heads of " + std::to_string(head_size) + (mask == AttentionMask::causal ? ", causal" : "") + ", dropout " +
           std::to_string(dropout) + ", tiles of " + std::to_string(key_tile_rows) + " keys, first sequence " +
           std::to_string(sequences[0].queries) + " x " + std::to_string(sequences[0].keys);
  }
};

/// Rows behind the last sequence, which no kernel may touch.
inline constexpr std::int64_t kUnusedRows = 3;

/// Pairs of lengths around the sizes of tiles, either side longer, and others that no size divides. Emulated they end at 257.
inline std::vector<Lengths> pairs_of_lengths() {
#ifdef LATHE_EMULATED
  return {{1, 1}, {1, 3}, {2, 1}, {257, 1}, {3, 257}, {64, 128}, {113, 203}, {128, 217}, {257, 256}};
#else
  return {{1, 1}, {1, 3}, {2, 1}, {511, 1}, {3, 513}, {64, 128}, {113, 203}, {128, 217}, {307, 256}, {1023, 1024}};
#endif
}

/// The shapes in which these pairs are tested: on a GPU every head size that tensor cores take, mask and dropout with every other, and a longer
/// pair; emulated all of them at a head size of 64, and at the other sizes each mask and each dropout once. Kernels without tensor cores care for no
/// head size, and are slow but on a GPU: elsewhere it is a small one.
template <class T>
std::vector<Shape> shapes_of_pairs() {
#if defined(LATHE_HAS_CUDA) && !defined(LATHE_EMULATED)
  constexpr bool kOnGpu = true;
#else
  constexpr bool kOnGpu = false;
#endif
  std::vector<std::int64_t> head_sizes = {64, 32, 96, 128};
  if (!kOnGpu && !std::is_same_v<T, Bf16>) head_sizes = {8};
  std::vector<Shape> shapes;
  for (const std::int64_t head_size : head_sizes) {
    for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
      for (const double dropout : {0.0, 0.1}) {
        const bool of_two = (mask == AttentionMask::full) == (dropout > 0.0);
        if (kOnGpu || head_size == head_sizes.front() || of_two)
          shapes.push_back({.sequences = pairs_of_lengths(), .head_size = head_size, .mask = mask, .dropout = dropout});
      }
      // The definition takes some seconds for one of these.
      if (kOnGpu && head_size == 64)
        shapes.push_back({.sequences = {{4096, 4096}}, .head_size = head_size, .mask = mask, .dropout = 0.1});
    }
  }
  return shapes;
}

/// A kernel's operands but for the destinations; out and lse are backward's, whose tests fill them. q and d_q have rows of q_stride elements; k and v, and their gradients, lie side by side in
/// rows of kv_stride.
template <class T>
struct Inputs {
  Shape shape;
  RandomKey key{.seed = 0x1234567, .step = 89};
  std::vector<std::int32_t> cu_q{0}, cu_k{0}, sample;
  std::vector<std::int32_t> query_sequence, query_first, key_sequence, key_first;
  std::int64_t queries, keys, width, q_stride, kv_stride, v_column;
  double scale;
  std::vector<T> q, kv, d_out, out;
  std::vector<Accumulator<T>> lse;

  explicit Inputs(Shape of, unsigned seed = 1) : shape(std::move(of)) {
    for (const Lengths s : shape.sequences) {
      const auto number = static_cast<std::int32_t>(sample.size());
      sample.push_back(1000 + 7 * number);
      cu_q.push_back(cu_q.back() + s.queries);
      cu_k.push_back(cu_k.back() + s.keys);
      cut(number, s.queries, shape.query_tile_rows, query_sequence, query_first);
      cut(number, std::max(s.keys, s.queries > 0 ? 1 : 0), shape.key_tile_rows, key_sequence, key_first);
    }
    queries = cu_q.back() + kUnusedRows;
    keys = cu_k.back() + kUnusedRows;
    width = shape.heads * shape.head_size;
    q_stride = width + shape.gap;
    v_column = width + shape.gap;
    kv_stride = 2 * v_column;
    scale = shape.scale == 0.0 ? 1.0 / std::sqrt(static_cast<double>(shape.head_size)) : shape.scale;
    q = random_values<T>(queries * q_stride, seed, shape.offset, shape.magnitude);
    kv = random_values<T>(keys * kv_stride, seed + 1000, 0.0);
    for (std::int64_t t = 0; t < keys; ++t) {
      for (std::int64_t c = 0; c < width; ++c) {
        T& value = kv[at(t, c, kv_stride)];
        value = static_cast<T>(static_cast<Plain<T>>(value) - static_cast<Plain<T>>(shape.offset));
      }
    }
    d_out = random_values<T>(queries * width, seed + 2000);
    // Whoever reads what belongs to no sequence has it in the results.
    const auto nan = static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN());
    for (std::int64_t t = 0; t < queries; ++t) {
      const bool unused = t >= cu_q.back();
      for (std::int64_t c = unused ? 0 : width; c < q_stride; ++c) q[at(t, c, q_stride)] = nan;
      for (std::int64_t c = 0; unused && c < width; ++c) d_out[at(t, c, width)] = nan;
    }
    for (std::int64_t t = 0; t < keys; ++t) {
      for (std::int64_t c = 0; c < kv_stride; ++c) {
        if (t >= cu_k.back() || c % v_column >= width) kv[at(t, c, kv_stride)] = nan;
      }
    }
  }

  AttentionDropout dropout() const {
    return {.key = &key, .sample = sample.data(), .layer = 5, .threshold = dropout_threshold(shape.dropout)};
  }
  AttentionTiles query_tiles(const std::int32_t* sequence, const std::int32_t* first) const {
    return {.sequence = sequence, .first = first, .count = std::ssize(query_first), .rows = shape.query_tile_rows};
  }
  AttentionTiles key_tiles(const std::int32_t* sequence, const std::int32_t* first) const {
    return {.sequence = sequence, .first = first, .count = std::ssize(key_first), .rows = shape.key_tile_rows};
  }
  std::int64_t sequences() const { return std::ssize(sample); }

 private:
  static void cut(std::int32_t number, std::int64_t length, std::int64_t rows, std::vector<std::int32_t>& sequence,
                  std::vector<std::int32_t>& first) {
    for (std::int64_t row = 0; row < length; row += rows) {
      sequence.push_back(number);
      first.push_back(static_cast<std::int32_t>(row));
    }
    sequence.push_back(-1);  // an empty tile
    first.push_back(0);
  }
};

/// Whether dropout keeps the probability of (query, key), straight from the contract.
inline bool kept(const AttentionDropout& dropout, std::int64_t sequence, std::uint32_t head, std::uint32_t query,
                 std::uint32_t key) {
  if (dropout.threshold == 0) return true;
  const auto sample = static_cast<std::uint32_t>(dropout.sample[sequence]);
  const auto words = philox4x32({sample, query, head, 4 * (key / 32) + (key % 8) / 2}, *dropout.key);
  return philox_value(words, 2 * ((key % 32) / 8) + key % 2) >= dropout.threshold;
}

/// How much of the definition is computed.
enum class Part : std::uint8_t { outputs, all };

/// What gradients are made of: the outputs and logarithms that belong to them, or those among the inputs, rounded as they are.
enum class Saved : std::uint8_t { own, given };

/// Rows without gaps: out, d_q [queries, width], d_k, d_v [keys, width], lse [heads, queries]. Rows of no sequence are 0.
template <class A>
struct Definition {
  std::vector<A> out, lse, d_q, d_k, d_v;

  /// In plain loops and arithmetic of A. round(x) is what becomes of an intermediate matrix' element.
  template <class T, class Round>
  Definition(const Inputs<T>& in, Round round, Part part, Saved saved = Saved::own)
      : out(static_cast<std::size_t>(in.queries * in.width)),
        lse(static_cast<std::size_t>(in.queries * in.shape.heads)),
        d_q(part == Part::all ? out.size() : 0),
        d_k(part == Part::all ? static_cast<std::size_t>(in.keys * in.width) : 0),
        d_v(d_k.size()) {
    const AttentionDropout dropout = in.dropout();
    const auto scale = static_cast<A>(in.scale);
    const auto kept_scale = static_cast<A>(dropout_scale(dropout.threshold));
    const std::int64_t head_size = in.shape.head_size;
    for (std::int64_t b = 0; b < in.sequences(); ++b) {
      const auto [queries, keys] = in.shape.sequences[static_cast<std::size_t>(b)];
      for (std::int64_t i = 0; i < queries * in.shape.heads; ++i) {
        const std::int64_t head = i / queries;
        const std::int64_t query = i % queries;
        const std::int64_t row = in.cu_q[static_cast<std::size_t>(b)] + query;
        const std::int64_t column = head * head_size;
        const auto seen = static_cast<std::size_t>(
            in.shape.mask == AttentionMask::causal ? std::clamp<std::int64_t>(query + 1 + keys - queries, 0, keys) : keys);
        A& logarithm = lse[static_cast<std::size_t>(head * in.queries + row)];
        logarithm = std::numeric_limits<A>::infinity();
        if (seen == 0) continue;
        const T* const q = in.q.data() + at(row, column, in.q_stride);
        const T* const d_o = in.d_out.data() + at(row, column, in.width);
        const auto k = [&](std::size_t j) {
          return in.kv.data() + at(in.cu_k[static_cast<std::size_t>(b)] + static_cast<std::int64_t>(j), column, in.kv_stride);
        };
        const auto dot = [&](const T* x, const T* y) {
          A sum{0};
          for (std::int64_t d = 0; d < head_size; ++d) sum += static_cast<A>(x[d]) * static_cast<A>(y[d]);
          return sum;
        };
        std::vector<A> p(seen);
        std::vector<bool> keeps(seen);
        for (std::size_t j = 0; j < seen; ++j) {
          p[j] = round(dot(q, k(j)) * scale);
          keeps[j] =
              kept(dropout, b, dropout.layer * static_cast<std::uint32_t>(in.shape.heads) + static_cast<std::uint32_t>(head),
                   static_cast<std::uint32_t>(query), static_cast<std::uint32_t>(j));
        }
        const A largest = *std::max_element(p.begin(), p.end());
        A sum{0};
        for (const A s : p) sum += std::exp(s - largest);
        logarithm = largest + std::log(sum);
        const std::vector<A> scores = p;
        for (A& s : p) s = round(std::exp(s - logarithm));
        A delta{0};
        for (std::int64_t d = 0; d < head_size; ++d) {
          A value{0};
          for (std::size_t j = 0; j < seen; ++j) {
            if (keeps[j]) value += round(kept_scale * p[j]) * static_cast<A>(k(j)[in.v_column + d]);
          }
          const std::size_t place = at(row, column + d, in.width);
          out[place] = round(value);
          delta += static_cast<A>(d_o[d]) * (saved == Saved::own ? out[place] : static_cast<A>(in.out[place]));
        }
        if (part == Part::outputs) continue;
        if (saved == Saved::given) {
          for (std::size_t j = 0; j < seen; ++j)
            p[j] = round(std::exp(scores[j] - static_cast<A>(in.lse[static_cast<std::size_t>(head * in.queries + row)])));
        }
        for (std::size_t j = 0; j < seen; ++j) {
          const A d_p = round(dot(d_o, k(j) + in.v_column));
          const A ds = round(p[j] * ((keeps[j] ? round(kept_scale * d_p) : A{0}) - delta));
          const std::int64_t key = in.cu_k[static_cast<std::size_t>(b)] + static_cast<std::int64_t>(j);
          for (std::int64_t d = 0; d < head_size; ++d) {
            d_q[at(row, column + d, in.width)] += scale * ds * static_cast<A>(k(j)[d]);
            d_k[at(key, column + d, in.width)] += scale * ds * static_cast<A>(q[d]);
            if (keeps[j]) d_v[at(key, column + d, in.width)] += round(kept_scale * p[j]) * static_cast<A>(d_o[d]);
          }
        }
      }
    }
  }
};

template <class A, class T>
Definition<A> exact(const Inputs<T>& in, Part part) {
  return {in, [](A x) { return x; }, part};
}
/// In T's own arithmetic: where T is bf16 each matrix is rounded to it, sums are in fp32.
template <class T>
Definition<Plain<T>> plain(const Inputs<T>& in, Part part, Saved saved = Saved::own) {
  return {in, [](Plain<T> x) { return static_cast<Plain<T>>(static_cast<T>(x)); }, part, saved};
}

/// A result within an array whose rows hold other things too: its rows and columns are those of sequences.
struct Place {
  const char* name;
  const char* array;
  std::int64_t column, stride, rows, columns;
};

/// max|x - ref| <= 2 max|base - ref| + 2 max|(ref + 0.3 - 0.3) - ref|, the base being plain arithmetic in T and the rounding that of V, the
/// type of what is compared. The maximum of few errors is a matter of luck: the base's is taken over further draws where there are few.
template <class V>
class Accuracy {
 public:
  /// `base` and `reference` are without gaps: rows of `step`, of which the first columns count.
  template <class B, class R>
  void measure(const std::vector<B>& base, const std::vector<R>& reference, std::int64_t step, const Place& place) {
    for (std::int64_t t = 0; t < place.rows; ++t) {
      for (std::int64_t c = 0; c < place.columns; ++c) {
        const R exact = reference[at(t, c, step)];
        if (std::isinf(exact)) continue;
        const auto rounded = static_cast<Plain<V>>(static_cast<V>(exact));
        const auto there = static_cast<Plain<V>>(static_cast<V>(rounded + Plain<V>(0.3)));
        const auto and_back = static_cast<Wide>(static_cast<V>(there - Plain<V>(0.3)));
        base_error_ = std::max(base_error_, std::abs(static_cast<Wide>(static_cast<V>(base[at(t, c, step)])) - exact));
        rounding_ = std::max(rounding_, std::abs(and_back - exact));
      }
    }
  }

  template <class R>
  void expect(const std::vector<V>& values, const std::vector<R>& reference, std::int64_t step, const Place& place) const {
    Wide error{0};
    for (std::int64_t t = 0; t < place.rows; ++t) {
      for (std::int64_t c = 0; c < place.columns; ++c) {
        const auto value = static_cast<Wide>(values[at(t, place.column + c, place.stride)]);
        const Wide exact = reference[at(t, c, step)];
        if (std::isinf(exact)) {
          ASSERT_EQ(value, exact) << place.name << " at row " << t << ", column " << c;
          continue;
        }
        ASSERT_TRUE(std::isfinite(value)) << place.name << " at row " << t << ", column " << c << " is " << value << ", not "
                                          << exact;
        error = std::max(error, std::abs(value - exact));
      }
    }
    EXPECT_LE(error, 2 * base_error_ + 2 * rounding_) << place.name << "; plain arithmetic errs by " << base_error_;
  }

 private:
  using Wide = Reference<V>;
  Wide base_error_{0};
  Wide rounding_{0};
};

/// How often a shape's inputs are drawn to measure what plain arithmetic errs by; first as they are.
inline unsigned draws_of(const Shape& shape) {
  std::int64_t scores = 1;
  for (const Lengths s : shape.sequences) scores += std::int64_t{s.queries} * s.keys * shape.heads;
  return static_cast<unsigned>(std::clamp<std::int64_t>(20'000 / scores, 1, 8));
}

/// What was NaN before and is in no result must still be: `places` are all that the array has.
template <class V>
void expect_gaps_untouched(const std::vector<V>& values, const std::vector<Place>& places) {
  std::vector<bool> in_result(values.size());
  for (const Place& place : places) {
    for (std::int64_t t = 0; t < place.rows; ++t) {
      for (std::int64_t c = 0; c < place.columns; ++c) in_result[at(t, place.column + c, place.stride)] = true;
    }
  }
  for (std::int64_t i = 0; i < std::ssize(values); ++i) {
    const auto index = static_cast<std::size_t>(i);
    ASSERT_TRUE(in_result[index] || std::isnan(static_cast<Plain<V>>(values[index])))
        << places.front().array << ": something was written in row " << i / places.front().stride << ", column "
        << i % places.front().stride;
  }
}

}  // namespace lathe::test
