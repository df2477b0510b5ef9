// Attention against its definition: plain loops in a wider type, the scalar definition of dropout's masks, central differences.
#include "lathe/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/dropout.h"

namespace lathe {
namespace {

std::vector<CpuTarget> targets() {
  if (best_cpu_target() == CpuTarget::v4) return {CpuTarget::v3, CpuTarget::v4};
  return {CpuTarget::v3};
}

CpuStream stream_of(CpuTarget target, int threads) {
  CpuStream stream;
  stream.target = target;
  stream.threads = threads;
  return stream;
}

/// Elements between guards that no kernel may touch.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::int64_t count, T fill = std::numeric_limits<T>::quiet_NaN())
      : all_(static_cast<std::size_t>(count + 2 * kGuard), kSentinel) {
    std::fill(all_.begin() + kGuard, all_.end() - kGuard, fill);
  }
  T* data() { return all_.data() + kGuard; }
  const T* data() const { return all_.data() + kGuard; }
  std::int64_t size() const { return static_cast<std::int64_t>(all_.size()) - 2 * kGuard; }
  bool intact() const {
    return std::all_of(all_.begin(), all_.begin() + kGuard, [](T x) { return x == kSentinel; }) &&
           std::all_of(all_.end() - kGuard, all_.end(), [](T x) { return x == kSentinel; });
  }
  friend bool same_bits(const Guarded& a, const Guarded& b) {
    return a.all_.size() == b.all_.size() && std::memcmp(a.all_.data(), b.all_.data(), a.all_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr std::int64_t kGuard = 64;
  static constexpr T kSentinel = static_cast<T>(-123);
  std::vector<T> all_;
};

struct Lengths {
  int queries;
  int keys;
};

struct Shape {
  std::string name;
  std::vector<Lengths> sequences;
  int heads = 1;
  int head_size = 8;
  AttentionMask mask = AttentionMask::full;
  double dropout = 0;
  double magnitude = 1;  ///< of q
  double scale = 0;      ///< 0: 1 / sqrt(head_size)
  int unused_rows = 0;   ///< rows after the last sequence

  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }
};

/// Elements between the end of a row's q, k or v and the next: they belong to no tensor.
constexpr std::int64_t kGap = 3;

template <class T>
struct Inputs {
  explicit Inputs(Shape of, unsigned seed = 1) : shape(std::move(of)) {
    cu_q = {0};
    cu_k = {0};
    for (const Lengths& s : shape.sequences) {
      cu_q.push_back(cu_q.back() + s.queries);
      cu_k.push_back(cu_k.back() + s.keys);
      sample.push_back(static_cast<std::int32_t>(1000 + 7 * sample.size()));
    }
    queries = cu_q.back() + shape.unused_rows;
    keys = cu_k.back() + shape.unused_rows;
    width = std::int64_t{shape.heads} * shape.head_size;
    q_stride = width + kGap;
    kv_stride = 2 * (width + kGap);
    scale = shape.scale == 0 ? 1 / std::sqrt(shape.head_size) : shape.scale;
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    q.assign(static_cast<std::size_t>(queries * q_stride), std::numeric_limits<T>::quiet_NaN());
    kv.assign(static_cast<std::size_t>(keys * kv_stride), std::numeric_limits<T>::quiet_NaN());
    d_out.assign(static_cast<std::size_t>(queries * width), std::numeric_limits<T>::quiet_NaN());
    for (std::int64_t t = 0; t < cu_q.back(); ++t) {
      for (std::int64_t c = 0; c < width; ++c) q[t * q_stride + c] = static_cast<T>(shape.magnitude * normal(random));
      for (std::int64_t c = 0; c < width; ++c) d_out[t * width + c] = static_cast<T>(normal(random));
    }
    for (std::int64_t t = 0; t < cu_k.back(); ++t) {
      for (std::int64_t c = 0; c < width; ++c) k()[t * kv_stride + c] = static_cast<T>(normal(random));
      for (std::int64_t c = 0; c < width; ++c) v()[t * kv_stride + c] = static_cast<T>(normal(random));
    }
  }
  T* k() { return kv.data(); }
  T* v() { return kv.data() + width + kGap; }
  const T* k() const { return kv.data(); }
  const T* v() const { return kv.data() + width + kGap; }
  AttentionDropout dropout() const {
    return {.key = &key, .sample = sample.data(), .layer = 5, .threshold = dropout_threshold(shape.dropout)};
  }
  std::int64_t sequences() const { return static_cast<std::int64_t>(sample.size()); }

  Shape shape;
  RandomKey key{.seed = 0x1234567, .step = 89};
  std::vector<std::int32_t> cu_q, cu_k, sample;
  std::int64_t queries, keys, width, q_stride, kv_stride;
  double scale;
  std::vector<T> q, kv, d_out;
};

template <class T>
struct Outputs {
  explicit Outputs(const Inputs<T>& in, T fill = std::numeric_limits<T>::quiet_NaN())
      : out(in.queries * in.width),
        lse(in.queries * in.shape.heads),
        d_q(in.queries * in.q_stride, fill),
        d_kv(in.keys * in.kv_stride, fill) {}
  Guarded<T> out;
  Guarded<Accumulator<T>> lse;
  Guarded<T> d_q, d_kv;
};

struct Uses {
  Use q = Use::write;
  Use k = Use::write;
  Use v = Use::write;
};

template <class T>
void run_forward(CpuStream stream, const Inputs<T>& in, Outputs<T>& to) {
  attention_forward(stream, AttentionForward<T>{.out = to.out.data(),
                                                .lse = to.lse.data(),
                                                .q = in.q.data(),
                                                .k = in.k(),
                                                .v = in.v(),
                                                .q_stride = in.q_stride,
                                                .k_stride = in.kv_stride,
                                                .v_stride = in.kv_stride,
                                                .cu_q = in.cu_q.data(),
                                                .cu_k = in.cu_k.data(),
                                                .query_tiles = {},
                                                .dropout = in.dropout(),
                                                .mask = in.shape.mask,
                                                .scale = in.scale,
                                                .queries = in.queries,
                                                .keys = in.keys,
                                                .sequences = in.sequences(),
                                                .heads = in.shape.heads,
                                                .head_size = in.shape.head_size});
}

template <class T>
void run_backward(CpuStream stream, const Inputs<T>& in, Outputs<T>& to, Uses uses = {}) {
  Guarded<std::byte> workspace(attention_backward_workspace<T>(in.queries, in.shape.heads, in.shape.head_size, 128, 1),
                               std::byte{0xFF});
  attention_backward(stream, AttentionBackward<T>{.d_q = uses.q == Use::skip ? nullptr : to.d_q.data(),
                                                  .use_q = uses.q,
                                                  .d_k = uses.k == Use::skip ? nullptr : to.d_kv.data(),
                                                  .use_k = uses.k,
                                                  .d_v = uses.v == Use::skip ? nullptr : to.d_kv.data() + in.width + kGap,
                                                  .use_v = uses.v,
                                                  .d_q_stride = in.q_stride,
                                                  .d_k_stride = in.kv_stride,
                                                  .d_v_stride = in.kv_stride,
                                                  .d_out = in.d_out.data(),
                                                  .out = to.out.data(),
                                                  .lse = to.lse.data(),
                                                  .q = in.q.data(),
                                                  .k = in.k(),
                                                  .v = in.v(),
                                                  .q_stride = in.q_stride,
                                                  .k_stride = in.kv_stride,
                                                  .v_stride = in.kv_stride,
                                                  .cu_q = in.cu_q.data(),
                                                  .cu_k = in.cu_k.data(),
                                                  .query_tiles = {},
                                                  .key_tiles = {},
                                                  .splits = 1,
                                                  .dropout = in.dropout(),
                                                  .mask = in.shape.mask,
                                                  .scale = in.scale,
                                                  .workspace = workspace.data(),
                                                  .queries = in.queries,
                                                  .keys = in.keys,
                                                  .sequences = in.sequences(),
                                                  .heads = in.shape.heads,
                                                  .head_size = in.shape.head_size});
  EXPECT_TRUE(workspace.intact());
}

/// Whether dropout keeps the probability of (query, key), straight from the contract.
bool kept(const AttentionDropout& dropout, std::int64_t sequence, std::uint32_t head, std::uint32_t heads, std::uint32_t query,
          std::uint32_t key) {
  if (dropout.threshold == 0) return true;
  const auto sample = static_cast<std::uint32_t>(dropout.sample[sequence]);
  const auto words = philox4x32({sample, query, dropout.layer * heads + head, 4 * (key / 32) + (key % 8) / 2}, *dropout.key);
  return philox_value(words, 2 * ((key % 32) / 8) + key % 2) >= dropout.threshold;
}

/// Rows and heads are compact: out, d_q [queries, width], d_k, d_v [keys, width], lse [heads, queries].
template <class R>
struct Plain {
  std::vector<R> out, lse, d_q, d_k, d_v;
};

/// The definition, in plain loops and arithmetic of type R, rows of no sequence left 0.
template <class R, class T>
Plain<R> plain(const Inputs<T>& in) {
  const std::int64_t head_size = in.shape.head_size;
  const auto scale = static_cast<R>(in.scale);
  const AttentionDropout dropout = in.dropout();
  const auto kept_scale = static_cast<R>(dropout_scale(dropout.threshold));
  Plain<R> to;
  to.out.resize(static_cast<std::size_t>(in.queries * in.width));
  to.d_q.resize(to.out.size());
  to.lse.resize(static_cast<std::size_t>(in.queries * in.shape.heads));
  to.d_k.resize(static_cast<std::size_t>(in.keys * in.width));
  to.d_v.resize(to.d_k.size());
  for (std::int64_t b = 0; b < in.sequences(); ++b) {
    const std::int64_t queries = in.cu_q[b + 1] - in.cu_q[b];
    const std::int64_t keys = in.cu_k[b + 1] - in.cu_k[b];
    for (std::int64_t h = 0; h < in.shape.heads; ++h) {
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t row = in.cu_q[b] + i;
        const std::int64_t seen =
            in.shape.mask == AttentionMask::causal ? std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys) : keys;
        const std::int64_t column = h * head_size;
        R& lse = to.lse[h * in.queries + row];
        if (seen == 0) {
          lse = std::numeric_limits<R>::infinity();
          continue;
        }
        const T* const q = in.q.data() + row * in.q_stride + column;
        const T* const d_out = in.d_out.data() + row * in.width + column;
        R* const out = to.out.data() + row * in.width + column;
        R* const d_q = to.d_q.data() + row * in.width + column;
        std::vector<R> p(static_cast<std::size_t>(seen));
        std::vector<char> keeps(static_cast<std::size_t>(seen));
        R largest = -std::numeric_limits<R>::infinity();
        for (std::int64_t j = 0; j < seen; ++j) {
          const T* const k = in.k() + (in.cu_k[b] + j) * in.kv_stride + column;
          R s = 0;
          for (std::int64_t d = 0; d < head_size; ++d) s += static_cast<R>(q[d]) * static_cast<R>(k[d]);
          p[j] = s * scale;
          largest = std::max(largest, p[j]);
          keeps[j] = kept(dropout, b, static_cast<std::uint32_t>(h), static_cast<std::uint32_t>(in.shape.heads),
                          static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j));
        }
        R sum = 0;
        for (const R x : p) sum += std::exp(x - largest);
        lse = largest + std::log(sum);
        std::vector<R> shares(p);  // backward's, made again from the logarithm as the contract has it
        for (R& x : shares) x = std::exp(x - lse);
        for (R& x : p) x = std::exp(x - largest) / sum;
        for (std::int64_t j = 0; j < seen; ++j) {
          const T* const v = in.v() + (in.cu_k[b] + j) * in.kv_stride + column;
          if (!keeps[j]) continue;
          for (std::int64_t d = 0; d < head_size; ++d) out[d] += kept_scale * p[j] * static_cast<R>(v[d]);
        }
        R delta = 0;
        for (std::int64_t d = 0; d < head_size; ++d) delta += static_cast<R>(d_out[d]) * out[d];
        for (std::int64_t j = 0; j < seen; ++j) {
          const std::int64_t key = in.cu_k[b] + j;
          const T* const k = in.k() + key * in.kv_stride + column;
          const T* const v = in.v() + key * in.kv_stride + column;
          R* const d_k = to.d_k.data() + key * in.width + column;
          R* const d_v = to.d_v.data() + key * in.width + column;
          R d_p = 0;
          for (std::int64_t d = 0; d < head_size; ++d) d_p += static_cast<R>(d_out[d]) * static_cast<R>(v[d]);
          const R ds = shares[j] * ((keeps[j] ? kept_scale * d_p : R{0}) - delta) * scale;
          for (std::int64_t d = 0; d < head_size; ++d) {
            d_q[d] += ds * static_cast<R>(k[d]);
            d_k[d] += ds * static_cast<R>(q[d]);
            if (keeps[j]) d_v[d] += kept_scale * shares[j] * static_cast<R>(d_out[d]);
          }
        }
      }
    }
  }
  return to;
}

/// One result of a kernel against its definition: max|x - ref| <= 2 max|base - ref| + 2 max|(ref + 0.3 - 0.3) - ref|, base and the
/// second term in the kernel's own type T, ref in the wider R. The maxima are over all that was compared.
template <class T, class R>
class Accuracy {
 public:
  explicit Accuracy(std::string what) : what_(std::move(what)) {}

  /// x has `step` elements from row to row; what stands in rows that no sequence owns and between the end of a row and the next
  /// tensor's must still be the poison.
  void compare(const T* x, std::int64_t step, std::int64_t rows, std::int64_t all_rows, std::int64_t width, const T* base,
               const R* reference) {
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t c = 0; c < width; ++c) {
        const R ref = reference[t * width + c];
        const T got = x[t * step + c];
        if (std::isinf(ref)) {
          ASSERT_EQ(static_cast<R>(got), ref) << what_ << " at row " << t << ", column " << c;
          continue;
        }
        ASSERT_TRUE(std::isfinite(got)) << what_ << " at row " << t << ", column " << c << " is " << got << ", not " << ref;
        const T shifted = static_cast<T>(ref) + static_cast<T>(0.3);
        error_ = std::max(error_, std::abs(static_cast<R>(got) - ref));
        base_error_ = std::max(base_error_, std::abs(static_cast<R>(base[t * width + c]) - ref));
        rounding_ = std::max(rounding_, std::abs(static_cast<R>(static_cast<T>(shifted - static_cast<T>(0.3))) - ref));
      }
    }
    for (std::int64_t t = 0; t < all_rows; ++t) {
      for (std::int64_t c = t < rows ? width : 0; c < std::min(step, width + kGap); ++c) {
        ASSERT_TRUE(std::isnan(x[t * step + c])) << what_ << " wrote row " << t << ", column " << c;
      }
    }
  }

  void expect() const {
    EXPECT_LE(error_, 2 * base_error_ + 2 * rounding_) << what_ << "; plain arithmetic errs by " << base_error_;
  }

 private:
  std::string what_;
  R error_ = 0;
  R base_error_ = 0;
  R rounding_ = 0;
};

template <class T>
void expect_intact(const Outputs<T>& x) {
  EXPECT_TRUE(x.out.intact());
  EXPECT_TRUE(x.lse.intact());
  EXPECT_TRUE(x.d_q.intact());
  EXPECT_TRUE(x.d_kv.intact());
}

template <class T>
void compare_with_definition(const Shape& shape) {
  using R = std::conditional_t<std::is_same_v<T, float>, double, long double>;
  std::vector<std::array<Accuracy<T, R>, 5>> accuracies;
  for (const CpuTarget target : targets()) {
    const auto of = [&](const char* what) { return Accuracy<T, R>(what + std::string(" on ").append(name(target))); };
    accuracies.push_back({of("out"), of("lse"), of("d_q"), of("d_k"), of("d_v")});
  }
  // The maximum of few errors is luck: small shapes are drawn several times.
  std::int64_t scores = 1;
  for (const Lengths& s : shape.sequences) scores += std::int64_t{s.queries} * s.keys * shape.heads;
  const auto draws = static_cast<unsigned>(std::clamp<std::int64_t>(50'000 / scores, 1, 8));
  for (unsigned draw = 0; draw < draws; ++draw) {
    const Inputs<T> in(shape, draw);
    const Plain<R> reference = plain<R>(in);
    const Plain<T> base = plain<T>(in);
    for (std::size_t i = 0; i < accuracies.size(); ++i) {
      auto& [out, lse, d_q, d_k, d_v] = accuracies[i];
      const CpuStream stream = stream_of(targets()[i], 2);
      Outputs<T> x(in);
      run_forward(stream, in, x);
      run_backward(stream, in, x);
      expect_intact(x);
      const std::int64_t q_rows = in.cu_q.back();
      const std::int64_t k_rows = in.cu_k.back();
      out.compare(x.out.data(), in.width, q_rows, in.queries, in.width, base.out.data(), reference.out.data());
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t at = h * in.queries;
        lse.compare(x.lse.data() + at, 1, q_rows, in.queries, 1, base.lse.data() + at, reference.lse.data() + at);
      }
      d_q.compare(x.d_q.data(), in.q_stride, q_rows, in.queries, in.width, base.d_q.data(), reference.d_q.data());
      d_k.compare(x.d_kv.data(), in.kv_stride, k_rows, in.keys, in.width, base.d_k.data(), reference.d_k.data());
      d_v.compare(x.d_kv.data() + in.width + kGap, in.kv_stride, k_rows, in.keys, in.width, base.d_v.data(),
                  reference.d_v.data());
    }
  }
  for (const auto& of_target : accuracies) {
    for (const Accuracy<T, R>& accuracy : of_target) accuracy.expect();
  }
}

class AttentionShapes : public testing::TestWithParam<Shape> {};

TEST_P(AttentionShapes, Fp32IsAsCloseToFp64AsPlainArithmetic) { compare_with_definition<float>(GetParam()); }
TEST_P(AttentionShapes, Fp64IsAsCloseToExtendedPrecisionAsPlainArithmetic) { compare_with_definition<double>(GetParam()); }

std::vector<Shape> shapes() {
  const std::vector<Lengths> mixed = {{13, 13}, {1, 1}, {7, 7}, {0, 0}, {33, 33}, {16, 16}, {65, 65}};
  const std::vector<Lengths> cross = {{5, 9}, {9, 5}, {0, 4}, {3, 0}, {70, 41}, {1, 130}};
  std::vector<Shape> all;
  for (const int head_size : {1, 5, 16, 32, 33, 64, 96, 128, 256}) {
    const std::string suffix = "HS" + std::to_string(head_size);
    all.push_back({.name = "mixed" + suffix, .sequences = mixed, .heads = 2, .head_size = head_size, .unused_rows = 3});
    all.push_back({.name = "cross" + suffix,
                   .sequences = cross,
                   .heads = 3,
                   .head_size = head_size,
                   .mask = AttentionMask::causal,
                   .dropout = 0.1,
                   .unused_rows = 1});
  }
  all.push_back({.name = "pairs",
                 .sequences = {{1, 1}, {1, 3}, {2, 1}, {511, 1}, {3, 513}, {64, 128}},
                 .heads = 2,
                 .head_size = 64,
                 .dropout = 0.1});
  all.push_back({.name = "pairs_causal",
                 .sequences = {{1, 1}, {1, 3}, {2, 1}, {511, 1}, {3, 513}, {64, 128}},
                 .heads = 2,
                 .head_size = 64,
                 .mask = AttentionMask::causal});
  all.push_back({.name = "odd", .sequences = {{113, 203}, {128, 217}, {307, 256}}, .head_size = 64});
  all.push_back({.name = "odd_causal",
                 .sequences = {{113, 203}, {307, 256}},
                 .head_size = 32,
                 .mask = AttentionMask::causal,
                 .dropout = 0.3});
  all.push_back({.name = "long", .sequences = {{1023, 1024}}, .head_size = 16});
  all.push_back(
      {.name = "long_causal", .sequences = {{700, 700}}, .head_size = 16, .mask = AttentionMask::causal, .dropout = 0.1});
  // Nearly one-hot probabilities: few of the errors are large, so that many are needed.
  all.push_back({.name = "sharp", .sequences = {{40, 150}}, .heads = 24, .head_size = 32, .magnitude = 40});
  all.push_back({.name = "scaled_up", .sequences = {{20, 90}}, .head_size = 32, .dropout = 0.5, .scale = -1.5});
  all.push_back({.name = "nearly_all_dropped", .sequences = {{20, 90}}, .head_size = 32, .dropout = 0.99});
  all.push_back({.name = "nothing", .sequences = {}, .unused_rows = 4});
  all.push_back({.name = "only_empty", .sequences = {{0, 0}, {0, 3}, {4, 0}}, .heads = 2, .unused_rows = 4});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Attention, AttentionShapes, testing::ValuesIn(shapes()),
                         [](const testing::TestParamInfo<Shape>& shape) { return shape.param.name; });

template <class T>
class AttentionTest : public testing::Test {};
using ElementTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(AttentionTest, ElementTypes);

/// Equal scores and one-hot values (or upstream gradients) make each result one probability: 0 where dropped.
TYPED_TEST(AttentionTest, MasksAreThoseOfTheScalarDefinition) {
  using T = TypeParam;
  const Shape shape{
      .name = "", .sequences = {{37, 256}, {256, 40}, {70, 100}, {16, 9}}, .heads = 3, .head_size = 256, .dropout = 0.25};
  Inputs<T> in(shape);
  std::fill(in.q.begin(), in.q.end(), T{0});
  std::fill(in.kv.begin(), in.kv.end(), T{0});
  std::fill(in.d_out.begin(), in.d_out.end(), T{0});
  for (std::int64_t b = 0; b < in.sequences(); ++b) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t j = 0; j < shape.sequences[b].keys; ++j) in.v()[(in.cu_k[b] + j) * in.kv_stride + h * 256 + j] = T{1};
      for (std::int64_t i = 0; i < shape.sequences[b].queries; ++i) in.d_out[(in.cu_q[b] + i) * in.width + h * 256 + i] = T{1};
    }
  }
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> x(in);
    run_forward(stream_of(target, 1), in, x);
    run_backward(stream_of(target, 1), in, x);
    std::int64_t kept_count = 0;
    for (std::int64_t b = 0; b < in.sequences(); ++b) {
      const auto [queries, keys] = shape.sequences[b];
      for (int h = 0; h < shape.heads; ++h) {
        for (int i = 0; i < queries; ++i) {
          for (int j = 0; j < keys; ++j) {
            const bool keeps = kept(in.dropout(), b, static_cast<std::uint32_t>(h), 3, static_cast<std::uint32_t>(i),
                                    static_cast<std::uint32_t>(j));
            const T forward = x.out.data()[(in.cu_q[b] + i) * in.width + h * 256 + j];
            const T backward = x.d_kv.data()[(in.cu_k[b] + j) * in.kv_stride + in.width + kGap + h * 256 + i];
            const double p = keeps ? 1 / (0.75 * keys) : 0;
            ASSERT_NEAR(forward, p, 1e-6 * p) << b << ' ' << h << ' ' << i << ' ' << j;
            ASSERT_NEAR(backward, p, 1e-6 * p) << b << ' ' << h << ' ' << i << ' ' << j;
            kept_count += keeps;
          }
        }
      }
    }
    EXPECT_NEAR(static_cast<double>(kept_count), 0.75 * 3 * (37 * 256 + 256 * 40 + 70 * 100 + 16 * 9), 500);
  }
}

TEST(Attention, GradientsAreThoseOfCentralDifferences) {
  for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
    const Shape shape{
        .name = "", .sequences = {{5, 7}, {6, 4}, {2, 2}}, .heads = 2, .head_size = 5, .mask = mask, .dropout = 0.2};
    Inputs<double> in(shape);
    const CpuStream stream = stream_of(best_cpu_target(), 1);
    const auto loss = [&] {
      Outputs<double> x(in);
      run_forward(stream, in, x);
      double sum = 0;
      for (std::int64_t i = 0; i < x.out.size(); ++i) sum += x.out.data()[i] * in.d_out[i];
      return sum;
    };
    Outputs<double> x(in);
    run_forward(stream, in, x);
    run_backward(stream, in, x);
    const auto check = [&](const char* what, double* parameter, const double* gradient, std::int64_t rows, std::int64_t step) {
      for (std::int64_t i = 0; i < rows * step; ++i) {
        if (i % step >= in.width) continue;
        const double h = 1e-5;
        const double before = parameter[i];
        parameter[i] = before + h;
        const double up = loss();
        parameter[i] = before - h;
        const double down = loss();
        parameter[i] = before;
        ASSERT_NEAR(gradient[i], (up - down) / (2 * h), 2e-9) << what << ' ' << i / step << ' ' << i % step;
      }
    };
    check("q", in.q.data(), x.d_q.data(), in.queries, in.q_stride);
    check("k", in.k(), x.d_kv.data(), in.keys, in.kv_stride);
    check("v", in.v(), x.d_kv.data() + in.width + kGap, in.keys, in.kv_stride);
  }
}

/// Every combination: what is skipped is not touched, what is written does not depend on the other uses, what is added to is the
/// sum.
TYPED_TEST(AttentionTest, EachGradientIsSkippedWrittenOrAdded) {
  using T = TypeParam;
  const Shape shape{.name = "",
                    .sequences = {{13, 13}, {150, 90}, {0, 3}, {4, 0}},
                    .heads = 2,
                    .head_size = 32,
                    .mask = AttentionMask::causal,
                    .dropout = 0.1};
  const Inputs<T> in(shape);
  const std::array<Use, 3> uses = {Use::skip, Use::write, Use::add};
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> written(in);
    run_forward(stream_of(target, 1), in, written);
    run_backward(stream_of(target, 1), in, written);
    for (int combination = 0; combination < 27; ++combination) {
      const Uses use{.q = uses[combination % 3], .k = uses[combination / 3 % 3], .v = uses[combination / 9]};
      Outputs<T> x(in, T{3});
      run_forward(stream_of(target, 2), in, x);
      run_backward(stream_of(target, 2), in, x, use);
      expect_intact(x);
      const auto check = [&](const char* what, Use of, const T* got, const T* alone, std::int64_t rows, std::int64_t step) {
        for (std::int64_t t = 0; t < rows; ++t) {
          for (std::int64_t c = 0; c < in.width + kGap; ++c) {
            const T value = got[t * step + c];
            if (of == Use::skip || c >= in.width) {
              ASSERT_EQ(value, T{3}) << what << ' ' << t << ' ' << c << " in combination " << combination;
            } else if (of == Use::write) {
              ASSERT_EQ(value, alone[t * step + c]) << what << ' ' << t << ' ' << c << " in combination " << combination;
            } else {
              const T sum = T{3} + alone[t * step + c];
              ASSERT_NEAR(value, sum, 8 * std::numeric_limits<T>::epsilon() * (3 + std::abs(sum)))
                  << what << ' ' << t << ' ' << c << " in combination " << combination;
            }
          }
        }
      };
      check("d_q", use.q, x.d_q.data(), written.d_q.data(), in.queries, in.q_stride);
      check("d_k", use.k, x.d_kv.data(), written.d_kv.data(), in.keys, in.kv_stride);
      const std::int64_t v = in.width + kGap;
      check("d_v", use.v, x.d_kv.data() + v, written.d_kv.data() + v, in.keys, in.kv_stride);
    }
  }
}

TYPED_TEST(AttentionTest, BitsDependOnNeitherThreadsNorRuns) {
  using T = TypeParam;
  Shape shape{.name = "", .sequences = {}, .heads = 4, .head_size = 32, .dropout = 0.1};
  for (int i = 0; i < 60; ++i) shape.sequences.push_back({1 + i * 7 % 40, 1 + i * 7 % 40});
  shape.sequences.push_back({200, 200});
  const Inputs<T> in(shape);
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> first(in);
    run_forward(stream_of(target, 1), in, first);
    run_backward(stream_of(target, 1), in, first);
    for (int repeat = 0; repeat < 20; ++repeat) {
      Outputs<T> x(in);
      const CpuStream stream = stream_of(target, 1 + repeat % 3);
      run_forward(stream, in, x);
      run_backward(stream, in, x);
      ASSERT_TRUE(same_bits(x.out, first.out)) << stream.threads << " threads";
      ASSERT_TRUE(same_bits(x.lse, first.lse)) << stream.threads << " threads";
      ASSERT_TRUE(same_bits(x.d_q, first.d_q)) << stream.threads << " threads";
      ASSERT_TRUE(same_bits(x.d_kv, first.d_kv)) << stream.threads << " threads";
    }
  }
}

/// A sequence's results are a function of it alone: of its own rows and sample number, not of where it lies or what lies around.
TYPED_TEST(AttentionTest, PackingDoesNotChangeASequence) {
  using T = TypeParam;
  const Shape together{.name = "", .sequences = {{29, 29}, {45, 45}, {3, 3}}, .heads = 2, .head_size = 40, .dropout = 0.1};
  const Inputs<T> in(together);
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> x(in);
    run_forward(stream_of(target, 2), in, x);
    run_backward(stream_of(target, 2), in, x);
    Inputs<T> alone(Shape{.name = "", .sequences = {{45, 45}}, .heads = 2, .head_size = 40, .dropout = 0.1});
    alone.sample = {in.sample[1]};
    std::copy_n(in.q.begin() + 29 * in.q_stride, alone.q.size(), alone.q.begin());
    std::copy_n(in.kv.begin() + 29 * in.kv_stride, alone.kv.size(), alone.kv.begin());
    std::copy_n(in.d_out.begin() + 29 * in.width, alone.d_out.size(), alone.d_out.begin());
    Outputs<T> y(alone);
    run_forward(stream_of(target, 1), alone, y);
    run_backward(stream_of(target, 1), alone, y);
    EXPECT_EQ(std::memcmp(y.out.data(), x.out.data() + 29 * in.width, static_cast<std::size_t>(y.out.size()) * sizeof(T)), 0);
    for (std::int64_t t = 0; t < 45; ++t) {
      for (std::int64_t c = 0; c < in.width; ++c) {
        ASSERT_EQ(y.d_q.data()[t * in.q_stride + c], x.d_q.data()[(29 + t) * in.q_stride + c]);
        ASSERT_EQ(y.d_kv.data()[t * in.kv_stride + c], x.d_kv.data()[(29 + t) * in.kv_stride + c]);
      }
    }
  }
}

TYPED_TEST(AttentionTest, NotANumberStaysInItsSequence) {
  using T = TypeParam;
  const Shape shape{.name = "", .sequences = {{13, 13}, {70, 70}, {21, 21}}, .heads = 2, .head_size = 33, .dropout = 0.1};
  const Inputs<T> clean(shape);
  const std::int64_t first = clean.cu_q[1];
  const std::int64_t last = clean.cu_q[2];
  const std::int64_t row = first + 40;
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> expected(clean);
    run_forward(stream_of(target, 2), clean, expected);
    run_backward(stream_of(target, 2), clean, expected);
    for (const char which : {'q', 'k', 'v', 'd'}) {
      SCOPED_TRACE(which);
      Inputs<T> in = clean;
      T* const spoilt = which == 'q'   ? in.q.data() + row * in.q_stride
                        : which == 'k' ? in.k() + row * in.kv_stride
                        : which == 'v' ? in.v() + row * in.kv_stride
                                       : in.d_out.data() + row * in.width;
      *spoilt = std::numeric_limits<T>::quiet_NaN();
      Outputs<T> x(in);
      run_forward(stream_of(target, 2), in, x);
      run_backward(stream_of(target, 2), in, x);
      for (std::int64_t t = 0; t < in.queries; ++t) {
        const bool affected = which == 'q' ? t == row : which != 'd' && t >= first && t < last;
        if (which != 'v' || !affected) {  // a dropped probability takes nothing from v
          ASSERT_EQ(std::isnan(x.out.data()[t * in.width]), affected) << t;
        }
        if (t >= first && t < last) continue;
        for (std::int64_t c = 0; c < in.width; ++c) {
          ASSERT_EQ(x.out.data()[t * in.width + c], expected.out.data()[t * in.width + c]);
          ASSERT_EQ(x.d_q.data()[t * in.q_stride + c], expected.d_q.data()[t * in.q_stride + c]);
          ASSERT_EQ(x.d_kv.data()[t * in.kv_stride + c], expected.d_kv.data()[t * in.kv_stride + c]);
          ASSERT_EQ(x.d_kv.data()[t * in.kv_stride + in.width + kGap + c],
                    expected.d_kv.data()[t * in.kv_stride + in.width + kGap + c]);
        }
      }
      const T* const gradient = which == 'v' ? x.d_q.data() + row * in.q_stride : x.d_kv.data() + row * in.kv_stride;
      EXPECT_TRUE(std::isnan(*gradient));
    }
  }
}

/// Scores far beyond what exp can take, and queries that a causal mask leaves nothing to see.
TYPED_TEST(AttentionTest, ExtremesStayFinite) {
  using T = TypeParam;
  const Shape shape{.name = "",
                    .sequences = {{90, 20}, {20, 20}},
                    .heads = 2,
                    .head_size = 16,
                    .mask = AttentionMask::causal,
                    .magnitude = 1e6};
  const Inputs<T> in(shape);
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    Outputs<T> x(in);
    run_forward(stream_of(target, 2), in, x);
    run_backward(stream_of(target, 2), in, x);
    for (std::int64_t t = 0; t < in.queries; ++t) {
      const bool blind = t < 70;
      for (int h = 0; h < 2; ++h) ASSERT_EQ(std::isinf(x.lse.data()[h * in.queries + t]), blind) << t;
      for (std::int64_t c = 0; c < in.width; ++c) {
        ASSERT_TRUE(std::isfinite(x.out.data()[t * in.width + c]));
        ASSERT_TRUE(std::isfinite(x.d_q.data()[t * in.q_stride + c]));
        if (blind) {
          ASSERT_EQ(x.out.data()[t * in.width + c], T{0});
          ASSERT_EQ(x.d_q.data()[t * in.q_stride + c], T{0});
        }
      }
    }
    for (std::int64_t t = 0; t < in.keys; ++t) {
      for (std::int64_t c = 0; c < in.width; ++c) ASSERT_TRUE(std::isfinite(x.d_kv.data()[t * in.kv_stride + c]));
    }
  }
}

}  // namespace
}  // namespace lathe
