#include "lathe/kernels/layernorm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class LayerNormKernel : public ::testing::Test {};
TYPED_TEST_SUITE(LayerNormKernel, Cases, CaseNames);

constexpr double kEpsilon = 1e-5;
constexpr std::uint32_t kThreshold = 13107;  // p = 0.2

struct Shape {
  std::int64_t tokens, channels;
};
constexpr Shape kShapes[] = {{0, 8}, {1, 1}, {1, 8}, {31, 17}, {33, 128}, {3, 129}, {70, 384}, {65, 760}};
// For every way in which CUDA threads share a row, wide and narrow, full and not.
constexpr Shape kMoreShapes[] = {{257, 24}, {9, 512},  {9, 768},  {9, 1024}, {9, 1000}, {9, 1003}, {9, 2048},
                                 {5, 1032}, {3, 4096}, {3, 2056}, {3, 8192}, {3, 4104}, {3, 5001}};

/// What stands before the normalization.
struct Before {
  bool bias, residual;
  std::uint32_t threshold;
};
constexpr Before kBefore[] = {{false, false, 0}, {true, false, 0},          {false, true, 0},          {false, false, kThreshold},
                              {true, true, 0},   {true, false, kThreshold}, {false, true, kThreshold}, {true, true, kThreshold}};

template <class T>
struct Inputs {
  std::int64_t tokens, channels;
  Before before;
  std::vector<T> x, bias, residual, gamma, beta;
  DropoutInputs dropout_inputs;
  Dropout dropout;

  Inputs(Shape shape, Before b, double mean = 0.3)
      : tokens(shape.tokens),
        channels(shape.channels),
        before(b),
        x(random_values<T>(tokens * channels, 1, mean)),
        bias(random_values<T>(channels, 2)),
        residual(random_values<T>(tokens * channels, 3)),
        gamma(random_values<T>(channels, 4, 1.0, 0.3)),
        beta(random_values<T>(channels, 5)),
        dropout_inputs(tokens),
        dropout(dropout_inputs.dropout(b.threshold)) {}
};

/// The definition, evaluated in A.
template <class A>
struct Normalized {
  std::vector<A> y, z, mean, rstd;

  template <class T>
  explicit Normalized(const Inputs<T>& in)
      : y(in.x.size()), z(in.x.size()), mean(static_cast<std::size_t>(in.tokens)), rstd(mean.size()) {
    for (std::int64_t t = 0; t < in.tokens; ++t) {
      const auto row = static_cast<std::size_t>(t);
      A sum{0};
      for (std::int64_t c = 0; c < in.channels; ++c) {
        const std::size_t i = at(t, c, in.channels);
        const auto column = static_cast<std::size_t>(c);
        A value = static_cast<A>(in.x[i]);
        if (in.before.bias) value += static_cast<A>(in.bias[column]);
        value *= dropout_multiplier<A>(in.dropout, t, c);
        if (in.before.residual) value += static_cast<A>(in.residual[i]);
        z[i] = value;
        sum += value;
      }
      mean[row] = sum / static_cast<A>(in.channels);
      A squares{0};
      for (std::int64_t c = 0; c < in.channels; ++c) {
        const A distance = z[at(t, c, in.channels)] - mean[row];
        squares += distance * distance;
      }
      rstd[row] = 1 / std::sqrt(squares / static_cast<A>(in.channels) + static_cast<A>(kEpsilon));
      for (std::int64_t c = 0; c < in.channels; ++c) {
        const auto column = static_cast<std::size_t>(c);
        const std::size_t i = at(t, c, in.channels);
        y[i] = static_cast<A>(in.gamma[column]) * ((z[i] - mean[row]) * rstd[row]) + static_cast<A>(in.beta[column]);
      }
    }
  }
};

/// Where the kernel puts z.
enum class PlaceOfZ { own, x, residual, nowhere };

template <class Stream, class T>
Outputs run_forward(Stream stream, const Inputs<T>& in, PlaceOfZ place) {
  Buffer<T, Stream> x(in.x);
  Buffer<T, Stream> residual(in.residual);
  const Buffer<T, Stream> bias(in.bias);
  const Buffer<T, Stream> gamma(in.gamma);
  const Buffer<T, Stream> beta(in.beta);
  Buffer<T, Stream> y(in.tokens * in.channels);
  Buffer<T, Stream> z(in.tokens * in.channels);
  Buffer<Accumulator<T>, Stream> mean(in.tokens);
  Buffer<Accumulator<T>, Stream> rstd(in.tokens);
  Buffer<T, Stream>& z_place = place == PlaceOfZ::x ? x : (place == PlaceOfZ::residual ? residual : z);
  DropoutArguments<Stream> dropout(in.dropout, in.tokens);
  layernorm_forward(stream, LayerNormForward<T>{.y = y.data(),
                                                .z = place == PlaceOfZ::nowhere ? nullptr : z_place.data(),
                                                .mean = mean.data(),
                                                .rstd = rstd.data(),
                                                .x = x.data(),
                                                .bias = in.before.bias ? bias.data() : nullptr,
                                                .residual = in.before.residual ? residual.data() : nullptr,
                                                .gamma = gamma.data(),
                                                .beta = beta.data(),
                                                .dropout = dropout.get(),
                                                .epsilon = kEpsilon,
                                                .tokens = in.tokens,
                                                .channels = in.channels});
  Outputs outputs;
  outputs.add("y", y.values("y"));
  outputs.add("mean", mean.values("mean"));
  outputs.add("rstd", rstd.values("rstd"));
  if (place != PlaceOfZ::nowhere) outputs.add("z", z_place.values("z"));
  return outputs;
}

template <class T>
void check_forward(const Inputs<T>& in, const Outputs& outputs) {
  const Normalized<Plain<T>> plain(in);
  const Normalized<Reference<T>> reference(in);
  expect_accurate<T>("y", outputs.get<T>("y"), plain.y, reference.y);
  expect_accurate<Accumulator<T>>("mean", outputs.get<Accumulator<T>>("mean"), plain.mean, reference.mean);
  expect_accurate<Accumulator<T>>("rstd", outputs.get<Accumulator<T>>("rstd"), plain.rstd, reference.rstd);
  if (outputs.has("z")) expect_accurate<T>("z", outputs.get<T>("z"), plain.z, reference.z);
}

TYPED_TEST(LayerNormKernel, ForwardFollowsTheDefinition) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape shape : kShapes) {
    for (const Before before : kBefore) {
      SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels << " bias " << before.bias
                                        << " residual " << before.residual << " threshold " << before.threshold);
      const Inputs<T> in(shape, before);
      for (const PlaceOfZ place : {PlaceOfZ::own, PlaceOfZ::x, PlaceOfZ::residual}) {
        if (place == PlaceOfZ::residual && !before.residual) continue;
        on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in, place); },
                             [&](const Outputs& outputs) { check_forward(in, outputs); });
      }
    }
  }
}

TYPED_TEST(LayerNormKernel, ForwardTakesRowsOfEveryLength) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape shape : kMoreShapes) {
    SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels);
    const Inputs<T> in(shape, {true, true, kThreshold});
    on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in, PlaceOfZ::own); },
                         [&](const Outputs& outputs) { check_forward(in, outputs); });
  }
}

TYPED_TEST(LayerNormKernel, ForwardAloneNeedsNoZ) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape shape : kShapes) {
    SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels);
    const Inputs<T> in(shape, {false, false, 0});
    on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in, PlaceOfZ::nowhere); },
                         [&](const Outputs& outputs) { check_forward(in, outputs); });
  }
}

// The variance of numbers around 1,000 must not drown in their squares.
TYPED_TEST(LayerNormKernel, ForwardStandsALargeMean) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Inputs<T> in({5, 384}, {true, true, 0}, 1000.0);
  on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in, PlaceOfZ::own); },
                       [&](const Outputs& outputs) { check_forward(in, outputs); });
}

TYPED_TEST(LayerNormKernel, NanFillsItsRowAndNoOther) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Inputs<T> in({4, 200}, {true, true, kThreshold});
  in.x[at(2, 150, 200)] = static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN());
  on_every_way<Stream>([&](Stream stream) { return run_forward(stream, in, PlaceOfZ::own); },
                       [&](const Outputs& outputs) {
                         for (std::int64_t t = 0; t < 4; ++t) {
                           for (std::int64_t c = 0; c < 200; ++c) {
                             ASSERT_EQ(std::isnan(static_cast<Plain<T>>(outputs.get<T>("y")[at(t, c, 200)])), t == 2);
                           }
                         }
                       });
}

struct Uses {
  Use x, residual, bias, gamma, beta;
};

/// What backward is given, and what lay in its destinations.
template <class T>
struct BackwardInputs {
  Inputs<T> in;
  std::vector<T> z;
  std::vector<Accumulator<T>> mean, rstd;
  std::vector<T> d_y, x_before, residual_before;
  std::vector<Accumulator<T>> bias_before, gamma_before, beta_before;

  BackwardInputs(Shape shape, std::uint32_t threshold)
      : in(shape, {true, true, threshold}),
        d_y(random_values<T>(in.tokens * in.channels, 11, 0.1)),
        x_before(random_values<T>(in.tokens * in.channels, 12)),
        residual_before(random_values<T>(in.tokens * in.channels, 13)),
        bias_before(random_values<Accumulator<T>>(in.channels, 14)),
        gamma_before(random_values<Accumulator<T>>(in.channels, 15)),
        beta_before(random_values<Accumulator<T>>(in.channels, 16)) {
    const Normalized<Plain<T>> saved(in);
    for (const Plain<T> value : saved.z) z.push_back(static_cast<T>(value));
    mean = saved.mean;
    rstd = saved.rstd;
  }
};

/// The gradients by their definition, evaluated in A.
template <class A>
struct Gradients {
  std::vector<A> d_x, d_residual, d_bias, d_gamma, d_beta;

  template <class T>
  Gradients(const BackwardInputs<T>& b, Uses uses)
      : d_x(b.d_y.size()),
        d_residual(b.d_y.size()),
        d_bias(b.bias_before.size(), A{0}),
        d_gamma(b.bias_before.size(), A{0}),
        d_beta(b.bias_before.size(), A{0}) {
    const std::int64_t channels = b.in.channels;
    for (std::int64_t t = 0; t < b.in.tokens; ++t) {
      const auto mean = static_cast<A>(b.mean[static_cast<std::size_t>(t)]);
      const auto rstd = static_cast<A>(b.rstd[static_cast<std::size_t>(t)]);
      A sum_g{0};
      A sum_g_n{0};
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::size_t i = at(t, c, channels);
        const auto column = static_cast<std::size_t>(c);
        const A n = (static_cast<A>(b.z[i]) - mean) * rstd;
        const A g = static_cast<A>(b.d_y[i]) * static_cast<A>(b.in.gamma[column]);
        sum_g += g;
        sum_g_n += g * n;
        d_gamma[column] += static_cast<A>(b.d_y[i]) * n;
        d_beta[column] += static_cast<A>(b.d_y[i]);
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::size_t i = at(t, c, channels);
        const auto column = static_cast<std::size_t>(c);
        const A n = (static_cast<A>(b.z[i]) - mean) * rstd;
        const A g = static_cast<A>(b.d_y[i]) * static_cast<A>(b.in.gamma[column]);
        const A d_z = rstd * (g - sum_g / static_cast<A>(channels) - n * (sum_g_n / static_cast<A>(channels)));
        const A through = d_z * dropout_multiplier<A>(b.in.dropout, t, c);
        d_x[i] = used<A>(uses.x, b.x_before[i], through);
        d_residual[i] = used<A>(uses.residual, b.residual_before[i], d_z);
        d_bias[column] += through;
      }
    }
    for (std::size_t c = 0; c < d_bias.size(); ++c) {
      d_bias[c] = used<A>(uses.bias, b.bias_before[c], d_bias[c]);
      d_gamma[c] = used<A>(uses.gamma, b.gamma_before[c], d_gamma[c]);
      d_beta[c] = used<A>(uses.beta, b.beta_before[c], d_beta[c]);
    }
  }
};

/// Which destination lies in d_y's memory.
enum class PlaceOfGradient { own, d_x_is_d_y, d_residual_is_d_y };

/// A destination: poison where it is written, what lay there before otherwise.
template <class Stream, class T>
Buffer<T, Stream> destination(Use use, const std::vector<T>& before) {
  return use == Use::write ? Buffer<T, Stream>(static_cast<std::int64_t>(before.size())) : Buffer<T, Stream>(before);
}

/// A skipped destination is given as null where `skipped_is_null`.
template <class Stream, class T>
Outputs run_backward(Stream stream, const BackwardInputs<T>& b, Uses uses, PlaceOfGradient place, bool skipped_is_null) {
  Buffer<T, Stream> d_y(b.d_y);
  Buffer<T, Stream> d_x = destination<Stream>(uses.x, b.x_before);
  Buffer<T, Stream> d_residual = destination<Stream>(uses.residual, b.residual_before);
  Buffer<Accumulator<T>, Stream> d_bias = destination<Stream>(uses.bias, b.bias_before);
  Buffer<Accumulator<T>, Stream> d_gamma = destination<Stream>(uses.gamma, b.gamma_before);
  Buffer<Accumulator<T>, Stream> d_beta = destination<Stream>(uses.beta, b.beta_before);
  Buffer<T, Stream>& x_place = place == PlaceOfGradient::d_x_is_d_y ? d_y : d_x;
  Buffer<T, Stream>& residual_place = place == PlaceOfGradient::d_residual_is_d_y ? d_y : d_residual;
  const Buffer<T, Stream> z(b.z);
  const Buffer<Accumulator<T>, Stream> mean(b.mean);
  const Buffer<Accumulator<T>, Stream> rstd(b.rstd);
  const Buffer<T, Stream> gamma(b.in.gamma);
  DropoutArguments<Stream> dropout(b.in.dropout, b.in.tokens);
  Workspace<Stream> workspace(layernorm_backward_workspace<T>(b.in.tokens, b.in.channels));
  const auto given = [&](Use use, auto& buffer) { return use == Use::skip && skipped_is_null ? nullptr : buffer.data(); };
  layernorm_backward(stream, LayerNormBackward<T>{.d_x = given(uses.x, x_place),
                                                  .use_x = uses.x,
                                                  .d_residual = given(uses.residual, residual_place),
                                                  .use_residual = uses.residual,
                                                  .d_bias = given(uses.bias, d_bias),
                                                  .use_bias = uses.bias,
                                                  .d_gamma = given(uses.gamma, d_gamma),
                                                  .use_gamma = uses.gamma,
                                                  .d_beta = given(uses.beta, d_beta),
                                                  .use_beta = uses.beta,
                                                  .d_y = d_y.data(),
                                                  .z = z.data(),
                                                  .mean = mean.data(),
                                                  .rstd = rstd.data(),
                                                  .gamma = gamma.data(),
                                                  .dropout = dropout.get(),
                                                  .workspace = workspace.data(),
                                                  .tokens = b.in.tokens,
                                                  .channels = b.in.channels});
  workspace.expect_intact();
  Outputs outputs;
  outputs.add("d_x", x_place.values("d_x"));
  outputs.add("d_residual", residual_place.values("d_residual"));
  outputs.add("d_bias", d_bias.values("d_bias"));
  outputs.add("d_gamma", d_gamma.values("d_gamma"));
  outputs.add("d_beta", d_beta.values("d_beta"));
  return outputs;
}

template <class T>
void check_backward(const BackwardInputs<T>& b, Uses uses, const Outputs& outputs) {
  const Gradients<Plain<T>> plain(b, uses);
  const Gradients<Reference<T>> reference(b, uses);
  expect_accurate<T>("d_x", outputs.get<T>("d_x"), plain.d_x, reference.d_x);
  expect_accurate<T>("d_residual", outputs.get<T>("d_residual"), plain.d_residual, reference.d_residual);
  using A = Accumulator<T>;
  expect_accurate<A>("d_bias", outputs.get<A>("d_bias"), plain.d_bias, reference.d_bias);
  expect_accurate<A>("d_gamma", outputs.get<A>("d_gamma"), plain.d_gamma, reference.d_gamma);
  expect_accurate<A>("d_beta", outputs.get<A>("d_beta"), plain.d_beta, reference.d_beta);
}

// No single channel: its variance is 0, its gradient nothing but rounding errors times 1 / sqrt(epsilon). The last has as many
// parts as there can be, of unequal numbers of rows.
constexpr Shape kBackwardShapes[] = {{0, 8}, {1, 8}, {31, 17}, {33, 128}, {3, 129}, {70, 384}, {65, 760}, {8300, 16}};

TYPED_TEST(LayerNormKernel, BackwardFollowsTheDefinition) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Uses uses{Use::write, Use::write, Use::write, Use::write, Use::write};
  for (const Shape shape : kBackwardShapes) {
    for (const std::uint32_t threshold : {0U, kThreshold}) {
      SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels << " threshold " << threshold);
      const BackwardInputs<T> b(shape, threshold);
      for (const PlaceOfGradient place :
           {PlaceOfGradient::own, PlaceOfGradient::d_x_is_d_y, PlaceOfGradient::d_residual_is_d_y}) {
        on_every_way<Stream>([&](Stream stream) { return run_backward(stream, b, uses, place, false); },
                             [&](const Outputs& outputs) { check_backward(b, uses, outputs); });
      }
    }
  }
}

TYPED_TEST(LayerNormKernel, BackwardTakesRowsOfEveryLength) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Uses uses{Use::write, Use::write, Use::write, Use::write, Use::write};
  for (const Shape shape : kMoreShapes) {
    SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels);
    const BackwardInputs<T> b(shape, kThreshold);
    on_every_way<Stream>([&](Stream stream) { return run_backward(stream, b, uses, PlaceOfGradient::own, false); },
                         [&](const Outputs& outputs) { check_backward(b, uses, outputs); });
  }
}

TYPED_TEST(LayerNormKernel, BackwardWritesAddsOrSkipsEachGradient) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const BackwardInputs<T> b({33, 140}, kThreshold);
  constexpr Use kAll[] = {Use::skip, Use::write, Use::add};
  for (int i = 0; i < 3 * 3 * 3; ++i) {
    // x and residual in all pairs; the parameters' uses run against each other.
    const Uses uses{kAll[i % 3], kAll[i / 3 % 3], kAll[i / 9], kAll[(i + 1) % 3], kAll[(i / 3 + i / 9) % 3]};
    SCOPED_TRACE(::testing::Message() << "d_x " << use_name(uses.x) << " d_residual " << use_name(uses.residual) << " d_bias "
                                      << use_name(uses.bias) << " d_gamma " << use_name(uses.gamma) << " d_beta "
                                      << use_name(uses.beta));
    for (const bool skipped_is_null : {false, true}) {
      on_every_way<Stream>([&](Stream stream) { return run_backward(stream, b, uses, PlaceOfGradient::own, skipped_is_null); },
                           [&](const Outputs& outputs) { check_backward(b, uses, outputs); });
    }
  }
}

// A tensor that is both x and residual has one gradient: first d_x's use, then d_residual's.
TYPED_TEST(LayerNormKernel, BackwardOfOneTensorTwiceWritesThenAdds) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const BackwardInputs<T> b({40, 129}, 0);
  const Uses once{Use::write, Use::write, Use::skip, Use::skip, Use::skip};
  const Gradients<Plain<T>> plain_once(b, once);
  const Gradients<Reference<T>> exact_once(b, once);
  for (const Use first : {Use::write, Use::add}) {
    SCOPED_TRACE(use_name(first));
    std::vector<Plain<T>> plain(b.d_y.size());
    std::vector<Reference<T>> reference(b.d_y.size());
    for (std::size_t i = 0; i < plain.size(); ++i) {
      plain[i] = used<Plain<T>>(first, b.x_before[i], plain_once.d_x[i]) + plain_once.d_residual[i];
      reference[i] = used<Reference<T>>(first, b.x_before[i], exact_once.d_x[i]) + exact_once.d_residual[i];
    }
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> d_y(b.d_y);
          Buffer<T, Stream> d_both = destination<Stream>(first, b.x_before);
          const Buffer<T, Stream> z(b.z);
          const Buffer<Accumulator<T>, Stream> mean(b.mean);
          const Buffer<Accumulator<T>, Stream> rstd(b.rstd);
          const Buffer<T, Stream> gamma(b.in.gamma);
          Workspace<Stream> workspace(layernorm_backward_workspace<T>(b.in.tokens, b.in.channels));
          layernorm_backward(stream, LayerNormBackward<T>{.d_x = d_both.data(),
                                                          .use_x = first,
                                                          .d_residual = d_both.data(),
                                                          .use_residual = Use::add,
                                                          .d_bias = nullptr,
                                                          .use_bias = Use::skip,
                                                          .d_gamma = nullptr,
                                                          .use_gamma = Use::skip,
                                                          .d_beta = nullptr,
                                                          .use_beta = Use::skip,
                                                          .d_y = d_y.data(),
                                                          .z = z.data(),
                                                          .mean = mean.data(),
                                                          .rstd = rstd.data(),
                                                          .gamma = gamma.data(),
                                                          .dropout = {},
                                                          .workspace = workspace.data(),
                                                          .tokens = b.in.tokens,
                                                          .channels = b.in.channels});
          Outputs outputs;
          outputs.add("d_both", d_both.values("d_both"));
          return outputs;
        },
        [&](const Outputs& outputs) { expect_accurate<T>("d_both", outputs.get<T>("d_both"), plain, reference); });
  }
}

#ifdef LATHE_HAS_CUDA
TEST(LayerNormRows, TooLongForCudaAreRefused) {
  LayerNormForward<float> args{};
  args.tokens = 1;
  args.channels = 8193;
  EXPECT_THROW(layernorm_forward(CudaStream{}, args), std::invalid_argument);
}
#endif

TEST(LayerNormParts, AreAFunctionOfTheTokensAlone) {
  EXPECT_EQ(row_parts(0), 1);
  EXPECT_EQ(row_parts(32), 1);
  EXPECT_EQ(row_parts(33), 2);
  EXPECT_EQ(row_parts(2048), 64);
  EXPECT_EQ(row_parts(1000000), 240);
  EXPECT_EQ(layernorm_backward_workspace<float>(33, 10), 2 * 3 * 10 * 4);
}

}  // namespace
}  // namespace lathe::test
