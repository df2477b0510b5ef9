// Attention's gradients against their definition, on every backend. The outputs and logarithms that the kernel is given are the definition's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lathe/kernels/attention.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_runs.h"
#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
Inputs<T> make_inputs(const Shape& shape) {
  Inputs<T> in(shape);
  add_outputs(in);
  return in;
}

template <class T>
std::array<Place, 3> places(const Inputs<T>& in) {
  return {Place{"d_q", "d_q", 0, in.q_stride, in.cu_q.back(), in.width},
          Place{"d_k", "d_kv", 0, in.kv_stride, in.cu_k.back(), in.width},
          Place{"d_v", "d_kv", in.v_column, in.kv_stride, in.cu_k.back(), in.width}};
}

template <class A>
const std::vector<A>& gradient(const Definition<A>& of, std::size_t number) {
  return number == 0 ? of.d_q : (number == 1 ? of.d_k : of.d_v);
}

template <class T>
void expect_nothing_else(const Inputs<T>& in, const Outputs& outputs) {
  const auto [d_q, d_k, d_v] = places(in);
  expect_gaps_untouched(outputs.get<T>("d_q"), {d_q});
  expect_gaps_untouched(outputs.get<T>("d_kv"), {d_k, d_v});
}

/// The three gradients against the definition.
template <class T>
class Gradients {
 public:
  explicit Gradients(const Inputs<T>& in) : in_(in), reference_(exact<Reference<T>>(in, Part::all)) {
    measure(in, reference_);
    for (unsigned draw = 1; draw < draws_of(in.shape); ++draw) {
      Inputs<T> other(in.shape, 1 + draw);
      add_outputs(other);
      measure(other, exact<Reference<T>>(other, Part::all));
    }
  }
  void expect(const Outputs& outputs) const {
    expect_nothing_else(in_, outputs);
    for (std::size_t g = 0; g < 3; ++g) {
      const Place place = places(in_)[g];
      accuracy_[g].expect(outputs.get<T>(place.array), gradient(reference_, g), in_.width, place);
    }
  }

 private:
  void measure(const Inputs<T>& in, const Definition<Reference<T>>& reference) {
    const auto base = plain(in, Part::all, Saved::given);
    for (std::size_t g = 0; g < 3; ++g) accuracy_[g].measure(gradient(base, g), gradient(reference, g), in.width, places(in)[g]);
  }

  const Inputs<T>& in_;
  Definition<Reference<T>> reference_;
  std::array<Accuracy<T>, 3> accuracy_;
};

template <class Stream, class T>
void expect_accurate_gradients(const Shape& shape, Begin begin) {
  SCOPED_TRACE(shape.text());
  const Inputs<T> in = make_inputs<T>(shape);
  const Gradients<T> gradients(in);
  on_ways<Stream>(
      begin, [&](Stream stream) { return run_backward(stream, in); }, [&](const Outputs& outputs) { gradients.expect(outputs); });
}

template <class C>
class AttentionBackwardKernel : public AttentionKernel<C> {};
TYPED_TEST_SUITE(AttentionBackwardKernel, Cases, CaseNames);

TYPED_TEST(AttentionBackwardKernel, AnyHeadSizeAndAlignment) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::vector<Lengths> mixed = {{13, 13}, {1, 1}, {0, 0}, {33, 33}, {16, 16}};
  const std::vector<Lengths> cross = {{5, 9}, {9, 5}, {0, 4}, {3, 0}, {20, 37}};
  for (const std::int64_t head_size : {1, 5, 16, 33, 64, 96, 128, 256}) {
    const bool large = head_size > 33;
    expect_accurate_gradients<Stream, T>(
        {.sequences = large ? std::vector<Lengths>{{3, 18}} : mixed, .heads = large ? 1 : 2, .head_size = head_size},
        Begin::anywhere);
    expect_accurate_gradients<Stream, T>({.sequences = large ? std::vector<Lengths>{{18, 5}} : cross,
                                          .heads = large ? 1 : 2,
                                          .head_size = head_size,
                                          .mask = AttentionMask::causal,
                                          .dropout = 0.1},
                                         Begin::anywhere);
  }
}

TYPED_TEST(AttentionBackwardKernel, TensorCoresHeadSizes) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  // A key less than a part has, too, and a warp's first query that sees all keys but one.
  const std::vector<Lengths> mixed = {{65, 65}, {13, 13}, {1, 1}, {0, 0}, {33, 33}, {16, 16}, {127, 127}, {20, 31}};
  const std::vector<Lengths> cross = {{70, 41}, {5, 9}, {9, 5}, {0, 4}, {3, 0}, {1, 130}, {140, 150}, {40, 70}};
  for (const std::int64_t head_size : {32, 64, 96, 128}) {
    if (!this->kOnTensorCores && head_size > 32) break;
    for (const double dropout : {0.0, 0.2}) {
      if (!this->kOnTensorCores && dropout > 0.0) break;
      expect_accurate_gradients<Stream, T>({.sequences = mixed, .heads = 2, .head_size = head_size, .dropout = dropout},
                                           Begin::aligned);
      expect_accurate_gradients<Stream, T>(
          {.sequences = cross, .heads = 2, .head_size = head_size, .mask = AttentionMask::causal, .dropout = dropout},
          Begin::aligned);
    }
  }
}

TYPED_TEST(AttentionBackwardKernel, PairsOfLengths) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape& shape : shapes_of_pairs<T>()) expect_accurate_gradients<Stream, T>(shape, Begin::aligned);
}

// Cut into one tile of keys or several, of one part or several.
TYPED_TEST(AttentionBackwardKernel, Tiles) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t rows : {32, 64, 256, 384}) {
    if (!this->kOnTensorCores && rows > 32) break;  // the plain kernels care for a tile's rows, not for what the tile is
    for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
      expect_accurate_gradients<Stream, T>({.sequences = {{257, 257}, {20, 40}, {150, 257}},
                                            .head_size = this->kOnTensorCores ? 32 : 8,
                                            .mask = mask,
                                            .dropout = rows == 64 ? 0.1 : 0.0,
                                            .key_tile_rows = rows},
                                           Begin::aligned);
    }
  }
  if (this->kOnTensorCores) {
    expect_accurate_gradients<Stream, T>({.sequences = {{130, 140}}, .head_size = 128, .dropout = 0.1, .key_tile_rows = 256},
                                         Begin::aligned);
    expect_accurate_gradients<Stream, T>({.sequences = {{130, 140}}, .head_size = 96, .mask = AttentionMask::causal},
                                         Begin::aligned);
  }
}

// Keys behind a sequence's end have a score of 0 where nobody masks them, and these logarithms make infinity of it.
TYPED_TEST(AttentionBackwardKernel, VerySmallLogarithms) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
    expect_accurate_gradients<Stream, T>(
        {.sequences = {{21, 9}, {9, 21}}, .head_size = this->kOnTensorCores ? 64 : 16, .mask = mask, .offset = 6.0},
        Begin::aligned);
  }
  expect_accurate_gradients<Stream, T>({.sequences = {{20, 40}}, .head_size = 32, .dropout = 0.5, .scale = -0.6}, Begin::aligned);
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
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); },
                          [&](const Outputs& outputs) { written.push_back(outputs); });
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
          for (std::int64_t c = 0; c < in.v_column; ++c) {
            const std::size_t i = at(t, place.column + c, place.stride);
            const auto value = static_cast<Plain<T>>(values[i]);
            const auto result = static_cast<Plain<T>>(alone[i]);
            if (of_place[g] == Use::skip || c >= in.width || t >= place.rows) {
              ASSERT_EQ(value, kBefore) << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            } else if (of_place[g] == Use::write) {
              ASSERT_EQ(value, result) << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            } else {
              const Plain<T> sum = kBefore + result;
              // Sums in T are added in pieces, each rounded; in bf16 only the total is.
              const Plain<T> roundings = std::is_same_v<T, Bf16> ? 1 : 16;
              ASSERT_NEAR(value, sum, roundings * epsilon_of<T>() * (std::abs(sum) + std::abs(result)))
                  << place.name << ' ' << t << ' ' << c << " in combination " << combination;
            }
          }
        }
      }
      ++way;
    };
    on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in, use, kBefore); }, check);
  }
}

TYPED_TEST(AttentionBackwardKernel, NotANumberStaysInItsSequence) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 32 : 8;
  const Inputs<T> clean = make_inputs<T>({.sequences = {{13, 13}, {40, 40}, {21, 21}}, .head_size = head_size, .dropout = 0.1});
  std::vector<Outputs> expected;
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, clean); },
                          [&](const Outputs& outputs) { expected.push_back(outputs); });
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
    on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); },
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

// Probabilities that are nearly one-hot, or nearly all dropped.
TYPED_TEST(AttentionBackwardKernel, SharpAndDropped) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  expect_accurate_gradients<Stream, T>(
      {.sequences = {{40, 150}}, .heads = 4, .head_size = this->kOnTensorCores ? 64 : 16, .magnitude = 20.0}, Begin::aligned);
  expect_accurate_gradients<Stream, T>({.sequences = {{20, 90}}, .head_size = 32, .dropout = 0.99}, Begin::aligned);
}

// Equal scores, and upstream gradients that are 1 in a column of their own, make each element of d_v one probability: 0 where it is dropped.
// Queries take turns, as there are more of them than columns.
TYPED_TEST(AttentionBackwardKernel, MasksAreThoseOfTheScalarDefinition) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 64 : 72;
  Inputs<T> in({.sequences = {{37, 130}, {130, 40}, {16, 9}}, .heads = 2, .head_size = head_size, .dropout = 0.25});
  for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
    for (std::int64_t c = 0; c < in.width; ++c) in.q[at(t, c, in.q_stride)] = static_cast<T>(0.0);
  }
  std::int64_t kept_count = 0;
  std::int64_t count = 0;
  for (std::int64_t turn = 0; turn * head_size < 130; ++turn) {
    for (std::size_t b = 0; b < in.sample.size(); ++b) {
      for (std::int64_t t = in.cu_q[b]; t < in.cu_q[b + 1]; ++t) {
        for (std::int64_t c = 0; c < in.width; ++c) {
          in.d_out[at(t, c, in.width)] = static_cast<T>(t - in.cu_q[b] == turn * head_size + c % head_size ? 1.0 : 0.0);
        }
      }
    }
    add_outputs(in);
    const auto check = [&](const Outputs& outputs) {
      const auto& d_kv = outputs.get<T>("d_kv");
      for (std::size_t b = 0; b < in.sample.size(); ++b) {
        const auto [queries, keys] = in.shape.sequences[b];
        for (std::int64_t j = 0; j < keys; ++j) {
          for (std::int64_t c = 0; c < in.width; ++c) {
            const std::int64_t query = turn * head_size + c % head_size;
            const auto head = static_cast<std::uint32_t>(c / head_size);
            const bool keeps = query < queries && kept(in.dropout(), static_cast<std::int64_t>(b), 5 * 2 + head,
                                                       static_cast<std::uint32_t>(query), static_cast<std::uint32_t>(j));
            const double expected = keeps ? 1.0 / (0.75 * keys) : 0.0;
            const auto value = static_cast<double>(d_kv[at(in.cu_k[b] + j, in.v_column + c, in.kv_stride)]);
            // Rounded as a probability, and as a result.
            ASSERT_NEAR(value, expected, 1.01 * std::max(epsilon_of<T>(), 1e-6) * expected)
                << b << ' ' << query << ' ' << j << ' ' << head;
            kept_count += keeps ? 1 : 0;
            count += query < queries ? 1 : 0;
          }
        }
      }
    };
    on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); }, check);
  }
  EXPECT_NEAR(static_cast<double>(kept_count), 0.75 * static_cast<double>(count), 0.02 * static_cast<double>(count));
}

// A sequence's results are a function of it alone: of its own rows and sample number, not of where it lies or what lies around.
TYPED_TEST(AttentionBackwardKernel, PackingDoesNotChangeASequence) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 64 : 24;
  const Inputs<T> in =
      make_inputs<T>({.sequences = {{29, 29}, {75, 75}, {3, 3}}, .heads = 2, .head_size = head_size, .dropout = 0.1});
  Inputs<T> one = alone(in, 1);
  add_outputs(one);
  std::vector<Outputs> of_alone;
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, one); },
                          [&](const Outputs& outputs) { of_alone.push_back(outputs); });
  std::size_t way = 0;
  const auto check = [&](const Outputs& outputs) {
    for (const Place& place : places(in)) {
      const auto& together = outputs.get<T>(place.array);
      const auto& expected = of_alone[way].get<T>(place.array);
      for (std::int64_t t = 0; t < 75; ++t) {
        for (std::int64_t c = 0; c < in.width; ++c) {
          ASSERT_EQ(bits(together[at(29 + t, place.column + c, place.stride)]),
                    bits(expected[at(t, place.column + c, place.stride)]))
              << place.name << ' ' << t << ' ' << c;
        }
      }
    }
    ++way;
  };
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); }, check);
}

// Scores far beyond what an exponential can take, and queries that a causal mask leaves nothing to see.
TYPED_TEST(AttentionBackwardKernel, ExtremesStayFinite) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Inputs<T> in = make_inputs<T>({.sequences = {{90, 20}, {20, 20}},
                                       .heads = 2,
                                       .head_size = this->kOnTensorCores ? 32 : 16,
                                       .mask = AttentionMask::causal,
                                       .magnitude = 1e6});
  const auto check = [&](const Outputs& outputs) {
    for (const Place& place : places(in)) {
      const auto& values = outputs.get<T>(place.array);
      for (std::int64_t t = 0; t < place.rows; ++t) {
        const bool blind = place.array == std::string("d_q") && t < 70;
        for (std::int64_t c = 0; c < in.width; ++c) {
          const auto value = static_cast<Plain<T>>(values[at(t, place.column + c, place.stride)]);
          ASSERT_TRUE(blind ? value == 0 : std::isfinite(value)) << place.name << ' ' << t << ' ' << c << ": " << value;
        }
      }
    }
  };
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); }, check);
}

TYPED_TEST(AttentionBackwardKernel, ManySequencesGiveTheSameBits) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Shape shape{.sequences = {}, .heads = 1, .head_size = this->kOnTensorCores ? 64 : 8, .dropout = 0.1};
  for (int i = 0; i < 60; ++i) shape.sequences.push_back({1 + i * 7 % 40, 1 + i * 7 % 40});
  shape.sequences.push_back({200, 200});
  const Inputs<T> in = make_inputs<T>(shape);
  const Gradients<T> expected(in);
  constexpr int kRuns = 250;
  on_aligned_ways<Stream>([&](Stream stream) { return run_backward(stream, in); },
                          [&](const Outputs& outputs) { expected.expect(outputs); }, kRuns);
}

// A list of many tiles, most of them empty, and as many sequences. One way is enough. Small tiles are few blocks of the kernels without tensor
// cores, whose threads take their time when emulated.
TYPED_TEST(AttentionBackwardKernel, MoreSequencesThanAGridHasRows) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Shape shape{.sequences = std::vector<Lengths>(70'000, Lengths{0, 0}),
              .head_size = this->kOnTensorCores ? 32 : 4,
              .key_tile_rows = this->kOnTensorCores ? 128 : 32,
              .query_tile_rows = this->kOnTensorCores ? 128 : 16};
  shape.sequences[2] = {3, 2};
  shape.sequences[69'998] = {5, 7};
  const Inputs<T> in = make_inputs<T>(shape);
  const Gradients<T> gradients(in);
  on_one_way<Stream>([&](Stream stream) { return run_backward(stream, in); },
                     [&](const Outputs& outputs) { gradients.expect(outputs); });
}

/// Of no rows nothing is done.
TYPED_TEST(AttentionBackwardKernel, Nothing) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::vector<Lengths>& sequences : {std::vector<Lengths>{}, std::vector<Lengths>{{0, 0}, {0, 2}, {2, 0}}}) {
    const Inputs<T> in = make_inputs<T>({.sequences = sequences});
    on_every_way<Stream>(
        [&](Stream stream) { return run_backward(stream, in); },
        [&](const Outputs& outputs) {
          expect_nothing_else(in, outputs);
          for (const Place& place : places(in)) {
            for (std::int64_t t = 0; t < place.rows; ++t) {
              for (std::int64_t c = 0; c < in.width; ++c)
                ASSERT_EQ(static_cast<Plain<T>>(outputs.get<T>(place.array)[at(t, place.column + c, place.stride)]), 0);
            }
          }
        });
  }
}

TEST(AttentionBackward, NoLengthHasMoreThanEightSplits) {
  for (std::int64_t longest = 0; longest <= 70'000; ++longest) {
    const std::int64_t rows = attention_key_tile_rows(longest);
    ASSERT_EQ(rows % kAttentionPartKeys, 0) << longest;
    ASSERT_LE(attention_splits(longest, rows), 8) << longest;
    ASSERT_GE(attention_splits(longest, rows) * rows, longest);
    if (longest <= 2 * kAttentionPartKeys) {
      ASSERT_EQ(attention_splits(longest, rows), 1) << longest;
    }
  }
}

#ifdef LATHE_HAS_CUDA
TEST(AttentionBackward, RefusesWhatItHasNoTilesFor) {
  AttentionBackward<Bf16> args{};
  args.use_q = Use::write;
  args.head_size = 64;
  args.query_tiles.rows = 128;
  args.key_tiles.rows = 100;
  EXPECT_THROW(attention_backward(CudaStream{}, args), std::invalid_argument);
  args.key_tiles.rows = 128;
  args.head_size = 257;
  EXPECT_THROW(attention_backward(CudaStream{}, args), std::invalid_argument);
}

/// The gradients of packed sequences, one head of 64, whose q, k, v, d_q, d_k and d_v lie side by side in rows that begin `stride` elements apart.
/// "rows" are those gradients, without gaps.
Outputs run_packed(CudaStream stream, const Layout& layout, Bf16* rows) {
  constexpr std::int64_t kWidth = 64;
  const auto& [offsets, stride] = layout;
  const std::int64_t tokens = offsets.back();
  std::vector<std::int32_t> sequence;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) sequence.push_back(static_cast<std::int32_t>(b));
  const Array<CudaStream, std::int32_t> cu_seqlens(offsets);
  const Array<CudaStream, std::int32_t> tile_sequence(sequence);
  const Array<CudaStream, std::int32_t> tile_first(std::vector<std::int32_t>(sequence.size(), 0));
  const AttentionTiles tiles{
      .sequence = tile_sequence.data(), .first = tile_first.data(), .count = std::ssize(sequence), .rows = 128};
  const DeviceBuffer<Bf16> d_out(random_values<Bf16>(tokens * kWidth, 6));
  const DeviceBuffer<Bf16> out(random_values<Bf16>(tokens * kWidth, 7));
  const DeviceBuffer<float> lse(std::vector<float>(static_cast<std::size_t>(tokens), 3.0F));
  Workspace<CudaStream> workspace(attention_backward_workspace<Bf16>(tokens, 1, kWidth, tiles.rows, 1));
  attention_backward(stream, AttentionBackward<Bf16>{.d_q = rows + 3 * kWidth,
                                                     .use_q = Use::write,
                                                     .d_k = rows + 4 * kWidth,
                                                     .use_k = Use::write,
                                                     .d_v = rows + 5 * kWidth,
                                                     .use_v = Use::write,
                                                     .d_q_stride = stride,
                                                     .d_k_stride = stride,
                                                     .d_v_stride = stride,
                                                     .d_out = d_out.data(),
                                                     .out = out.data(),
                                                     .lse = lse.data(),
                                                     .q = rows,
                                                     .k = rows + kWidth,
                                                     .v = rows + 2 * kWidth,
                                                     .q_stride = stride,
                                                     .k_stride = stride,
                                                     .v_stride = stride,
                                                     .cu_q = cu_seqlens.data(),
                                                     .cu_k = cu_seqlens.data(),
                                                     .query_tiles = tiles,
                                                     .key_tiles = tiles,
                                                     .splits = 1,
                                                     .dropout = {},
                                                     .mask = AttentionMask::full,
                                                     .scale = 0.125,
                                                     .workspace = workspace.data(),
                                                     .queries = tokens,
                                                     .keys = tokens,
                                                     .sequences = std::ssize(sequence),
                                                     .heads = 1,
                                                     .head_size = kWidth});
  check(cudaStreamSynchronize(stream.handle));
  std::vector<Bf16> gradients(static_cast<std::size_t>(tokens * 3 * kWidth));
  for (std::int64_t t = 0; t < tokens; ++t) {
    check(cudaMemcpy(gradients.data() + t * 3 * kWidth, rows + t * stride + 3 * kWidth, 3 * kWidth * sizeof(Bf16),
                     cudaMemcpyDeviceToHost));
  }
  Outputs results;
  results.add("rows", std::move(gradients));
  return results;
}

TEST(AttentionBackward, RowsLieBeyondTwoThousandMillionElements) {
  constexpr std::int64_t kRow = 3 * 64;
  const LargeMemory memory((kTwoThousandMillion + 1024) * static_cast<std::int64_t>(sizeof(Bf16)));
  if (!memory.there()) GTEST_SKIP() << "4 GiB of device memory are needed";
  const DeviceRuns runs;
  for (const Layout& layout : large_layouts()) {
    SCOPED_TRACE(::testing::Message() << layout.offsets.back() << " rows, " << layout.stride << " elements apart");
    const std::vector<Bf16> qkv = random_values<Bf16>(layout.offsets.back() * kRow, 5);
    // The tensor cores, and the plain kernels.
    for (const Placement placement : {Placement::aligned, Placement::shifted}) {
      place_buffers(placement);
      const DeviceBuffer<Bf16> compact(layout.offsets.back() * 2 * kRow);
      auto* const spread = reinterpret_cast<Bf16*>(memory.data()) + (placement == Placement::aligned ? 0 : 1);
      for (std::int64_t t = 0; t < layout.offsets.back(); ++t) {
        for (Bf16* const row : {spread + t * layout.stride, compact.data() + t * 2 * kRow})
          check(cudaMemcpy(row, qkv.data() + t * kRow, kRow * sizeof(Bf16), cudaMemcpyHostToDevice));
      }
      const Outputs expected = run_packed(runs.stream(), {.offsets = layout.offsets, .stride = 2 * kRow}, compact.data());
      EXPECT_EQ(expected.difference(run_packed(runs.stream(), layout, spread)), "");
    }
  }
}
#endif

}  // namespace
}  // namespace lathe::test
