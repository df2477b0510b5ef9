// Attention's outputs and logarithms against their definition, on every backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "lathe/kernels/attention.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_runs.h"
#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
Place out_place(const Inputs<T>& in) {
  return {.name = "out", .array = "out", .column = 0, .stride = in.width, .rows = in.cu_q.back(), .columns = in.width};
}
template <class T>
Place lse_place(const Inputs<T>& in) {
  return {.name = "lse", .array = "lse", .column = 0, .stride = in.queries, .rows = in.shape.heads, .columns = in.cu_q.back()};
}

/// The definition's results and what they may be missed by.
template <class T>
class Expected {
 public:
  explicit Expected(const Inputs<T>& in) : in_(in), exact_(exact<Reference<T>>(in, Part::outputs)) {
    measure(in, exact_);
    for (unsigned draw = 1; draw < draws_of(in.shape); ++draw) {
      const Inputs<T> other(in.shape, 1 + draw);
      measure(other, exact<Reference<T>>(other, Part::outputs));
    }
  }
  void expect(const Outputs& outputs) const {
    const auto& out = outputs.get<T>("out");
    const auto& lse = outputs.get<Accumulator<T>>("lse");
    expect_gaps_untouched<T>(out, {out_place(in_)});
    expect_gaps_untouched<Accumulator<T>>(lse, {lse_place(in_)});
    out_.expect(out, exact_.out, in_.width, out_place(in_));
    lse_.expect(lse, exact_.lse, in_.queries, lse_place(in_));
  }

 private:
  void measure(const Inputs<T>& in, const Definition<Reference<T>>& reference) {
    const Definition<Plain<T>> base = plain(in, Part::outputs);
    out_.measure(base.out, reference.out, in.width, out_place(in));
    lse_.measure(base.lse, reference.lse, in.queries, lse_place(in));
  }

  const Inputs<T>& in_;
  Definition<Reference<T>> exact_;
  Accuracy<T> out_;
  Accuracy<Accumulator<T>> lse_;
};

template <class Stream, class T>
void expect_accurate_outputs(const Shape& shape, Begin begin) {
  SCOPED_TRACE(shape.text());
  const Inputs<T> in(shape);
  const Expected<T> expected(in);
  on_ways<Stream>(
      begin, [&](Stream stream) { return run_forward(stream, in); }, [&](const Outputs& outputs) { expected.expect(outputs); });
}

template <class C>
class AttentionForwardKernel : public AttentionKernel<C> {};
TYPED_TEST_SUITE(AttentionForwardKernel, Cases, CaseNames);

TYPED_TEST(AttentionForwardKernel, AnyHeadSizeAndAlignment) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::vector<Lengths> mixed = {{13, 13}, {1, 1}, {0, 0}, {33, 33}, {16, 16}};
  const std::vector<Lengths> cross = {{5, 9}, {9, 5}, {0, 4}, {3, 0}, {20, 37}};
  for (const std::int64_t head_size : {1, 5, 16, 33, 64, 96, 128, 256}) {
    const bool large = head_size > 64;
    expect_accurate_outputs<Stream, T>(
        {.sequences = large ? std::vector<Lengths>{{3, 34}} : mixed, .heads = 2, .head_size = head_size}, Begin::anywhere);
    expect_accurate_outputs<Stream, T>({.sequences = large ? std::vector<Lengths>{{18, 5}} : cross,
                                        .heads = large ? 1 : 3,
                                        .head_size = head_size,
                                        .mask = AttentionMask::causal,
                                        .dropout = 0.1},
                                       Begin::anywhere);
  }
}

TYPED_TEST(AttentionForwardKernel, TensorCoresHeadSizes) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  // A key less than a tile has, too, and a first query that sees so many: a tile that is nearly whole needs its mask.
  const std::vector<Lengths> mixed = {{65, 65}, {13, 13}, {1, 1}, {0, 0}, {33, 33}, {16, 16}, {63, 63}, {20, 31}};
  const std::vector<Lengths> cross = {{70, 41}, {5, 9}, {9, 5}, {0, 4}, {3, 0}, {1, 130}, {140, 150}, {40, 102}, {40, 70}};
  for (const std::int64_t head_size : {32, 64, 96, 128}) {
    if (!this->kOnTensorCores && head_size > 32) break;
    for (const double dropout : {0.0, 0.2}) {
      expect_accurate_outputs<Stream, T>({.sequences = mixed, .heads = 2, .head_size = head_size, .dropout = dropout},
                                         Begin::aligned);
      expect_accurate_outputs<Stream, T>(
          {.sequences = cross, .heads = 2, .head_size = head_size, .mask = AttentionMask::causal, .dropout = dropout},
          Begin::aligned);
    }
  }
}

TYPED_TEST(AttentionForwardKernel, PairsOfLengths) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape& shape : shapes_of_pairs<T>()) expect_accurate_outputs<Stream, T>(shape, Begin::aligned);
}

// Scores from which exponentials are far apart: references move, in some rows of a tile and not in others.
TYPED_TEST(AttentionForwardKernel, SharpAndScaledScores) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 64 : 16;
  expect_accurate_outputs<Stream, T>({.sequences = {{40, 200}}, .heads = 4, .head_size = head_size, .magnitude = 20.0},
                                     Begin::aligned);
  expect_accurate_outputs<Stream, T>(
      {.sequences = {{40, 200}}, .head_size = head_size, .mask = AttentionMask::causal, .offset = 4.0}, Begin::aligned);
  expect_accurate_outputs<Stream, T>({.sequences = {{20, 90}}, .head_size = 32, .dropout = 0.5, .scale = -0.6}, Begin::aligned);
  expect_accurate_outputs<Stream, T>({.sequences = {{20, 90}}, .head_size = 32, .dropout = 0.99}, Begin::aligned);
}

// Each tile of keys has larger scores than the last, by far more than a reference may lie below.
TYPED_TEST(AttentionForwardKernel, RisingScores) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Inputs<T> in({.sequences = {{33, 257}}, .heads = 1, .head_size = 32});
  for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
    for (std::int64_t c = 0; c < in.width; ++c) in.q[at(t, c, in.q_stride)] = static_cast<T>(1.0);
  }
  for (std::int64_t t = 0; t < in.cu_k.back(); ++t) {
    for (std::int64_t c = 0; c < in.width; ++c) in.kv[at(t, c, in.kv_stride)] = static_cast<T>(static_cast<double>(t) / 16.0);
  }
  const auto reference = exact<Reference<T>>(in, Part::outputs);
  const auto base = plain(in, Part::outputs);
  Accuracy<T> out;
  Accuracy<Accumulator<T>> lse;
  out.measure(base.out, reference.out, in.width, out_place(in));
  lse.measure(base.lse, reference.lse, in.queries, lse_place(in));
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, in); },
                          [&](const Outputs& outputs) {
                            out.expect(outputs.get<T>("out"), reference.out, in.width, out_place(in));
                            lse.expect(outputs.get<Accumulator<T>>("lse"), reference.lse, in.queries, lse_place(in));
                          });
}

// Equal scores, and values that are 1 in a column of their own, make each output one probability: 0 where it is dropped. Keys take turns, as
// there are more of them than columns.
TYPED_TEST(AttentionForwardKernel, MasksAreThoseOfTheScalarDefinition) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t head_size : {32, 64, 96, 128}) {
    if (!this->kOnTensorCores && head_size != 128) continue;
    Inputs<T> in({.sequences = {{37, 130}, {130, 40}, {16, 9}}, .heads = 2, .head_size = head_size, .dropout = 0.25});
    for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
      for (std::int64_t c = 0; c < in.width; ++c) in.q[at(t, c, in.q_stride)] = static_cast<T>(0.0);
    }
    std::int64_t kept_count = 0;
    std::int64_t count = 0;
    for (std::int64_t turn = 0; turn * head_size < 130; ++turn) {
      for (std::size_t b = 0; b < in.sample.size(); ++b) {
        for (std::int64_t t = in.cu_k[b]; t < in.cu_k[b + 1]; ++t) {
          for (std::int64_t c = 0; c < in.width; ++c) {
            const bool own = t - in.cu_k[b] == turn * head_size + c % head_size;
            in.kv[at(t, in.v_column + c, in.kv_stride)] = static_cast<T>(own ? 1.0 : 0.0);
          }
        }
      }
      on_aligned_ways<Stream>(
          [&](Stream stream) { return run_forward(stream, in); },
          [&](const Outputs& outputs) {
            const auto& out = outputs.get<T>("out");
            for (std::size_t b = 0; b < in.sample.size(); ++b) {
              const auto [queries, keys] = in.shape.sequences[b];
              for (std::int64_t i = 0; i < queries; ++i) {
                for (std::int64_t c = 0; c < in.width; ++c) {
                  const std::int64_t key = turn * head_size + c % head_size;
                  const auto head = static_cast<std::uint32_t>(c / head_size);
                  const bool keeps = key < keys && kept(in.dropout(), static_cast<std::int64_t>(b), 5 * 2 + head,
                                                        static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(key));
                  const double expected = keeps ? 1.0 / (0.75 * keys) : 0.0;
                  const auto value = static_cast<double>(out[at(in.cu_q[b] + i, c, in.width)]);
                  ASSERT_NEAR(value, expected, epsilon_of<T>() * expected) << b << ' ' << i << ' ' << key << ' ' << head;
                  kept_count += keeps ? 1 : 0;
                  count += key < keys ? 1 : 0;
                }
              }
            }
          });
    }
    EXPECT_NEAR(static_cast<double>(kept_count), 0.75 * static_cast<double>(count), 0.02 * static_cast<double>(count));
  }
}

// A sequence's results are a function of it alone: of its own rows and sample number, not of where it lies or what lies around.
TYPED_TEST(AttentionForwardKernel, PackingDoesNotChangeASequence) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 64 : 24;
  const Inputs<T> in({.sequences = {{29, 29}, {75, 75}, {3, 3}}, .heads = 2, .head_size = head_size, .dropout = 0.1});
  const Inputs<T> one = alone(in, 1);
  std::vector<Outputs> of_alone;
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, one); },
                          [&](const Outputs& outputs) { of_alone.push_back(outputs); });
  std::size_t way = 0;
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, in); },
                          [&](const Outputs& outputs) {
                            const auto& together = outputs.get<T>("out");
                            const auto& expected = of_alone[way++].get<T>("out");
                            for (std::int64_t i = 0; i < 75 * in.width; ++i) {
                              ASSERT_EQ(bits(together[at(29, i, in.width)]), bits(expected[static_cast<std::size_t>(i)])) << i;
                            }
                          });
}

TYPED_TEST(AttentionForwardKernel, NotANumberStaysInItsSequence) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t head_size = this->kOnTensorCores ? 32 : 12;
  const Inputs<T> clean({.sequences = {{13, 13}, {70, 70}, {21, 21}}, .heads = 2, .head_size = head_size});
  std::vector<Outputs> expected;
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, clean); },
                          [&](const Outputs& outputs) { expected.push_back(outputs); });
  const std::int64_t row = clean.cu_q[1] + 40;
  for (const char which : {'q', 'k', 'v'}) {
    SCOPED_TRACE(which);
    Inputs<T> in = clean;
    T& spoilt = which == 'q'   ? in.q[at(row, 0, in.q_stride)]
                : which == 'k' ? in.kv[at(row, 0, in.kv_stride)]
                               : in.kv[at(row, in.v_column, in.kv_stride)];
    spoilt = static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN());
    std::size_t way = 0;
    on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, in); },
                            [&](const Outputs& outputs) {
                              const auto& out = outputs.get<T>("out");
                              const auto& others = expected[way++].get<T>("out");
                              for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
                                const bool affected = which == 'q' ? t == row : t >= in.cu_q[1] && t < in.cu_q[2];
                                ASSERT_EQ(std::isnan(static_cast<Plain<T>>(out[at(t, 0, in.width)])), affected) << t;
                                for (std::int64_t c = affected ? in.width : 0; c < in.width; ++c) {
                                  ASSERT_EQ(bits(out[at(t, c, in.width)]), bits(others[at(t, c, in.width)])) << t << ' ' << c;
                                }
                              }
                            });
  }
}

// Scores far beyond what an exponential can take, and queries that a causal mask leaves nothing to see.
TYPED_TEST(AttentionForwardKernel, ExtremesStayFinite) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Inputs<T> in({.sequences = {{90, 20}, {20, 20}},
                      .heads = 2,
                      .head_size = this->kOnTensorCores ? 32 : 16,
                      .mask = AttentionMask::causal,
                      .magnitude = 1e6});
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, in); },
                          [&](const Outputs& outputs) {
                            const auto& out = outputs.get<T>("out");
                            const auto& lse = outputs.get<Accumulator<T>>("lse");
                            for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
                              const bool blind = t < 70;
                              for (std::int64_t h = 0; h < 2; ++h) {
                                const auto logarithm = lse[at(h, t, in.queries)];
                                ASSERT_TRUE(blind ? logarithm == INFINITY : std::isfinite(logarithm)) << t;
                              }
                              for (std::int64_t c = 0; c < in.width; ++c) {
                                const auto value = static_cast<Plain<T>>(out[at(t, c, in.width)]);
                                ASSERT_TRUE(blind ? value == 0 : std::isfinite(value)) << t << ' ' << c;
                              }
                            }
                          });
}

TYPED_TEST(AttentionForwardKernel, ManySequencesGiveTheSameBits) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Shape shape{.sequences = {}, .heads = 2, .head_size = this->kOnTensorCores ? 64 : 8, .dropout = 0.1};
  for (int i = 0; i < 60; ++i) shape.sequences.push_back({1 + i * 7 % 40, 1 + i * 7 % 40});
  shape.sequences.push_back({200, 200});
  const Inputs<T> in(shape);
  const Expected<T> expected(in);
  constexpr int kRuns = 250;
  on_aligned_ways<Stream>([&](Stream stream) { return run_forward(stream, in); },
                          [&](const Outputs& outputs) { expected.expect(outputs); }, kRuns);
}

// A list of many tiles, most of them empty, and as many sequences. One way is enough.
TYPED_TEST(AttentionForwardKernel, MoreSequencesThanAGridHasRows) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Shape shape{.sequences = std::vector<Lengths>(70'000, Lengths{0, 0}), .head_size = this->kOnTensorCores ? 32 : 4};
  shape.sequences[2] = {3, 2};
  shape.sequences[69'998] = {5, 7};
  const Inputs<T> in(shape);
  const Expected<T> expected(in);
  on_one_way<Stream>([&](Stream stream) { return run_forward(stream, in); },
                     [&](const Outputs& outputs) { expected.expect(outputs); });
}

TYPED_TEST(AttentionForwardKernel, OfNoKeysOutputsAreZeroAndOfNoQueriesThereAreNone) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::vector<Lengths>& sequences : {std::vector<Lengths>{}, std::vector<Lengths>{{0, 0}, {0, 2}, {2, 0}}}) {
    const Inputs<T> in({.sequences = sequences, .heads = 2});
    on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in); },
                         [&](const Outputs& outputs) {
                           const auto& out = outputs.get<T>("out");
                           const auto& lse = outputs.get<Accumulator<T>>("lse");
                           expect_gaps_untouched<T>(out, {out_place(in)});
                           expect_gaps_untouched<Accumulator<T>>(lse, {lse_place(in)});
                           for (std::int64_t t = 0; t < in.cu_q.back(); ++t) {
                             for (std::int64_t h = 0; h < 2; ++h) ASSERT_EQ(lse[at(h, t, in.queries)], INFINITY);
                             for (std::int64_t c = 0; c < in.width; ++c) {
                               ASSERT_EQ(static_cast<Plain<T>>(out[at(t, c, in.width)]), 0);
                             }
                           }
                         });
  }
}

#ifdef LATHE_HAS_CUDA
TEST(AttentionForward, RefusesWhatItHasNoTilesFor) {
  AttentionForward<Bf16> args{};
  args.head_size = 64;
  args.query_tiles.rows = 64;
  EXPECT_THROW(attention_forward(CudaStream{}, args), std::invalid_argument);
  args.query_tiles.rows = 128;
  args.head_size = 257;
  EXPECT_THROW(attention_forward(CudaStream{}, args), std::invalid_argument);
}

/// The attention of packed sequences, one head of 64, in a QKV matrix whose rows begin `stride` elements apart.
Outputs run_packed(CudaStream stream, const std::vector<std::int32_t>& offsets, const Bf16* qkv, std::int64_t stride) {
  constexpr std::int64_t kWidth = 64;
  const std::int64_t tokens = offsets.back();
  std::vector<std::int32_t> sequence;
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b) sequence.push_back(static_cast<std::int32_t>(b));
  const Array<CudaStream, std::int32_t> cu_seqlens(offsets);
  const Array<CudaStream, std::int32_t> tile_sequence(sequence);
  const Array<CudaStream, std::int32_t> tile_first(std::vector<std::int32_t>(sequence.size(), 0));
  DeviceBuffer<Bf16> out(tokens * kWidth);
  DeviceBuffer<float> lse(tokens);
  attention_forward(stream, AttentionForward<Bf16>{.out = out.data(),
                                                   .lse = lse.data(),
                                                   .q = qkv,
                                                   .k = qkv + kWidth,
                                                   .v = qkv + 2 * kWidth,
                                                   .q_stride = stride,
                                                   .k_stride = stride,
                                                   .v_stride = stride,
                                                   .cu_q = cu_seqlens.data(),
                                                   .cu_k = cu_seqlens.data(),
                                                   .query_tiles = {.sequence = tile_sequence.data(),
                                                                   .first = tile_first.data(),
                                                                   .count = std::ssize(sequence),
                                                                   .rows = 128},
                                                   .dropout = {},
                                                   .mask = AttentionMask::full,
                                                   .scale = 0.125,
                                                   .queries = tokens,
                                                   .keys = tokens,
                                                   .sequences = std::ssize(sequence),
                                                   .heads = 1,
                                                   .head_size = kWidth});
  Outputs results;
  results.add("out", out.values("out"));
  results.add("lse", lse.values("lse"));
  return results;
}

TEST(AttentionForward, RowsLieBeyondTwoThousandMillionElements) {
  constexpr std::int64_t kRow = 3 * 64;
  const LargeMemory memory((kTwoThousandMillion + 1024) * static_cast<std::int64_t>(sizeof(Bf16)));
  if (!memory.there()) GTEST_SKIP() << "4 GiB of device memory are needed";
  const DeviceRuns runs;
  for (const auto& [offsets, stride] : large_layouts()) {
    SCOPED_TRACE(::testing::Message() << offsets.back() << " rows, " << stride << " elements apart");
    const std::vector<Bf16> qkv = random_values<Bf16>(offsets.back() * kRow, 5);
    // The tensor cores, and the plain kernel.
    for (const Placement placement : {Placement::aligned, Placement::shifted}) {
      place_buffers(placement);
      const DeviceBuffer<Bf16> compact(qkv);
      auto* const spread = reinterpret_cast<Bf16*>(memory.data()) + (placement == Placement::aligned ? 0 : 1);
      for (std::int64_t t = 0; t < offsets.back(); ++t)
        check(cudaMemcpy(spread + t * stride, qkv.data() + t * kRow, kRow * sizeof(Bf16), cudaMemcpyHostToDevice));
      const Outputs expected = run_packed(runs.stream(), offsets, compact.data(), kRow);
      EXPECT_EQ(expected.difference(run_packed(runs.stream(), offsets, spread, stride)), "");
    }
  }
}
#endif

}  // namespace
}  // namespace lathe::test
