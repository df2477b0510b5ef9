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
TYPED_TEST_SUITE(ActivationKernel, Cases, CaseNames);

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

/// 1 + erf(x) and 1 + tanh(x): as they stand in plain arithmetic, without cancellation in the reference.
template <class A, class T>
A one_plus_erf(A x) {
  return std::is_same_v<A, Plain<T>> ? 1 + std::erf(x) : std::erfc(-x);
}
template <class A, class T>
A one_plus_tanh(A x) {
  return std::is_same_v<A, Plain<T>> ? 1 + std::tanh(x) : 2 / (1 + std::exp(-2 * x));
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
// For every way in which CUDA threads lie over rows: one row in several tiles, several rows in a block, and more than one part of a sum.
constexpr Shape kMoreShapes[] = {{3, 4104}, {5, 2051}, {2, 384}, {2, 760}, {257, 8}, {1100, 16}};

template <class A, class T>
std::vector<A> forward(Activation activation, const std::vector<T>& x, const std::vector<T>& bias) {
  std::vector<A> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] = activate<A, T>(activation,
                          bias.empty() ? static_cast<A>(x[i]) : static_cast<A>(x[i]) + static_cast<A>(bias[i % bias.size()]));
  }
  return y;
}

template <class T>
void expect_forward(const std::string& what, const std::vector<T>& y, Activation activation, const std::vector<T>& x,
                    const std::vector<T>& bias) {
  expect_accurate<T>(what, y, forward<Plain<T>>(activation, x, bias), forward<Reference<T>>(activation, x, bias));
}

template <class Stream, class T>
void check_forward(Activation activation, Shape shape, const std::vector<T>& bias) {
  SCOPED_TRACE(::testing::Message() << activation_name(activation) << " T " << shape.tokens << " F " << shape.channels << " bias "
                                    << !bias.empty());
  const std::vector<T> x = random_values<T>(shape.tokens * shape.channels, 1, 0.0, 2.0);
  on_every_way<Stream>(
      [&](Stream stream) {
        const Buffer<T, Stream> input(x);
        const Buffer<T, Stream> b(bias);
        Buffer<T, Stream> y(input.size());
        Buffer<T, Stream> in_place(x);
        ActivationForward<T> args{.y = y.data(),
                                  .x = input.data(),
                                  .bias = bias.empty() ? nullptr : b.data(),
                                  .activation = activation,
                                  .tokens = shape.tokens,
                                  .channels = shape.channels};
        activation_forward(stream, args);
        args.y = in_place.data();
        args.x = in_place.data();
        activation_forward(stream, args);
        Outputs outputs;
        outputs.add("y", y.values("y"));
        outputs.add("y in place", in_place.values("y in place"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        for (const char* what : {"y", "y in place"}) expect_forward(what, outputs.get<T>(what), activation, x, bias);
      });
}

TYPED_TEST(ActivationKernel, ForwardFollowsTheFormula) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Activation activation : kActivations) {
    for (const Shape shape : kShapes) {
      check_forward<Stream, T>(activation, shape, {});
      check_forward<Stream, T>(activation, shape, random_values<T>(shape.channels, 2));
    }
  }
  for (const Shape shape : kMoreShapes) {
    check_forward<Stream, T>(Activation::gelu_erf, shape, random_values<T>(shape.channels, 2));
  }
}

/// Arguments of backward without a bias.
template <class T>
ActivationBackward<T> without_bias(T* d_x, const T* d_y, const T* x, Activation activation, Shape shape) {
  return {.d_x = d_x,
          .use_x = Use::write,
          .d_bias = nullptr,
          .use_bias = Use::skip,
          .d_y = d_y,
          .x = x,
          .bias = nullptr,
          .activation = activation,
          .workspace = nullptr,
          .tokens = shape.tokens,
          .channels = shape.channels};
}

/// y, and d_x for a d_y of ones.
template <class Stream, class T>
Outputs run_on_row(Stream stream, Activation activation, const std::vector<T>& x) {
  const Buffer<T, Stream> input(x);
  const Buffer<T, Stream> ones(std::vector<T>(x.size(), T(1.0F)));
  Buffer<T, Stream> y(input.size());
  Buffer<T, Stream> d_x(input.size());
  const Shape row{.tokens = 1, .channels = input.size()};
  activation_forward(stream, ActivationForward<T>{.y = y.data(),
                                                  .x = input.data(),
                                                  .bias = nullptr,
                                                  .activation = activation,
                                                  .tokens = row.tokens,
                                                  .channels = row.channels});
  activation_backward(stream, without_bias<T>(d_x.data(), ones.data(), input.data(), activation, row));
  Outputs outputs;
  outputs.add("y", y.values("y"));
  outputs.add("d_x", d_x.values("d_x"));
  return outputs;
}

// Where the argument is large or small no other element may hide an error: each run of x is judged alone.
TYPED_TEST(ActivationKernel, AccurateOnEveryStretchOfTheLine) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const std::int64_t count = 4096;
  for (const Activation activation : kActivations) {
    for (double from = -12.0; from < 12.0; from += 0.5) {
      SCOPED_TRACE(::testing::Message() << activation_name(activation) << " from " << from);
      std::vector<T> x;
      std::vector<Plain<T>> slope;
      std::vector<Reference<T>> exact_slope;
      for (std::int64_t i = 0; i < count; ++i) {
        x.push_back(static_cast<T>(from + 0.5 * static_cast<double>(i) / count));
        slope.push_back(derivative<Plain<T>, T>(activation, static_cast<Plain<T>>(x.back())));
        exact_slope.push_back(derivative<Reference<T>, T>(activation, static_cast<Reference<T>>(x.back())));
      }
      on_every_way<Stream>([&](Stream stream) { return run_on_row(stream, activation, x); },
                           [&](const Outputs& outputs) {
                             expect_forward<T>("y", outputs.get<T>("y"), activation, x, {});
                             expect_accurate<T>("d_x", outputs.get<T>("d_x"), slope, exact_slope);
                           });
    }
  }
}

/// d_x and d_bias in A.
template <class A, class T>
struct Gradients {
  std::vector<A> d_x, d_bias;

  Gradients(Activation activation, Use use_x, Use use_bias, const std::vector<T>& d_y, const std::vector<T>& x,
            const std::vector<T>& bias, const std::vector<T>& x_before, const std::vector<Accumulator<T>>& bias_before)
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

template <class Stream, class T>
void check_backward(Activation activation, Shape shape, Use use_x, Use use_bias) {
  using A = Accumulator<T>;
  SCOPED_TRACE(::testing::Message() << activation_name(activation) << " T " << shape.tokens << " F " << shape.channels << " d_x "
                                    << use_name(use_x) << " d_bias " << use_name(use_bias));
  const std::int64_t count = shape.tokens * shape.channels;
  const std::vector<T> x = random_values<T>(count, 1);
  const std::vector<T> bias = random_values<T>(shape.channels, 2);
  const std::vector<T> d_y = random_values<T>(count, 3);
  const std::vector<T> x_before = random_values<T>(count, 4);
  const std::vector<A> bias_before = random_values<A>(shape.channels, 5);
  on_every_way<Stream>(
      [&](Stream stream) {
        const Buffer<T, Stream> input(x);
        const Buffer<T, Stream> b(bias);
        const Buffer<T, Stream> gradient(d_y);
        Buffer<T, Stream> d_x = use_x == Use::write ? Buffer<T, Stream>(count) : Buffer<T, Stream>(x_before);
        Buffer<A, Stream> d_bias = use_bias == Use::write ? Buffer<A, Stream>(shape.channels) : Buffer<A, Stream>(bias_before);
        Workspace<Stream> workspace(activation_backward_workspace<T>(shape.tokens, shape.channels));
        activation_backward(stream, ActivationBackward<T>{.d_x = d_x.data(),
                                                          .use_x = use_x,
                                                          .d_bias = d_bias.data(),
                                                          .use_bias = use_bias,
                                                          .d_y = gradient.data(),
                                                          .x = input.data(),
                                                          .bias = b.data(),
                                                          .activation = activation,
                                                          .workspace = workspace.data(),
                                                          .tokens = shape.tokens,
                                                          .channels = shape.channels});
        workspace.expect_intact();
        Outputs outputs;
        outputs.add("d_x", d_x.values("d_x"));
        outputs.add("d_bias", d_bias.values("d_bias"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        const Gradients<Plain<T>, T> plain(activation, use_x, use_bias, d_y, x, bias, x_before, bias_before);
        const Gradients<Reference<T>, T> reference(activation, use_x, use_bias, d_y, x, bias, x_before, bias_before);
        expect_accurate<T>("d_x", outputs.get<T>("d_x"), plain.d_x, reference.d_x);
        expect_accurate<A>("d_bias", outputs.get<A>("d_bias"), plain.d_bias, reference.d_bias);
      });
}

TYPED_TEST(ActivationKernel, BackwardWritesAddsOrSkipsEachGradient) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape shape : kShapes) {
    for (const Use use_x : {Use::skip, Use::write, Use::add}) {
      for (const Use use_bias : {Use::skip, Use::write, Use::add}) {
        check_backward<Stream, T>(Activation::gelu_erf, shape, use_x, use_bias);
      }
    }
  }
  for (const Activation activation : kActivations) {
    check_backward<Stream, T>(activation, {71, 300}, Use::write, Use::add);
    check_backward<Stream, T>(activation, {31, 129}, Use::add, Use::write);
  }
  for (const Shape shape : kMoreShapes) check_backward<Stream, T>(Activation::gelu_erf, shape, Use::write, Use::write);
}

TYPED_TEST(ActivationKernel, BackwardMayOverwriteTheGradientAndNeedsNoBias) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const Shape shape{.tokens = 33, .channels = 144};
  const std::vector<T> x = random_values<T>(shape.tokens * shape.channels, 1);
  const std::vector<T> d_y = random_values<T>(shape.tokens * shape.channels, 3);
  for (const Activation activation : kActivations) {
    SCOPED_TRACE(activation_name(activation));
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> input(x);
          const Buffer<T, Stream> gradient(d_y);
          Buffer<T, Stream> d_x(input.size());
          Buffer<T, Stream> in_place(d_y);
          activation_backward(stream, without_bias<T>(d_x.data(), gradient.data(), input.data(), activation, shape));
          activation_backward(stream, without_bias<T>(in_place.data(), in_place.data(), input.data(), activation, shape));
          Outputs outputs;
          outputs.add("d_x", d_x.values("d_x"));
          outputs.add("in place", in_place.values("in place"));
          return outputs;
        },
        [&](const Outputs& outputs) {
          EXPECT_EQ(plain_values(outputs.get<T>("d_x")), plain_values(outputs.get<T>("in place")));
          const std::vector<T> zero(static_cast<std::size_t>(shape.channels), T(0.0F));
          const std::vector<Accumulator<T>> no_sum(zero.size());
          const std::vector<T> none(x.size());
          const Gradients<Plain<T>, T> plain(activation, Use::write, Use::skip, d_y, x, zero, none, no_sum);
          const Gradients<Reference<T>, T> reference(activation, Use::write, Use::skip, d_y, x, zero, none, no_sum);
          expect_accurate<T>("d_x", outputs.get<T>("d_x"), plain.d_x, reference.d_x);
        });
  }
}

TYPED_TEST(ActivationKernel, NanComesThroughAndLargeNumbersSaturate) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<T> x;
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), 1000.0, -1000.0, infinity, 0.0}) x.push_back(T(value));
  for (const Activation activation : kActivations) {
    SCOPED_TRACE(activation_name(activation));
    on_every_way<Stream>([&](Stream stream) { return run_on_row(stream, activation, x); },
                         [&](const Outputs& outputs) {
                           const std::vector<Plain<T>> y = plain_values(outputs.get<T>("y"));
                           const std::vector<Plain<T>> d_x = plain_values(outputs.get<T>("d_x"));
                           const bool bounded = activation == Activation::tanh || activation == Activation::sigmoid;
                           EXPECT_TRUE(std::isnan(y[0]));
                           EXPECT_TRUE(std::isnan(d_x[0]));
                           EXPECT_EQ(y[1], bounded ? 1 : 1000);
                           EXPECT_EQ(d_x[1], bounded ? 0 : 1);
                           EXPECT_EQ(y[2], activation == Activation::tanh ? -1 : 0);
                           EXPECT_EQ(d_x[2], 0);
                           EXPECT_EQ(y[3], bounded ? 1 : infinity);
                           EXPECT_EQ(y[4], activation == Activation::sigmoid ? 0.5 : 0);
                         });
  }
}

}  // namespace
}  // namespace lathe::test
