// Attention's gradients against their definition, on every backend. The outputs and logarithms that the kernel is given are the definition's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
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
namespace {

struct Lengths {
  std::int32_t queries, keys;
};

struct Shape {
  std::vector<Lengths> sequences;
  std::int64_t heads = 1;
  std::int64_t head_size = 32;
  AttentionMask mask = AttentionMask::full;
  double dropout = 0.0;
  std::int64_t key_tile_rows = kAttentionPartKeys;
  double offset = 0.0;  ///< is the mean of q, and -offset that of k
  double scale = 0.0;   ///< 0: 1 / sqrt(head_size)
};

/// Rows behind the last sequence, which no kernel may touch, and elements between a row's end and the next: they belong to no tensor.
constexpr std::int64_t kUnusedRows = 3;
constexpr std::int64_t kGap = 8;

/// A kernel's arguments but for the destinations. q and d_q have rows of q_stride elements; k and v, and their gradients, lie side by side in
/// rows of kv_stride.
template <class T>
struct Inputs {
  Shape shape;
  RandomKey key{.seed = 0x1234567, .step = 89};
  std::vector<std::int32_t> cu_q{0}, cu_k{0}, sample;
  std::vector<std::int32_t> query_sequence, query_first, key_sequence, key_first;
  std::int64_t queries, keys, width, q_stride, kv_stride, v_column, splits;
  double scale;
  std::vector<T> q, kv, d_out, out;
  std::vector<Accumulator<T>> lse;

  explicit Inputs(Shape of, unsigned seed = 1) : shape(std::move(of)) {
    std::int32_t longest = 0;
    for (const Lengths s : shape.sequences) {
      const auto number = static_cast<std::int32_t>(sample.size());
      sample.push_back(1000 + 7 * number);
      cu_q.push_back(cu_q.back() + s.queries);
      cu_k.push_back(cu_k.back() + s.keys);
      longest = std::max(longest, s.keys);
      cut(number, s.queries, kAttentionPartKeys, query_sequence, query_first);
      cut(number, std::max(s.keys, s.queries > 0 ? 1 : 0), shape.key_tile_rows, key_sequence, key_first);
    }
    splits = attention_splits(longest, shape.key_tile_rows);
    queries = cu_q.back() + kUnusedRows;
    keys = cu_k.back() + kUnusedRows;
    width = shape.heads * shape.head_size;
    q_stride = width + kGap;
    v_column = width + kGap;
    kv_stride = 2 * v_column;
    scale = shape.scale == 0.0 ? 1.0 / std::sqrt(static_cast<double>(shape.head_size)) : shape.scale;
    q = random_values<T>(queries * q_stride, seed, shape.offset);
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
bool kept(const AttentionDropout& dropout, std::int64_t sequence, std::uint32_t head, std::uint32_t query, std::uint32_t key) {
  if (dropout.threshold == 0) return true;
  const auto sample = static_cast<std::uint32_t>(dropout.sample[sequence]);
  const auto words = philox4x32({sample, query, head, 4 * (key / 32) + (key % 8) / 2}, *dropout.key);
  return philox_value(words, 2 * ((key % 32) / 8) + key % 2) >= dropout.threshold;
}

/// Rows without gaps: out, d_q [queries, width], d_k, d_v [keys, width], lse [heads, queries]. Rows of no sequence are 0.
template <class A>
struct Definition {
  std::vector<A> out, lse, d_q, d_k, d_v;

  /// In plain loops and arithmetic of A. round(x) is what becomes of an intermediate matrix' element.
  template <class T, class Round>
  Definition(const Inputs<T>& in, Round round)
      : out(static_cast<std::size_t>(in.queries * in.width)),
        lse(static_cast<std::size_t>(in.queries * in.shape.heads)),
        d_q(out.size()),
        d_k(static_cast<std::size_t>(in.keys * in.width)),
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
        A& logarithm = lse[at(head, row, in.queries)];
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
          keeps[j] = kept(dropout, b, dropout.layer * static_cast<std::uint32_t>(in.shape.heads) + static_cast<std::uint32_t>(head),
                          static_cast<std::uint32_t>(query), static_cast<std::uint32_t>(j));
        }
        const A largest = *std::max_element(p.begin(), p.end());
        A sum{0};
        for (const A s : p) sum += std::exp(s - largest);
        logarithm = largest + std::log(sum);
        for (A& s : p) s = round(std::exp(s - logarithm));
        A delta{0};
        for (std::int64_t d = 0; d < head_size; ++d) {
          A value{0};
          for (std::size_t j = 0; j < seen; ++j) {
            if (keeps[j]) value += round(kept_scale * p[j]) * static_cast<A>(k(j)[in.v_column + d]);
          }
          A& result = out[at(row, column + d, in.width)];
          result = round(value);
          delta += static_cast<A>(d_o[d]) * result;
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
Definition<A> exact(const Inputs<T>& in) {
  return {in, [](A x) { return x; }};
}
/// In T's own arithmetic: where T is bf16 each matrix is rounded to it, sums are in fp32.
template <class T>
Definition<Plain<T>> plain(const Inputs<T>& in) {
  return {in, [](Plain<T> x) { return static_cast<Plain<T>>(static_cast<T>(x)); }};
}

/// The inputs with the outputs and logarithms of the definition.
template <class T>
Inputs<T> make_inputs(const Shape& shape, unsigned seed = 1) {
  Inputs<T> in(shape, seed);
  const auto forward = exact<Reference<T>>(in);
  const auto nan = std::numeric_limits<Plain<T>>::quiet_NaN();
  for (std::size_t i = 0; i < forward.out.size(); ++i) {
    const bool unused = static_cast<std::int64_t>(i) >= in.cu_q.back() * in.width;
    in.out.push_back(static_cast<T>(unused ? nan : static_cast<Plain<T>>(forward.out[i])));
  }
  for (std::size_t i = 0; i < forward.lse.size(); ++i) {
    const bool unused = static_cast<std::int64_t>(i) % in.queries >= in.cu_q.back();
    in.lse.push_back(static_cast<Accumulator<T>>(unused ? nan : static_cast<Plain<T>>(forward.lse[i])));
  }
  return in;
}

/// Integers and keys where a stream's kernels can read them.
template <class Stream, class V>
class Array {
 public:
  explicit Array(const std::vector<V>& values) : values_(values) {}
  const V* data() const { return values_.data(); }

 private:
  std::vector<V> values_;
};
#ifdef LATHE_HAS_CUDA
template <class V>
class Array<CudaStream, V> : public DeviceBuffer<V> {
 public:
  using DeviceBuffer<V>::DeviceBuffer;
};
#endif

struct Uses {
  Use q = Use::write;
  Use k = Use::write;
  Use v = Use::write;
};

/// Runs the kernel on destinations in which there is `before`; "d_q" has rows of q_stride and "d_kv" of kv_stride.
template <class Stream, class T>
Outputs run(Stream stream, const Inputs<T>& in, Uses uses = {}, Plain<T> before = std::numeric_limits<Plain<T>>::quiet_NaN()) {
  const Buffer<T, Stream> q(in.q);
  const Buffer<T, Stream> kv(in.kv);
  const Buffer<T, Stream> d_out(in.d_out);
  const Buffer<T, Stream> out(in.out);
  const Buffer<Accumulator<T>, Stream> lse(in.lse);
  const Array<Stream, std::int32_t> cu_q(in.cu_q);
  const Array<Stream, std::int32_t> cu_k(in.cu_k);
  const Array<Stream, std::int32_t> query_sequence(in.query_sequence);
  const Array<Stream, std::int32_t> query_first(in.query_first);
  const Array<Stream, std::int32_t> key_sequence(in.key_sequence);
  const Array<Stream, std::int32_t> key_first(in.key_first);
  const Array<Stream, std::int32_t> sample(in.sample);
  const Array<Stream, RandomKey> key(std::vector<RandomKey>{in.key});
  Buffer<T, Stream> d_q(std::vector<T>(in.q.size(), static_cast<T>(before)));
  Buffer<T, Stream> d_kv(std::vector<T>(in.kv.size(), static_cast<T>(before)));
  Workspace<Stream> workspace(
      attention_backward_workspace<T>(in.queries, in.shape.heads, in.shape.head_size, in.shape.key_tile_rows, in.splits));
  AttentionDropout dropout = in.dropout();
  dropout.key = dropout.threshold == 0 ? nullptr : key.data();
  dropout.sample = dropout.threshold == 0 ? nullptr : sample.data();
  attention_backward(
      stream,
      AttentionBackward<T>{
          .d_q = uses.q == Use::skip ? nullptr : d_q.data(),
          .use_q = uses.q,
          .d_k = uses.k == Use::skip ? nullptr : d_kv.data(),
          .use_k = uses.k,
          .d_v = uses.v == Use::skip ? nullptr : d_kv.data() + in.v_column,
          .use_v = uses.v,
          .d_q_stride = in.q_stride,
          .d_k_stride = in.kv_stride,
          .d_v_stride = in.kv_stride,
          .d_out = d_out.data(),
          .out = out.data(),
          .lse = lse.data(),
          .q = q.data(),
          .k = kv.data(),
          .v = kv.data() + in.v_column,
          .q_stride = in.q_stride,
          .k_stride = in.kv_stride,
          .v_stride = in.kv_stride,
          .cu_q = cu_q.data(),
          .cu_k = cu_k.data(),
          .query_tiles = {.sequence = query_sequence.data(),
                          .first = query_first.data(),
                          .count = std::ssize(in.query_first),
                          .rows = kAttentionPartKeys},
          .key_tiles = {.sequence = key_sequence.data(),
                        .first = key_first.data(),
                        .count = std::ssize(in.key_first),
                        .rows = in.shape.key_tile_rows},
          .splits = in.splits,
          .dropout = dropout,
          .mask = in.shape.mask,
          .scale = in.scale,
          .workspace = workspace.data(),
          .queries = in.queries,
          .keys = in.keys,
          .sequences = in.sequences(),
          .heads = in.shape.heads,
          .head_size = in.shape.head_size});
  workspace.expect_intact();
  Outputs outputs;
  outputs.add("d_q", d_q.values("d_q"));
  outputs.add("d_kv", d_kv.values("d_kv"));
  return outputs;
}

/// A gradient within rows that hold other things too.
struct Place {
  const char* name;
  const char* array;
  std::int64_t column, stride, rows;  ///< rows of sequences
};
template <class T>
std::array<Place, 3> places(const Inputs<T>& in) {
  return {Place{"d_q", "d_q", 0, in.q_stride, in.cu_q.back()}, Place{"d_k", "d_kv", 0, in.kv_stride, in.cu_k.back()},
          Place{"d_v", "d_kv", in.v_column, in.kv_stride, in.cu_k.back()}};
}

/// What was NaN before and is of no gradient must still be.
template <class T>
void expect_gaps_untouched(const Inputs<T>& in, const Outputs& outputs) {
  for (const Place& place : places(in)) {
    const auto& values = outputs.get<T>(place.array);
    const std::int64_t all = std::ssize(values) / place.stride;
    for (std::int64_t t = 0; t < all; ++t) {
      for (std::int64_t c = t < place.rows ? in.width : 0; c < in.width + kGap; ++c) {
        ASSERT_TRUE(std::isnan(static_cast<Plain<T>>(values[at(t, place.column + c, place.stride)])))
            << place.name << ": something was written in row " << t << ", column " << c;
      }
    }
  }
}

template <class T>
const std::vector<T>& gradient(const Definition<T>& of, const Place& place) {
  const std::string name = place.name;
  return name == "d_q" ? of.d_q : (name == "d_k" ? of.d_k : of.d_v);
}

/// max|x - ref| <= 2 max|base - ref| + 2 max|(ref + 0.3 - 0.3) - ref|, the base being plain arithmetic in T. The maximum of few errors is a
/// matter of luck: the base's is taken over further draws of the inputs where there are few.
template <class T>
class Accuracy {
 public:
  explicit Accuracy(const Inputs<T>& in) : in_(in), reference_(exact<Reference<T>>(in)) {
    std::int64_t scores = 1;
    for (const Lengths s : in.shape.sequences) scores += std::int64_t{s.queries} * s.keys * in.shape.heads;
    const std::int64_t draws = std::clamp<std::int64_t>(20'000 / scores, 1, 8);
    for (unsigned draw = 0; draw < draws; ++draw) {
      const Inputs<T> other(in.shape, 1 + draw);
      measure(plain(other), draw == 0 ? reference_ : exact<Reference<T>>(other));
    }
  }

  void expect(const Outputs& outputs) const {
    expect_gaps_untouched(in_, outputs);
    for (std::size_t g = 0; g < 3; ++g) {
      const Place place = places(in_)[g];
      const auto& values = outputs.get<T>(place.array);
      const auto& reference = gradient(reference_, place);
      Reference<T> error{0};
      for (std::int64_t t = 0; t < place.rows; ++t) {
        for (std::int64_t c = 0; c < in_.width; ++c) {
          const auto value = static_cast<Reference<T>>(values[at(t, place.column + c, place.stride)]);
          const Reference<T> ref = reference[at(t, c, in_.width)];
          ASSERT_TRUE(std::isfinite(value)) << place.name << " at row " << t << ", column " << c << " is " << value << ", not " << ref;
          error = std::max(error, std::abs(value - ref));
        }
      }
      EXPECT_LE(error, 2 * base_error_[g] + 2 * rounding_[g]) << place.name << "; plain arithmetic errs by " << base_error_[g];
    }
  }

 private:
  void measure(const Definition<Plain<T>>& base, const Definition<Reference<T>>& reference) {
    for (std::size_t g = 0; g < 3; ++g) {
      const Place place = places(in_)[g];
      const auto& plain_values = gradient(base, place);
      const auto& exact_values = gradient(reference, place);
      for (std::size_t i = 0; i < exact_values.size(); ++i) {
        const auto ref = static_cast<Plain<T>>(static_cast<T>(exact_values[i]));
        const auto there = static_cast<Plain<T>>(static_cast<T>(ref + Plain<T>(0.3)));
        const auto and_back = static_cast<Reference<T>>(static_cast<T>(there - Plain<T>(0.3)));
        base_error_[g] = std::max(base_error_[g], std::abs(static_cast<Reference<T>>(static_cast<T>(plain_values[i])) - exact_values[i]));
        rounding_[g] = std::max(rounding_[g], std::abs(and_back - exact_values[i]));
      }
    }
  }

  const Inputs<T>& in_;
  Definition<Reference<T>> reference_;
  std::array<Reference<T>, 3> base_error_{};
  std::array<Reference<T>, 3> rounding_{};
};

/// on_every_way, but with buffers that begin at multiples of 16 bytes only: what the tensor cores take, and half of the time.
template <std::same_as<CpuStream> Stream>
void on_aligned_ways(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
  on_every_way<Stream>(kernel, check);
}
#ifdef LATHE_HAS_CUDA
template <std::same_as<CudaStream> Stream>
void on_aligned_ways(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
  place_buffers(Placement::aligned);
  const DeviceRuns runs;
  const Outputs one = kernel(runs.stream());
  runs.again([&](const std::string& way) { EXPECT_EQ(one.difference(kernel(runs.stream())), "") << "depends on " << way; });
  check(one);
}
#endif

template <class Stream, class T>
void expect_accurate_gradients(const Shape& shape, bool aligned) {
  SCOPED_TRACE(::testing::Message() << "HS " << shape.head_size << (shape.mask == AttentionMask::causal ? " causal" : "") << " dropout "
                                    << shape.dropout << " tiles of " << shape.key_tile_rows << " keys, first sequence "
                                    << shape.sequences[0].queries << " x " << shape.sequences[0].keys);
  const Inputs<T> in = make_inputs<T>(shape);
  const Accuracy<T> accuracy(in);
  const std::function<Outputs(Stream)> kernel = [&](Stream stream) { return run(stream, in); };
  const std::function<void(const Outputs&)> check = [&](const Outputs& outputs) { accuracy.expect(outputs); };
  if (aligned) {
    on_aligned_ways<Stream>(kernel, check);
  } else {
    on_every_way<Stream>(kernel, check);
  }
}

template <class C>
class AttentionBackwardKernel : public ::testing::Test {
 protected:
  /// Whether the tensor cores take matrices of T: other kernels are for all head sizes, but emulated slowly.
  static constexpr bool kOnTensorCores = std::is_same_v<typename C::T, Bf16>;
};
TYPED_TEST_SUITE(AttentionBackwardKernel, Cases, CaseNames);

const std::vector<Lengths> kMixed = {{13, 13}, {1, 1}, {0, 0}, {33, 33}, {16, 16}};
const std::vector<Lengths> kCross = {{5, 9}, {9, 5}, {0, 4}, {3, 0}, {20, 37}};

TYPED_TEST(AttentionBackwardKernel, AnyHeadSizeAndAlignment) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t head_size : {1, 5, 33, 64, 256}) {
    const bool large = head_size > 64;
    expect_accurate_gradients<Stream, T>({.sequences = large ? std::vector<Lengths>{{3, 18}} : kMixed, .heads = 2, .head_size = head_size},
                                         false);
    expect_accurate_gradients<Stream, T>({.sequences = large ? std::vector<Lengths>{{18, 5}} : kCross,
                                          .heads = large ? 1 : 2,
                                          .head_size = head_size,
                                          .mask = AttentionMask::causal,
                                          .dropout = 0.1},
                                         false);
  }
}

TYPED_TEST(AttentionBackwardKernel, TensorCoresHeadSizes) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  std::vector<Lengths> mixed = kMixed;
  std::vector<Lengths> cross = kCross;
  mixed.insert(mixed.begin(), {65, 65});
  cross.insert(cross.begin(), {70, 41});
  cross.push_back({1, 130});
  for (const std::int64_t head_size : {32, 64, 96, 128}) {
    if (!this->kOnTensorCores && head_size > 32) break;
    for (const double dropout : {0.0, 0.2}) {
      expect_accurate_gradients<Stream, T>({.sequences = mixed, .heads = 2, .head_size = head_size, .dropout = dropout}, true);
      expect_accurate_gradients<Stream, T>(
          {.sequences = cross, .heads = 2, .head_size = head_size, .mask = AttentionMask::causal, .dropout = dropout}, true);
    }
  }
}

// Pairs of lengths, and cut into one tile or several, of one part or several.
TYPED_TEST(AttentionBackwardKernel, LengthsAndTiles) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 64 : 8;
  const std::vector<Lengths> pairs = {{1, 1}, {1, 3}, {2, 1}, {257, 1}, {3, 257}, {64, 128}, {113, 203}, {128, 217}, {257, 256}};
  for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
    expect_accurate_gradients<Stream, T>(
        {.sequences = pairs, .head_size = head_size, .mask = mask, .dropout = mask == AttentionMask::full ? 0.1 : 0.0}, true);
  }
  for (const std::int64_t rows : {32, 64, 256, 384}) {
    for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
      expect_accurate_gradients<Stream, T>({.sequences = {{257, 257}, {20, 40}, {150, 257}},
                                            .head_size = this->kOnTensorCores ? 32 : 8,
                                            .mask = mask,
                                            .dropout = rows == 64 ? 0.1 : 0.0,
                                            .key_tile_rows = rows},
                                           true);
    }
  }
  if (this->kOnTensorCores) {
    expect_accurate_gradients<Stream, T>({.sequences = {{130, 140}}, .head_size = 128, .dropout = 0.1, .key_tile_rows = 256}, true);
    expect_accurate_gradients<Stream, T>({.sequences = {{130, 140}}, .head_size = 96, .mask = AttentionMask::causal}, true);
  }
}

// Keys behind a sequence's end have a score of 0 where nobody masks them, and these logarithms make infinity of it.
TYPED_TEST(AttentionBackwardKernel, VerySmallLogarithms) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
    expect_accurate_gradients<Stream, T>(
        {.sequences = {{21, 9}, {9, 21}}, .head_size = this->kOnTensorCores ? 64 : 16, .mask = mask, .offset = 6.0}, true);
  }
  expect_accurate_gradients<Stream, T>({.sequences = {{20, 40}}, .head_size = 32, .dropout = 0.5, .scale = -0.6}, true);
}

/// Every combination: what is skipped is not touched, what is written does not depend on the other uses, what is added to is the sum.
TYPED_TEST(AttentionBackwardKernel, EachGradientIsSkippedWrittenOrAdded) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Inputs<T> in = make_inputs<T>({.sequences = {{13, 13}, {30, 70}, {0, 3}, {4, 0}},
                                       .head_size = this->kOnTensorCores ? 32 : 8,
                                       .mask = AttentionMask::causal,
                                       .dropout = 0.1,
                                       .key_tile_rows = 64});
  const std::array<Use, 3> uses = {Use::skip, Use::write, Use::add};
  std::vector<Outputs> written;
  on_aligned_ways<Stream>([&](Stream stream) { return run(stream, in); }, [&](const Outputs& outputs) { written.push_back(outputs); });
  constexpr Plain<T> kBefore{3};
  for (int combination = 0; combination < 27; ++combination) {
    const Uses use{.q = uses[combination % 3], .k = uses[combination / 3 % 3], .v = uses[combination / 9]};
    const std::array<Use, 3> of_place = {use.q, use.k, use.v};
    std::size_t way = 0;
    const auto check = [&](const Outputs& outputs) {
      for (std::size_t g = 0; g < 3; ++g) {
        const Place place = places(in)[g];
        const auto& values = outputs.get<T>(place.array);
        const auto& alone = written[way].get<T>(place.array);
        for (std::int64_t t = 0; t < std::ssize(values) / place.stride; ++t) {
          for (std::int64_t c = 0; c < in.width + kGap; ++c) {
            const std::size_t i = at(t, place.column + c, place.stride);
            const auto value = static_cast<Plain<T>>(values[i]);
            const auto result = static_cast<Plain<T>>(alone[i]);
            if (of_place[g] == Use::skip || c >= in.width || t >= place.rows) {
              ASSERT_EQ(value, kBefore) << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            } else if (of_place[g] == Use::write) {
              ASSERT_EQ(value, result) << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            } else {
              const Plain<T> sum = kBefore + result;
              ASSERT_NEAR(value, sum, epsilon_of<T>() * (std::abs(sum) + std::abs(result) + 8 * (std::is_same_v<T, Bf16> ? 0 : 1)))
                  << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            }
          }
        }
      }
      ++way;
    };
    on_aligned_ways<Stream>([&](Stream stream) { return run(stream, in, use, kBefore); }, check);
  }
}

TYPED_TEST(AttentionBackwardKernel, NotANumberStaysInItsSequence) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 32 : 8;
  const Inputs<T> clean = make_inputs<T>({.sequences = {{13, 13}, {40, 40}, {21, 21}}, .head_size = head_size, .dropout = 0.1});
  std::vector<Outputs> expected;
  on_aligned_ways<Stream>([&](Stream stream) { return run(stream, clean); }, [&](const Outputs& outputs) { expected.push_back(outputs); });
  for (const char which : {'q', 'k', 'v', 'd'}) {
    SCOPED_TRACE(which);
    Inputs<T> in = clean;
    const std::int64_t row = clean.cu_q[1] + 23;
    T& spoilt = which == 'q'   ? in.q[at(row, 0, in.q_stride)]
                : which == 'k' ? in.kv[at(row, 0, in.kv_stride)]
                : which == 'v' ? in.kv[at(row, in.v_column, in.kv_stride)]
                               : in.d_out[at(row, 0, in.width)];
    spoilt = static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN());
    std::size_t way = 0;
    on_aligned_ways<Stream>([&](Stream stream) { return run(stream, in); },
                            [&](const Outputs& outputs) {
                              for (const Place& place : places(in)) {
                                const auto& values = outputs.get<T>(place.array);
                                const auto& others = expected[way].get<T>(place.array);
                                bool spread = false;
                                for (std::int64_t t = 0; t < place.rows; ++t) {
                                  const bool own = t >= in.cu_q[1] && t < in.cu_q[2];
                                  for (std::int64_t c = 0; c < in.width; ++c) {
                                    const std::size_t i = at(t, place.column + c, place.stride);
                                    spread = spread || (own && std::isnan(static_cast<Plain<T>>(values[i])));
                                    ASSERT_TRUE(own || bits(values[i]) == bits(others[i])) << place.name << ' ' << t << ' ' << c;
                                  }
                                }
                                // d_v has neither v nor, where probabilities are dropped, all of the others.
                                EXPECT_TRUE(spread || std::string(place.name) == "d_v") << place.name << " lost it";
                              }
                              ++way;
                            });
  }
}

// A list of many tiles, most of them empty, and as many sequences.
TYPED_TEST(AttentionBackwardKernel, MoreSequencesThanAGridHasRows) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Shape shape{.sequences = std::vector<Lengths>(70'000, Lengths{0, 0}), .head_size = this->kOnTensorCores ? 32 : 4};
  shape.sequences[2] = {3, 2};
  shape.sequences[69'998] = {5, 7};
  const Inputs<T> in = make_inputs<T>(shape);
  const Accuracy<T> accuracy(in);
#ifdef LATHE_HAS_CUDA
  if constexpr (std::is_same_v<Stream, CudaStream>) {
    place_buffers(Placement::aligned);
    const DeviceRuns runs;
    accuracy.expect(run(runs.stream(), in));
    return;
  }
#endif
  on_aligned_ways<Stream>([&](Stream stream) { return run(stream, in); }, [&](const Outputs& outputs) { accuracy.expect(outputs); });
}

/// Of no rows nothing is done.
TYPED_TEST(AttentionBackwardKernel, Nothing) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::vector<Lengths>& sequences : {std::vector<Lengths>{}, std::vector<Lengths>{{0, 0}, {0, 2}, {2, 0}}}) {
    const Inputs<T> in = make_inputs<T>({.sequences = sequences});
    on_every_way<Stream>([&](Stream stream) { return run(stream, in); },
                         [&](const Outputs& outputs) {
                           expect_gaps_untouched(in, outputs);
                           for (const Place& place : places(in)) {
                             for (std::int64_t t = 0; t < place.rows; ++t) {
                               for (std::int64_t c = 0; c < in.width; ++c)
                                 ASSERT_EQ(static_cast<Plain<T>>(outputs.get<T>(place.array)[at(t, place.column + c, place.stride)]), 0);
                             }
                           }
                         });
  }
}

}  // namespace
}  // namespace lathe::test
