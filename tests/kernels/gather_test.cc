#include "lathe/kernels/gather.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class GatherKernel : public ::testing::Test {};
TYPED_TEST_SUITE(GatherKernel, Cases, CaseNames);

/// A selection of tokens and its inverse, as the loader gives them.
struct Selection {
  std::int64_t tokens, channels;
  std::vector<std::int32_t> row_token;

  std::vector<std::int32_t> token_row() const {
    std::vector<std::int32_t> inverse(static_cast<std::size_t>(tokens), -1);
    for (std::size_t r = 0; r < row_token.size(); ++r)
      inverse[static_cast<std::size_t>(row_token[r])] = static_cast<std::int32_t>(r);
    return inverse;
  }
};

std::vector<Selection> selections() {
  std::vector<Selection> all = {
      {.tokens = 1, .channels = 1, .row_token = {0}},       {.tokens = 5, .channels = 3, .row_token = {4, 0, 2}},
      {.tokens = 4, .channels = 17, .row_token = {}},       {.tokens = 6, .channels = 128, .row_token = {5, 4, 3, 2, 1, 0}},
      {.tokens = 9, .channels = 1032, .row_token = {3, 8}}, {.tokens = 500, .channels = 65, .row_token = {}},
  };
  for (std::int32_t t = 0; t < 500; t += 2) all.back().row_token.push_back(499 - t);
  return all;
}

TYPED_TEST(GatherKernel, ForwardTakesTheRows) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Selection& s : selections()) {
    SCOPED_TRACE(::testing::Message() << "T " << s.tokens << " C " << s.channels << " R " << s.row_token.size());
    const auto rows = static_cast<std::int64_t>(s.row_token.size());
    const std::vector<T> x = random_values<T>(s.tokens * s.channels, 1);
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<T, Stream> input(x);
          const Buffer<std::int32_t, Stream> row_token(s.row_token);
          Buffer<T, Stream> y(rows * s.channels);
          gather_forward(
              stream, GatherForward<T>{
                          .y = y.data(), .x = input.data(), .row_token = row_token.data(), .rows = rows, .channels = s.channels});
          Outputs outputs;
          outputs.add("y", y.values("y"));
          return outputs;
        },
        [&](const Outputs& outputs) {
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < s.channels; ++c) {
              const T expected = x[at(s.row_token[static_cast<std::size_t>(r)], c, s.channels)];
              ASSERT_EQ(static_cast<Plain<T>>(outputs.get<T>("y")[at(r, c, s.channels)]), static_cast<Plain<T>>(expected));
            }
          }
        });
  }
}

TYPED_TEST(GatherKernel, BackwardGivesEveryTokenItsRowOrZero) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const Selection& s : selections()) {
    for (const Use use : {Use::skip, Use::write, Use::add}) {
      SCOPED_TRACE(::testing::Message() << "T " << s.tokens << " C " << s.channels << " R " << s.row_token.size() << " "
                                        << use_name(use));
      const auto rows = static_cast<std::int64_t>(s.row_token.size());
      const std::vector<T> d_y = random_values<T>(rows * s.channels, 2);
      const std::vector<T> before = random_values<T>(s.tokens * s.channels, 3);
      const std::vector<std::int32_t> token_row = s.token_row();
      on_every_way<Stream>(
          [&](Stream stream) {
            const Buffer<T, Stream> gradient(d_y);
            const Buffer<std::int32_t, Stream> inverse(token_row);
            Buffer<T, Stream> d_x = use == Use::write ? Buffer<T, Stream>(s.tokens * s.channels) : Buffer<T, Stream>(before);
            gather_backward(stream, GatherBackward<T>{.d_x = d_x.data(),
                                                      .use = use,
                                                      .d_y = gradient.data(),
                                                      .token_row = inverse.data(),
                                                      .tokens = s.tokens,
                                                      .channels = s.channels});
            Outputs outputs;
            outputs.add("d_x", d_x.values("d_x"));
            return outputs;
          },
          [&](const Outputs& outputs) {
            for (std::int64_t t = 0; t < s.tokens; ++t) {
              const std::int64_t r = token_row[static_cast<std::size_t>(t)];
              for (std::int64_t c = 0; c < s.channels; ++c) {
                const Plain<T> gradient = r < 0 ? Plain<T>{0} : static_cast<Plain<T>>(d_y[at(r, c, s.channels)]);
                const T expected{used<Plain<T>>(use, before[at(t, c, s.channels)], gradient)};
                ASSERT_EQ(static_cast<Plain<T>>(outputs.get<T>("d_x")[at(t, c, s.channels)]), static_cast<Plain<T>>(expected))
                    << "t " << t << " c " << c;
              }
            }
          });
    }
  }
}

}  // namespace
}  // namespace lathe::test
