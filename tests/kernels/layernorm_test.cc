#include "lathe/kernels/layernorm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class LayerNormKernel : public ::testing::Test {};
TYPED_TEST_SUITE(LayerNormKernel, Dtypes);

constexpr double kEpsilon = 1e-5;
constexpr std::uint32_t kThreshold = 13107;  // p = 0.2

struct Shape {
  std::int64_t tokens, channels;
};
constexpr Shape kShapes[] = {{0, 8}, {1, 1}, {1, 8}, {31, 17}, {33, 128}, {3, 129}, {70, 384}, {65, 760}};

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

template <class T>
Results<T> run_forward(CpuStream stream, const Inputs<T>& in, PlaceOfZ place) {
  Buffer<T> x(in.x);
  Buffer<T> residual(in.residual);
  const Buffer<T> bias(in.bias);
  const Buffer<T> gamma(in.gamma);
  const Buffer<T> beta(in.beta);
  Buffer<T> y(in.tokens * in.channels);
  Buffer<T> z(in.tokens * in.channels);
  Buffer<T> mean(in.tokens);
  Buffer<T> rstd(in.tokens);
  Buffer<T>& z_place = place == PlaceOfZ::x ? x : (place == PlaceOfZ::residual ? residual : z);
  layernorm_forward(stream, LayerNormForward<T>{.y = y.data(),
                                                .z = place == PlaceOfZ::nowhere ? nullptr : z_place.data(),
                                                .mean = mean.data(),
                                                .rstd = rstd.data(),
                                                .x = x.data(),
                                                .bias = in.before.bias ? bias.data() : nullptr,
                                                .residual = in.before.residual ? residual.data() : nullptr,
                                                .gamma = gamma.data(),
                                                .beta = beta.data(),
                                                .dropout = in.dropout,
                                                .epsilon = kEpsilon,
                                                .tokens = in.tokens,
                                                .channels = in.channels});
  Results<T> results = {{"y", y.values("y")}, {"mean", mean.values("mean")}, {"rstd", rstd.values("rstd")}};
  if (place != PlaceOfZ::nowhere) results.emplace_back("z", z_place.values("z"));
  return results;
}

template <class T>
void check_forward(const Inputs<T>& in, const Results<T>& results) {
  const Normalized<T> plain(in);
  const Normalized<Reference<T>> reference(in);
  expect_accurate<T>("y", results[0].second, plain.y, reference.y);
  expect_accurate<T>("mean", results[1].second, plain.mean, reference.mean);
  expect_accurate<T>("rstd", results[2].second, plain.rstd, reference.rstd);
  if (results.size() > 3) expect_accurate<T>("z", results[3].second, plain.z, reference.z);
}

TYPED_TEST(LayerNormKernel, ForwardFollowsTheDefinition) {
  using T = TypeParam;
  for (const Shape shape : kShapes) {
    for (const Before before : kBefore) {
      SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels << " bias " << before.bias
                                        << " residual " << before.residual << " threshold " << before.threshold);
      const Inputs<T> in(shape, before);
      for (const PlaceOfZ place : {PlaceOfZ::own, PlaceOfZ::x, PlaceOfZ::residual}) {
        if (place == PlaceOfZ::residual && !before.residual) continue;
        on_every_target<T>([&](CpuStream stream) { return run_forward(stream, in, place); },
                           [&](const Results<T>& results) { check_forward(in, results); });
      }
    }
  }
}

TYPED_TEST(LayerNormKernel, ForwardAloneNeedsNoZ) {
  using T = TypeParam;
  for (const Shape shape : kShapes) {
    SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels);
    const Inputs<T> in(shape, {false, false, 0});
    on_every_target<T>([&](CpuStream stream) { return run_forward(stream, in, PlaceOfZ::nowhere); },
                       [&](const Results<T>& results) { check_forward(in, results); });
  }
}

// The variance of numbers around 1,000 must not drown in their squares.
TYPED_TEST(LayerNormKernel, ForwardStandsALargeMean) {
  using T = TypeParam;
  const Inputs<T> in({5, 384}, {true, true, 0}, 1000.0);
  on_every_target<T>([&](CpuStream stream) { return run_forward(stream, in, PlaceOfZ::own); },
                     [&](const Results<T>& results) { check_forward(in, results); });
}

TYPED_TEST(LayerNormKernel, NanFillsItsRowAndNoOther) {
  using T = TypeParam;
  Inputs<T> in({4, 200}, {true, true, kThreshold});
  in.x[at(2, 150, 200)] = std::numeric_limits<T>::quiet_NaN();
  on_every_target<T>([&](CpuStream stream) { return run_forward(stream, in, PlaceOfZ::own); },
                     [&](const Results<T>& results) {
                       for (std::int64_t t = 0; t < 4; ++t) {
                         for (std::int64_t c = 0; c < 200; ++c) ASSERT_EQ(std::isnan(results[0].second[at(t, c, 200)]), t == 2);
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
  Normalized<T> saved;
  std::vector<T> d_y, x_before, residual_before, bias_before, gamma_before, beta_before;

  BackwardInputs(Shape shape, std::uint32_t threshold)
      : in(shape, {true, true, threshold}),
        saved(in),
        d_y(random_values<T>(in.tokens * in.channels, 11, 0.1)),
        x_before(random_values<T>(in.tokens * in.channels, 12)),
        residual_before(random_values<T>(in.tokens * in.channels, 13)),
        bias_before(random_values<T>(in.channels, 14)),
        gamma_before(random_values<T>(in.channels, 15)),
        beta_before(random_values<T>(in.channels, 16)) {}
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
      const auto mean = static_cast<A>(b.saved.mean[static_cast<std::size_t>(t)]);
      const auto rstd = static_cast<A>(b.saved.rstd[static_cast<std::size_t>(t)]);
      A sum_g{0};
      A sum_g_n{0};
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::size_t i = at(t, c, channels);
        const auto column = static_cast<std::size_t>(c);
        const A n = (static_cast<A>(b.saved.z[i]) - mean) * rstd;
        const A g = static_cast<A>(b.d_y[i]) * static_cast<A>(b.in.gamma[column]);
        sum_g += g;
        sum_g_n += g * n;
        d_gamma[column] += static_cast<A>(b.d_y[i]) * n;
        d_beta[column] += static_cast<A>(b.d_y[i]);
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::size_t i = at(t, c, channels);
        const auto column = static_cast<std::size_t>(c);
        const A n = (static_cast<A>(b.saved.z[i]) - mean) * rstd;
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
template <class T>
Buffer<T> destination(Use use, const std::vector<T>& before) {
  return use == Use::write ? Buffer<T>(static_cast<std::int64_t>(before.size())) : Buffer<T>(before);
}

/// A skipped destination is given as null where `skipped_is_null`.
template <class T>
Results<T> run_backward(CpuStream stream, const BackwardInputs<T>& b, Uses uses, PlaceOfGradient place, bool skipped_is_null) {
  Buffer<T> d_y(b.d_y);
  Buffer<T> d_x = destination(uses.x, b.x_before);
  Buffer<T> d_residual = destination(uses.residual, b.residual_before);
  Buffer<T> d_bias = destination(uses.bias, b.bias_before);
  Buffer<T> d_gamma = destination(uses.gamma, b.gamma_before);
  Buffer<T> d_beta = destination(uses.beta, b.beta_before);
  Buffer<T>& x_place = place == PlaceOfGradient::d_x_is_d_y ? d_y : d_x;
  Buffer<T>& residual_place = place == PlaceOfGradient::d_residual_is_d_y ? d_y : d_residual;
  const Buffer<T> z(b.saved.z);
  const Buffer<T> mean(b.saved.mean);
  const Buffer<T> rstd(b.saved.rstd);
  const Buffer<T> gamma(b.in.gamma);
  Workspace workspace(layernorm_backward_workspace<T>(b.in.tokens, b.in.channels));
  const auto given = [&](Use use, Buffer<T>& buffer) { return use == Use::skip && skipped_is_null ? nullptr : buffer.data(); };
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
                                                  .dropout = b.in.dropout,
                                                  .workspace = workspace.data(),
                                                  .tokens = b.in.tokens,
                                                  .channels = b.in.channels});
  workspace.expect_intact();
  return {{"d_x", x_place.values("d_x")},
          {"d_residual", residual_place.values("d_residual")},
          {"d_bias", d_bias.values("d_bias")},
          {"d_gamma", d_gamma.values("d_gamma")},
          {"d_beta", d_beta.values("d_beta")}};
}

template <class T>
void check_backward(const BackwardInputs<T>& b, Uses uses, const Results<T>& results) {
  const Gradients<T> plain(b, uses);
  const Gradients<Reference<T>> reference(b, uses);
  expect_accurate<T>("d_x", results[0].second, plain.d_x, reference.d_x);
  expect_accurate<T>("d_residual", results[1].second, plain.d_residual, reference.d_residual);
  expect_accurate<T>("d_bias", results[2].second, plain.d_bias, reference.d_bias);
  expect_accurate<T>("d_gamma", results[3].second, plain.d_gamma, reference.d_gamma);
  expect_accurate<T>("d_beta", results[4].second, plain.d_beta, reference.d_beta);
}

// No single channel: its variance is 0, its gradient nothing but rounding errors times 1 / sqrt(epsilon). The last has as many
// parts as there can be, of unequal numbers of rows.
constexpr Shape kBackwardShapes[] = {{0, 8}, {1, 8}, {31, 17}, {33, 128}, {3, 129}, {70, 384}, {65, 760}, {8300, 16}};

TYPED_TEST(LayerNormKernel, BackwardFollowsTheDefinition) {
  using T = TypeParam;
  const Uses uses{Use::write, Use::write, Use::write, Use::write, Use::write};
  for (const Shape shape : kBackwardShapes) {
    for (const std::uint32_t threshold : {0U, kThreshold}) {
      SCOPED_TRACE(::testing::Message() << "T " << shape.tokens << " C " << shape.channels << " threshold " << threshold);
      const BackwardInputs<T> b(shape, threshold);
      for (const PlaceOfGradient place :
           {PlaceOfGradient::own, PlaceOfGradient::d_x_is_d_y, PlaceOfGradient::d_residual_is_d_y}) {
        on_every_target<T>([&](CpuStream stream) { return run_backward(stream, b, uses, place, false); },
                           [&](const Results<T>& results) { check_backward(b, uses, results); });
      }
    }
  }
}

TYPED_TEST(LayerNormKernel, BackwardWritesAddsOrSkipsEachGradient) {
  using T = TypeParam;
  const BackwardInputs<T> b({33, 140}, kThreshold);
  constexpr Use kAll[] = {Use::skip, Use::write, Use::add};
  for (int i = 0; i < 3 * 3 * 3; ++i) {
    // x and residual in all pairs; the parameters' uses run against each other.
    const Uses uses{kAll[i % 3], kAll[i / 3 % 3], kAll[i / 9], kAll[(i + 1) % 3], kAll[(i / 3 + i / 9) % 3]};
    SCOPED_TRACE(::testing::Message() << "d_x " << use_name(uses.x) << " d_residual " << use_name(uses.residual) << " d_bias "
                                      << use_name(uses.bias) << " d_gamma " << use_name(uses.gamma) << " d_beta "
                                      << use_name(uses.beta));
    for (const bool skipped_is_null : {false, true}) {
      on_every_target<T>([&](CpuStream stream) { return run_backward(stream, b, uses, PlaceOfGradient::own, skipped_is_null); },
                         [&](const Results<T>& results) { check_backward(b, uses, results); });
    }
  }
}

// A tensor that is both x and residual has one gradient: first d_x's use, then d_residual's.
TYPED_TEST(LayerNormKernel, BackwardOfOneTensorTwiceWritesThenAdds) {
  using T = TypeParam;
  const BackwardInputs<T> b({40, 129}, 0);
  const Gradients<T> once(b, {Use::write, Use::write, Use::skip, Use::skip, Use::skip});
  for (const Use first : {Use::write, Use::add}) {
    SCOPED_TRACE(use_name(first));
    std::vector<T> plain(b.d_y.size());
    std::vector<Reference<T>> reference(b.d_y.size());
    const Gradients<Reference<T>> exact(b, {Use::write, Use::write, Use::skip, Use::skip, Use::skip});
    for (std::size_t i = 0; i < plain.size(); ++i) {
      plain[i] = used<T>(first, b.x_before[i], once.d_x[i]) + once.d_residual[i];
      reference[i] = used<Reference<T>>(first, b.x_before[i], exact.d_x[i]) + exact.d_residual[i];
    }
    on_every_target<T>(
        [&](CpuStream stream) -> Results<T> {
          const Buffer<T> d_y(b.d_y);
          Buffer<T> d_both = destination(first, b.x_before);
          const Buffer<T> z(b.saved.z);
          const Buffer<T> mean(b.saved.mean);
          const Buffer<T> rstd(b.saved.rstd);
          const Buffer<T> gamma(b.in.gamma);
          Workspace workspace(layernorm_backward_workspace<T>(b.in.tokens, b.in.channels));
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
          return {{"d_both", d_both.values("d_both")}};
        },
        [&](const Results<T>& results) { expect_accurate<T>("d_both", results[0].second, plain, reference); });
  }
}

TEST(LayerNormParts, AreAFunctionOfTheTokensAlone) {
  EXPECT_EQ(row_parts(0), 1);
  EXPECT_EQ(row_parts(32), 1);
  EXPECT_EQ(row_parts(33), 2);
  EXPECT_EQ(row_parts(2048), 64);
  EXPECT_EQ(row_parts(1000000), 256);
  EXPECT_EQ(layernorm_backward_workspace<float>(33, 10), 2 * 3 * 10 * 4);
}

}  // namespace
}  // namespace lathe::test
