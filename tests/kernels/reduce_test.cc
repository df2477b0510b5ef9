#include "lathe/kernels/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class ReduceKernel : public ::testing::Test {};
TYPED_TEST_SUITE(ReduceKernel, Cases, CaseNames);

template <class A, class T>
std::vector<A> column_sums(const std::vector<T>& x, std::int64_t tokens, std::int64_t channels, Use use,
                           const std::vector<Accumulator<T>>& before) {
  std::vector<A> y(static_cast<std::size_t>(channels));
  for (std::int64_t c = 0; c < channels; ++c) {
    A sum{0};
    for (std::int64_t t = 0; t < tokens; ++t) sum += static_cast<A>(x[at(t, c, channels)]);
    y[static_cast<std::size_t>(c)] = used<A>(use, before[static_cast<std::size_t>(c)], sum);
  }
  return y;
}

TYPED_TEST(ReduceKernel, ColumnSumsAreTheSumsOfTheColumns) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  struct Shape {
    std::int64_t tokens, channels;
  };
  for (const Shape& shape : {Shape{0, 5}, {1, 1}, {31, 3}, {32, 129}, {33, 128}, {71, 384}, {257, 1032}, {2100, 17}}) {
    const std::int64_t tokens = shape.tokens;  // no structured binding: clang 14 lets no lambda capture one
    const std::int64_t channels = shape.channels;
    for (const Use use : {Use::skip, Use::write, Use::add}) {
      SCOPED_TRACE(::testing::Message() << "T " << tokens << " C " << channels << " " << use_name(use));
      const std::vector<T> x = random_values<T>(tokens * channels, 1, 0.5);
      using A = Accumulator<T>;
      const std::vector<A> before = random_values<A>(channels, 2);
      on_every_way<Stream>(
          [&](Stream stream) {
            const Buffer<T, Stream> input(x);
            Buffer<A, Stream> y = use == Use::write ? Buffer<A, Stream>(channels) : Buffer<A, Stream>(before);
            Workspace<Stream> workspace(column_sum_workspace<T>(tokens, channels));
            column_sum(stream, ColumnSum<T>{.y = y.data(),
                                            .use = use,
                                            .x = input.data(),
                                            .workspace = workspace.data(),
                                            .tokens = tokens,
                                            .channels = channels});
            workspace.expect_intact();
            Outputs outputs;
            outputs.add("y", y.values("y"));
            return outputs;
          },
          [&](const Outputs& outputs) {
            expect_accurate<A>("y", outputs.get<A>("y"), column_sums<Plain<T>>(x, tokens, channels, use, before),
                               column_sums<Reference<T>>(x, tokens, channels, use, before));
          });
    }
  }
}

TYPED_TEST(ReduceKernel, SumIsTakenInDoubleAndRounded) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t count : {0, 1, 7, 1000}) {
    const std::vector<T> x = random_values<T>(count, 1);
    double expected = 0.0;
    for (const T value : x) expected += static_cast<double>(value);
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> input(x);
          Buffer<T, Stream> y(1);
          sum(stream, Sum<T>{.y = y.data(), .x = input.data(), .count = count});
          Outputs outputs;
          outputs.add("y", y.values("y"));
          return outputs;
        },
        [&](const Outputs& outputs) {
          EXPECT_EQ(static_cast<Plain<T>>(outputs.get<T>("y")[0]), static_cast<Plain<T>>(static_cast<T>(expected)));
        });
  }
}

TYPED_TEST(ReduceKernel, AddAddsAlsoInPlace) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t count : {0, 1, 15, 16, 17, 100, 20011}) {
    const std::vector<T> a = random_values<T>(count, 1);
    const std::vector<T> b = random_values<T>(count, 2);
    std::vector<T> expected(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      expected[i] = static_cast<T>(static_cast<Plain<T>>(a[i]) + static_cast<Plain<T>>(b[i]));
    }
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> first(a);
          const Buffer<T, Stream> second(b);
          Buffer<T, Stream> y(count);
          Buffer<T, Stream> onto_first(a);
          Buffer<T, Stream> onto_second(b);
          add(stream, Add<T>{.y = y.data(), .a = first.data(), .b = second.data(), .count = count});
          add(stream, Add<T>{.y = onto_first.data(), .a = onto_first.data(), .b = second.data(), .count = count});
          add(stream, Add<T>{.y = onto_second.data(), .a = first.data(), .b = onto_second.data(), .count = count});
          Outputs outputs;
          outputs.add("y", y.values("y"));
          outputs.add("y = a", onto_first.values("y = a"));
          outputs.add("y = b", onto_second.values("y = b"));
          return outputs;
        },
        [&](const Outputs& outputs) {
          for (const char* const what : {"y", "y = a", "y = b"}) {
            EXPECT_EQ(plain_values(outputs.get<T>(what)), plain_values(expected)) << what;
          }
        });
  }
}

TYPED_TEST(ReduceKernel, NanComesThrough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  std::vector<T> x(40 * 3, static_cast<T>(1.0));
  x[at(20, 1, 3)] = static_cast<T>(std::numeric_limits<Plain<T>>::quiet_NaN());
  on_every_way<Stream>(
      [&](Stream stream) {
        const Buffer<T, Stream> input(x);
        Buffer<A, Stream> columns(3);
        Buffer<T, Stream> total(1);
        Workspace<Stream> workspace(column_sum_workspace<T>(40, 3));
        column_sum(stream, ColumnSum<T>{.y = columns.data(),
                                        .use = Use::write,
                                        .x = input.data(),
                                        .workspace = workspace.data(),
                                        .tokens = 40,
                                        .channels = 3});
        sum(stream, Sum<T>{.y = total.data(), .x = input.data(), .count = 120});
        Outputs outputs;
        outputs.add("columns", columns.values("columns"));
        outputs.add("total", total.values("total"));
        return outputs;
      },
      [](const Outputs& outputs) {
        EXPECT_EQ(outputs.get<A>("columns")[0], A{40});
        EXPECT_TRUE(std::isnan(outputs.get<A>("columns")[1]));
        EXPECT_EQ(outputs.get<A>("columns")[2], A{40});
        EXPECT_TRUE(std::isnan(static_cast<Plain<T>>(outputs.get<T>("total")[0])));
      });
}

}  // namespace
}  // namespace lathe::test
