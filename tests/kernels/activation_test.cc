#include "lathe/kernels/activation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class ActivationKernel : public ::testing::Test {};
TYPED_TEST_SUITE(ActivationKernel, Dtypes);

constexpr Activation kActivations[] = {Activation::gelu_erf, Activation::gelu_tanh, Activation::relu,
                                       Activation::tanh,     Activation::sigmoid,   Activation::silu};

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::gelu_erf:
      return "gelu_erf";
    case Activation::gelu_tanh:
      return "gelu_tanh";
    case Activation::relu:
      return "relu";
    case Activation::tanh:
      return "tanh";
    case Activation::sigmoid:
      return "sigmoid";
    case Activation::silu:
      return "silu";
  }
  return "?";
}

constexpr long double kRootHalf = 0.70710678118654752440084436210485L;
constexpr long double kRootTwoOverPi = 0.79788456080286535587989211986876L;

/// 1 + erf(x) and 1 + tanh(x): as they stand in T, without cancellation in the reference.
template <class A, class T>
A one_plus_erf(A x) {
  return std::is_same_v<A, T> ? 1 + std::erf(x) : std::erfc(-x);
}
template <class A, class T>
A one_plus_tanh(A x) {
  return std::is_same_v<A, T> ? 1 + std::tanh(x) : 2 / (1 + std::exp(-2 * x));
}

/// The formulas as the books have them, evaluated in A to judge a kernel for T.
template <class A, class T>
A activate(Activation activation, A x) {
  switch (activation) {
    case Activation::gelu_erf:
      return x / 2 * one_plus_erf<A, T>(x * static_cast<A>(kRootHalf));
    case Activation::gelu_tanh:
      return x / 2 * one_plus_tanh<A, T>(static_cast<A>(kRootTwoOverPi) * (x + static_cast<A>(0.044715L) * x * x * x));
    case Activation::relu:
      return x < 0 ? A{0} : x;
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

template <class A, class T>
A derivative(Activation activation, A x) {
  switch (activation) {
    case Activation::gelu_erf: {
      const A density = static_cast<A>(kRootTwoOverPi) / 2 * std::exp(-x * x / 2);
      return one_plus_erf<A, T>(x * static_cast<A>(kRootHalf)) / 2 + x * density;
    }
    case Activation::gelu_tanh: {
      const A cubic = static_cast<A>(0.044715L) * x * x;
      const A u = static_cast<A>(kRootTwoOverPi) * x * (1 + cubic);
      const A slope = static_cast<A>(kRootTwoOverPi) * (1 + 3 * cubic);
      return one_plus_tanh<A, T>(u) / 2 + x / 2 * one_plus_tanh<A, T>(u) * one_plus_tanh<A, T>(-u) * slope;
    }
    case Activation::relu:
      return x > 0 ? A{1} : (x <= 0 ? A{0} : x);
    case Activation::tanh:
      return one_plus_tanh<A, T>(x) * one_plus_tanh<A, T>(-x);
    case Activation::sigmoid: {
      const A s = 1 / (1 + std::exp(-x));
      return s * (1 - s);
    }
    case Activation::silu: {
      const A s = 1 / (1 + std::exp(-x));
      return s * (1 + x * (1 - s));
    }
  }
  return x;
}

struct Shape {
  std::int64_t tokens, channels;
};
constexpr Shape kShapes[] = {{0, 3}, {1, 1}, {3, 17}, {33, 128}, {31, 129}, {71, 300}};

template <class A, class T>
std::vector<A> forward(Activation activation, const std::vector<T>& x, const std::vector<T>& bias) {
  std::vector<A> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] = activate<A, T>(activation,
                          bias.empty() ? static_cast<A>(x[i]) : static_cast<A>(x[i]) + static_cast<A>(bias[i % bias.size()]));
  }
  return y;
}

TYPED_TEST(ActivationKernel, ForwardFollowsTheFormula) {
  using T = TypeParam;
  for (const Activation activation : kActivations) {
    for (const Shape& shape : kShapes) {
      const std::int64_t tokens = shape.tokens;
      const std::int64_t channels = shape.channels;
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(::testing::Message() << activation_name(activation) << " T " << tokens << " F " << channels << " bias "
                                          << with_bias);
        const std::vector<T> x = random_values<T>(tokens * channels, 1, 0.0, 2.0);
        const std::vector<T> bias = with_bias ? random_values<T>(channels, 2) : std::vector<T>{};
        on_every_target<T>(
            [&](CpuStream stream) -> Results<T> {
              const Buffer<T> input(x);
              const Buffer<T> b(bias);
              Buffer<T> y(tokens * channels);
              Buffer<T> in_place(x);
              ActivationForward<T> args{.y = y.data(),
                                        .x = input.data(),
                                        .bias = with_bias ? b.data() : nullptr,
                                        .activation = activation,
                                        .tokens = tokens,
                                        .channels = channels};
              activation_forward(stream, args);
              args.y = in_place.data();
              args.x = in_place.data();
              activation_forward(stream, args);
              return {{"y", y.values("y")}, {"y in place", in_place.values("y in place")}};
            },
            [&](const Results<T>& results) {
              for (const auto& [what, values] : results) {
                expect_accurate<T>(what, values, forward<T>(activation, x, bias), forward<Reference<T>>(activation, x, bias));
              }
            });
      }
    }
  }
}

// Where the argument is large or small no other element may hide an error: each run of x is judged alone.
TYPED_TEST(ActivationKernel, AccurateOnEveryStretchOfTheLine) {
  using T = TypeParam;
  const std::int64_t count = 4096;
  for (const Activation activation : kActivations) {
    for (double from = -12.0; from < 12.0; from += 0.5) {
      SCOPED_TRACE(::testing::Message() << activation_name(activation) << " from " << from);
      std::vector<T> x(static_cast<std::size_t>(count));
      for (std::int64_t i = 0; i < count; ++i)
        x[static_cast<std::size_t>(i)] = static_cast<T>(from + 0.5 * static_cast<double>(i) / count);
      std::vector<T> slope(x.size());
      std::vector<Reference<T>> exact_slope(x.size());
      std::transform(x.begin(), x.end(), slope.begin(), [&](T v) { return derivative<T, T>(activation, v); });
      std::transform(x.begin(), x.end(), exact_slope.begin(),
                     [&](T v) { return derivative<Reference<T>, T>(activation, static_cast<Reference<T>>(v)); });
      on_every_target<T>(
          [&](CpuStream stream) -> Results<T> {
            const Buffer<T> input(x);
            const Buffer<T> ones(std::vector<T>(x.size(), T{1}));
            Buffer<T> y(count);
            Buffer<T> d_x(count);
            activation_forward(
                stream,
                ActivationForward<T>{
                    .y = y.data(), .x = input.data(), .bias = nullptr, .activation = activation, .tokens = 1, .channels = count});
            activation_backward(stream, ActivationBackward<T>{.d_x = d_x.data(),
                                                              .use_x = Use::write,
                                                              .d_bias = nullptr,
                                                              .use_bias = Use::skip,
                                                              .d_y = ones.data(),
                                                              .x = input.data(),
                                                              .bias = nullptr,
                                                              .activation = activation,
                                                              .workspace = nullptr,
                                                              .tokens = 1,
                                                              .channels = count});
            return {{"y", y.values("y")}, {"d_x", d_x.values("d_x")}};
          },
          [&](const Results<T>& results) {
            expect_accurate<T>("y", results[0].second, forward<T>(activation, x, std::vector<T>{}),
                               forward<Reference<T>>(activation, x, std::vector<T>{}));
            expect_accurate<T>("d_x", results[1].second, slope, exact_slope);
          });
    }
  }
}

/// d_x and d_bias in A.
template <class A, class T>
struct Gradients {
  std::vector<A> d_x, d_bias;

  Gradients(Activation activation, Use use_x, Use use_bias, const std::vector<T>& d_y, const std::vector<T>& x,
            const std::vector<T>& bias, const std::vector<T>& x_before, const std::vector<T>& bias_before)
      : d_x(x.size()), d_bias(bias.size(), A{0}) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t f = i % bias.size();
      const A d = static_cast<A>(d_y[i]) * derivative<A, T>(activation, static_cast<A>(x[i]) + static_cast<A>(bias[f]));
      d_x[i] = used<A>(use_x, x_before[i], d);
      d_bias[f] += d;
    }
    for (std::size_t f = 0; f < bias.size(); ++f) d_bias[f] = used<A>(use_bias, bias_before[f], d_bias[f]);
  }
};

TYPED_TEST(ActivationKernel, BackwardWritesAddsOrSkipsEachGradient) {
  using T = TypeParam;
  for (const Activation activation : kActivations) {
    for (const Shape& shape : kShapes) {
      const std::int64_t tokens = shape.tokens;
      const std::int64_t channels = shape.channels;
      for (const Use use_x : {Use::skip, Use::write, Use::add}) {
        for (const Use use_bias : {Use::skip, Use::write, Use::add}) {
          SCOPED_TRACE(::testing::Message() << activation_name(activation) << " T " << tokens << " F " << channels << " d_x "
                                            << use_name(use_x) << " d_bias " << use_name(use_bias));
          const std::vector<T> x = random_values<T>(tokens * channels, 1);
          const std::vector<T> bias = random_values<T>(channels, 2);
          const std::vector<T> d_y = random_values<T>(tokens * channels, 3);
          const std::vector<T> x_before = random_values<T>(tokens * channels, 4);
          const std::vector<T> bias_before = random_values<T>(channels, 5);
          on_every_target<T>(
              [&](CpuStream stream) -> Results<T> {
                const Buffer<T> input(x);
                const Buffer<T> b(bias);
                const Buffer<T> gradient(d_y);
                Buffer<T> d_x = use_x == Use::write ? Buffer<T>(tokens * channels) : Buffer<T>(x_before);
                Buffer<T> d_bias = use_bias == Use::write ? Buffer<T>(channels) : Buffer<T>(bias_before);
                Workspace workspace(activation_backward_workspace<T>(tokens, channels));
                activation_backward(stream, ActivationBackward<T>{.d_x = d_x.data(),
                                                                  .use_x = use_x,
                                                                  .d_bias = d_bias.data(),
                                                                  .use_bias = use_bias,
                                                                  .d_y = gradient.data(),
                                                                  .x = input.data(),
                                                                  .bias = b.data(),
                                                                  .activation = activation,
                                                                  .workspace = workspace.data(),
                                                                  .tokens = tokens,
                                                                  .channels = channels});
                workspace.expect_intact();
                return {{"d_x", d_x.values("d_x")}, {"d_bias", d_bias.values("d_bias")}};
              },
              [&](const Results<T>& results) {
                const Gradients<T, T> plain(activation, use_x, use_bias, d_y, x, bias, x_before, bias_before);
                const Gradients<Reference<T>, T> reference(activation, use_x, use_bias, d_y, x, bias, x_before, bias_before);
                expect_accurate<T>("d_x", results[0].second, plain.d_x, reference.d_x);
                expect_accurate<T>("d_bias", results[1].second, plain.d_bias, reference.d_bias);
              });
        }
      }
    }
  }
}

TYPED_TEST(ActivationKernel, BackwardMayOverwriteTheGradientAndNeedsNoBias) {
  using T = TypeParam;
  const std::int64_t tokens = 33;
  const std::int64_t channels = 140;
  const std::vector<T> x = random_values<T>(tokens * channels, 1);
  const std::vector<T> d_y = random_values<T>(tokens * channels, 3);
  for (const Activation activation : kActivations) {
    SCOPED_TRACE(activation_name(activation));
    on_every_target<T>(
        [&](CpuStream stream) -> Results<T> {
          const Buffer<T> input(x);
          const Buffer<T> gradient(d_y);
          Buffer<T> d_x(tokens * channels);
          Buffer<T> in_place(d_y);
          ActivationBackward<T> args{.d_x = d_x.data(),
                                     .use_x = Use::write,
                                     .d_bias = nullptr,
                                     .use_bias = Use::skip,
                                     .d_y = gradient.data(),
                                     .x = input.data(),
                                     .bias = nullptr,
                                     .activation = activation,
                                     .workspace = nullptr,
                                     .tokens = tokens,
                                     .channels = channels};
          activation_backward(stream, args);
          args.d_x = in_place.data();
          args.d_y = in_place.data();
          activation_backward(stream, args);
          return {{"d_x", d_x.values("d_x")}, {"in place", in_place.values("in place")}};
        },
        [&](const Results<T>& results) {
          EXPECT_EQ(results[0].second, results[1].second);
          const std::vector<T> zero(static_cast<std::size_t>(channels), T{0});
          const std::vector<T> none(x.size());
          const Gradients<T, T> plain(activation, Use::write, Use::skip, d_y, x, zero, none, zero);
          const Gradients<Reference<T>, T> reference(activation, Use::write, Use::skip, d_y, x, zero, none, zero);
          expect_accurate<T>("d_x", results[0].second, plain.d_x, reference.d_x);
        });
  }
}

TYPED_TEST(ActivationKernel, NanComesThroughAndLargeNumbersSaturate) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> x = {nan, T{1000}, T{-1000}, std::numeric_limits<T>::infinity(), T{0}};
  for (const Activation activation : kActivations) {
    SCOPED_TRACE(activation_name(activation));
    on_every_target<T>(
        [&](CpuStream stream) -> Results<T> {
          const Buffer<T> input(x);
          const Buffer<T> ones(std::vector<T>(x.size(), T{1}));
          Buffer<T> y(input.size());
          Buffer<T> d_x(input.size());
          activation_forward(stream, ActivationForward<T>{.y = y.data(),
                                                          .x = input.data(),
                                                          .bias = nullptr,
                                                          .activation = activation,
                                                          .tokens = 1,
                                                          .channels = input.size()});
          activation_backward(stream, ActivationBackward<T>{.d_x = d_x.data(),
                                                            .use_x = Use::write,
                                                            .d_bias = nullptr,
                                                            .use_bias = Use::skip,
                                                            .d_y = ones.data(),
                                                            .x = input.data(),
                                                            .bias = nullptr,
                                                            .activation = activation,
                                                            .workspace = nullptr,
                                                            .tokens = 1,
                                                            .channels = input.size()});
          return {{"y", y.values("y")}, {"d_x", d_x.values("d_x")}};
        },
        [&](const Results<T>& results) {
          const std::vector<T>& y = results[0].second;
          const std::vector<T>& d_x = results[1].second;
          const bool bounded = activation == Activation::tanh || activation == Activation::sigmoid;
          EXPECT_TRUE(std::isnan(y[0]));
          EXPECT_TRUE(std::isnan(d_x[0]));
          EXPECT_EQ(y[1], bounded ? T{1} : T{1000});
          EXPECT_EQ(d_x[1], bounded ? T{0} : T{1});
          EXPECT_EQ(y[2], activation == Activation::tanh ? T{-1} : T{0});
          EXPECT_EQ(d_x[2], T{0});
          EXPECT_EQ(y[3], bounded ? T{1} : x[3]);
          EXPECT_EQ(y[4], activation == Activation::sigmoid ? T{0.5} : T{0});
        });
  }
}

}  // namespace
}  // namespace lathe::test
