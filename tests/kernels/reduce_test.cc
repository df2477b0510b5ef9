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
TYPED_TEST_SUITE(ReduceKernel, Dtypes);

template <class A, class T>
std::vector<A> column_sums(const std::vector<T>& x, std::int64_t tokens, std::int64_t channels, Use use,
                           const std::vector<T>& before) {
  std::vector<A> y(static_cast<std::size_t>(channels));
  for (std::int64_t c = 0; c < channels; ++c) {
    A sum{0};
    for (std::int64_t t = 0; t < tokens; ++t) sum += static_cast<A>(x[at(t, c, channels)]);
    y[static_cast<std::size_t>(c)] = used<A>(use, before[static_cast<std::size_t>(c)], sum);
  }
  return y;
}

TYPED_TEST(ReduceKernel, ColumnSumsAreTheSumsOfTheColumns) {
  using T = TypeParam;
  struct Shape {
    std::int64_t tokens, channels;
  };
  for (const Shape& shape : {Shape{0, 5}, {1, 1}, {31, 3}, {32, 129}, {33, 128}, {71, 384}, {2100, 17}}) {
    const std::int64_t tokens = shape.tokens;  // no structured binding: clang 14 lets no lambda capture one
    const std::int64_t channels = shape.channels;
    for (const Use use : {Use::skip, Use::write, Use::add}) {
      SCOPED_TRACE(::testing::Message() << "T " << tokens << " C " << channels << " " << use_name(use));
      const std::vector<T> x = random_values<T>(tokens * channels, 1, 0.5);
      const std::vector<T> before = random_values<T>(channels, 2);
      on_every_target<T>(
          [&](CpuStream stream) -> Results<T> {
            const Buffer<T> input(x);
            Buffer<T> y = use == Use::write ? Buffer<T>(channels) : Buffer<T>(before);
            Workspace workspace(column_sum_workspace<T>(tokens, channels));
            column_sum(stream, ColumnSum<T>{.y = y.data(),
                                            .use = use,
                                            .x = input.data(),
                                            .workspace = workspace.data(),
                                            .tokens = tokens,
                                            .channels = channels});
            workspace.expect_intact();
            return {{"y", y.values("y")}};
          },
          [&](const Results<T>& results) {
            expect_accurate<T>("y", results[0].second, column_sums<T>(x, tokens, channels, use, before),
                               column_sums<Reference<T>>(x, tokens, channels, use, before));
          });
    }
  }
}

TYPED_TEST(ReduceKernel, SumIsTakenInOrderInDoubleAndRoundedOnce) {
  using T = TypeParam;
  for (const std::int64_t count : {0, 1, 7, 1000}) {
    const std::vector<T> x = random_values<T>(count, 1);
    double expected = 0.0;
    for (const T value : x) expected += static_cast<double>(value);
    on_every_target<T>(
        [&](CpuStream stream) -> Results<T> {
          const Buffer<T> input(x);
          Buffer<T> y(1);
          sum(stream, Sum<T>{.y = y.data(), .x = input.data(), .count = count});
          return {{"y", y.values("y")}};
        },
        [&](const Results<T>& results) { EXPECT_EQ(results[0].second[0], static_cast<T>(expected)); });
  }
}

TYPED_TEST(ReduceKernel, AddAddsAlsoInPlace) {
  using T = TypeParam;
  for (const std::int64_t count : {0, 1, 15, 16, 17, 100, 20011}) {
    const std::vector<T> a = random_values<T>(count, 1);
    const std::vector<T> b = random_values<T>(count, 2);
    std::vector<T> expected(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) expected[i] = a[i] + b[i];
    on_every_target<T>(
        [&](CpuStream stream) -> Results<T> {
          const Buffer<T> first(a);
          const Buffer<T> second(b);
          Buffer<T> y(count);
          Buffer<T> onto_first(a);
          Buffer<T> onto_second(b);
          add(stream, Add<T>{.y = y.data(), .a = first.data(), .b = second.data(), .count = count});
          add(stream, Add<T>{.y = onto_first.data(), .a = onto_first.data(), .b = second.data(), .count = count});
          add(stream, Add<T>{.y = onto_second.data(), .a = first.data(), .b = onto_second.data(), .count = count});
          return {{"y", y.values("y")}, {"y = a", onto_first.values("y = a")}, {"y = b", onto_second.values("y = b")}};
        },
        [&](const Results<T>& results) {
          for (const auto& [what, values] : results) EXPECT_EQ(values, expected) << what;
        });
  }
}

TYPED_TEST(ReduceKernel, NanComesThrough) {
  using T = TypeParam;
  std::vector<T> x(40 * 3, T{1});
  x[at(20, 1, 3)] = std::numeric_limits<T>::quiet_NaN();
  on_every_target<T>(
      [&](CpuStream stream) -> Results<T> {
        const Buffer<T> input(x);
        Buffer<T> columns(3);
        Buffer<T> total(1);
        Workspace workspace(column_sum_workspace<T>(40, 3));
        column_sum(stream, ColumnSum<T>{.y = columns.data(),
                                        .use = Use::write,
                                        .x = input.data(),
                                        .workspace = workspace.data(),
                                        .tokens = 40,
                                        .channels = 3});
        sum(stream, Sum<T>{.y = total.data(), .x = input.data(), .count = 120});
        return {{"columns", columns.values("columns")}, {"total", total.values("total")}};
      },
      [](const Results<T>& results) {
        EXPECT_EQ(results[0].second[0], T{40});
        EXPECT_TRUE(std::isnan(results[0].second[1]));
        EXPECT_EQ(results[0].second[2], T{40});
        EXPECT_TRUE(std::isnan(results[1].second[0]));
      });
}

}  // namespace
}  // namespace lathe::test
