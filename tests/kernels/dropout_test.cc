#include "lathe/kernels/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class DropoutKernel : public ::testing::Test {};
TYPED_TEST_SUITE(DropoutKernel, Cases, CaseNames);

struct Shape {
  std::int64_t tokens, channels;
};
constexpr Shape kShapes[] = {{0, 8},   {1, 1},   {3, 7},    {5, 8},    {2, 9},   {4, 127},
                             {4, 128}, {3, 129}, {2, 1000}, {70, 384}, {9, 1032}};
constexpr std::uint32_t kThresholds[] = {0, 1, 6554, 32768, 65535};

TYPED_TEST(DropoutKernel, KeepsAndScalesWhatPhiloxSays) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape& shape : kShapes) {
    const std::int64_t tokens = shape.tokens;  // no structured binding: clang 14 lets no lambda capture one
    const std::int64_t channels = shape.channels;
    for (const std::uint32_t threshold : kThresholds) {
      SCOPED_TRACE(::testing::Message() << "T " << tokens << " C " << channels << " threshold " << threshold);
      const DropoutInputs inputs(tokens);
      const Dropout dropout = inputs.dropout(threshold);
      const std::vector<T> x = random_values<T>(tokens * channels, 1);
      on_every_way<Stream>(
          [&](Stream stream) {
            DropoutArguments<Stream> arguments(dropout, tokens);
            Buffer<T, Stream> y(tokens * channels);
            const Buffer<T, Stream> input(x);
            dropout_forward(
                stream,
                DropoutForward<T>{
                    .y = y.data(), .x = input.data(), .dropout = arguments.get(), .tokens = tokens, .channels = channels});
            Buffer<T, Stream> in_place(x);
            dropout_forward(stream, DropoutForward<T>{.y = in_place.data(),
                                                      .x = in_place.data(),
                                                      .dropout = arguments.get(),
                                                      .tokens = tokens,
                                                      .channels = channels});
            Outputs outputs;
            outputs.add("y", y.values("y"));
            outputs.add("y in place", in_place.values("y in place"));
            return outputs;
          },
          [&](const Outputs& outputs) {
            const std::vector<Plain<T>> y = plain_values(outputs.get<T>("y"));
            for (std::int64_t t = 0; t < tokens; ++t) {
              for (std::int64_t c = 0; c < channels; ++c) {
                // The scale is rounded, then multiplied: exactly this.
                const auto multiplier = static_cast<Plain<T>>(dropout_multiplier<double>(dropout, t, c));
                const T expected{static_cast<Plain<T>>(x[at(t, c, channels)]) * multiplier};
                ASSERT_EQ(y[at(t, c, channels)], static_cast<Plain<T>>(expected)) << "t " << t << " c " << c;
              }
            }
            EXPECT_EQ(plain_values(outputs.get<T>("y in place")), y);
          });
    }
  }
}

TYPED_TEST(DropoutKernel, BackwardWritesAddsOrSkips) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Shape& shape : kShapes) {
    const std::int64_t tokens = shape.tokens;  // no structured binding: clang 14 lets no lambda capture one
    const std::int64_t channels = shape.channels;
    for (const std::uint32_t threshold : kThresholds) {
      for (const Use use : {Use::skip, Use::write, Use::add}) {
        SCOPED_TRACE(::testing::Message() << "T " << tokens << " C " << channels << " threshold " << threshold << " "
                                          << use_name(use));
        const DropoutInputs inputs(tokens);
        const Dropout dropout = inputs.dropout(threshold);
        const std::vector<T> d_y = random_values<T>(tokens * channels, 2);
        const std::vector<T> before = random_values<T>(tokens * channels, 3);
        on_every_way<Stream>(
            [&](Stream stream) {
              Buffer<T, Stream> d_x = use == Use::write ? Buffer<T, Stream>(tokens * channels) : Buffer<T, Stream>(before);
              const Buffer<T, Stream> gradient(d_y);
              DropoutArguments<Stream> arguments(dropout, tokens);
              dropout_backward(stream, DropoutBackward<T>{.d_x = d_x.data(),
                                                          .use = use,
                                                          .d_y = gradient.data(),
                                                          .dropout = arguments.get(),
                                                          .tokens = tokens,
                                                          .channels = channels});
              Outputs outputs;
              outputs.add("d_x", d_x.values("d_x"));
              return outputs;
            },
            [&](const Outputs& outputs) {
              for (std::int64_t t = 0; t < tokens; ++t) {
                for (std::int64_t c = 0; c < channels; ++c) {
                  const std::size_t i = at(t, c, channels);
                  const auto upstream = static_cast<Plain<T>>(d_y[i]);
                  const auto there = static_cast<Plain<T>>(before[i]);
                  const auto multiplier = static_cast<Plain<T>>(dropout_multiplier<double>(dropout, t, c));
                  const T expected{used<Plain<T>>(use, there, upstream * multiplier)};
                  // A compiler may fuse the product and the sum: one rounding or two.
                  const T fused{std::fma(upstream, multiplier, there)};
                  const auto actual = static_cast<Plain<T>>(outputs.get<T>("d_x")[i]);
                  ASSERT_TRUE(actual == static_cast<Plain<T>>(expected) ||
                              (use == Use::add && actual == static_cast<Plain<T>>(fused)))
                      << "t " << t << " c " << c << ": " << actual;
                }
              }
            });
      }
    }
  }
}

TYPED_TEST(DropoutKernel, NanComesThroughKeptOrNot) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  const DropoutInputs inputs(1);
  on_every_way<Stream>(
      [&](Stream stream) {
        const Buffer<T, Stream> x(std::vector<T>(64, static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN())));
        Buffer<T, Stream> y(std::vector<T>(64, static_cast<T>(1.0)));
        DropoutArguments<Stream> arguments(inputs.dropout(32768), 1);
        dropout_forward(stream,
                        DropoutForward<T>{.y = y.data(), .x = x.data(), .dropout = arguments.get(), .tokens = 1, .channels = 64});
        Outputs outputs;
        outputs.add("y", y.values("y"));
        return outputs;
      },
      [](const Outputs& outputs) {
        for (const Plain<T> y : plain_values(outputs.get<T>("y"))) EXPECT_TRUE(std::isnan(y));
      });
}

// Not a matter of chance: the key is fixed. 384,000 values at p = 0.1 have a standard deviation of 0.0005.
TEST(DropoutMasks, KeepTheShareThatTheThresholdSays) {
  const std::int64_t tokens = 1000;
  const std::int64_t channels = 384;
  const DropoutInputs inputs(tokens);
  const std::uint32_t threshold = dropout_threshold(0.1);
  std::vector<float> y(static_cast<std::size_t>(tokens * channels), 1.0F);
  dropout_forward(
      CpuStream{},
      DropoutForward<float>{
          .y = y.data(), .x = y.data(), .dropout = inputs.dropout(threshold), .tokens = tokens, .channels = channels});
  double sum = 0.0;
  for (const float value : y) sum += value;
  EXPECT_NEAR(sum / static_cast<double>(y.size()), 1.0, 0.002);
}

TEST(DropoutThreshold, RoundsAndStaysBelowEverythingDropped) {
  EXPECT_EQ(dropout_threshold(0.0), 0U);
  EXPECT_EQ(dropout_threshold(0.1), 6554U);
  EXPECT_EQ(dropout_threshold(0.5), 32768U);
  EXPECT_EQ(dropout_threshold(0.9999999), 65535U);
  EXPECT_DOUBLE_EQ(dropout_scale(0), 1.0);
  EXPECT_DOUBLE_EQ(dropout_scale(32768), 2.0);
}

}  // namespace
}  // namespace lathe::test
