#include "lathe/kernels/cast.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

#ifdef LATHE_HAS_CUDA
using Streams = ::testing::Types<CudaStream>;
#else
using Streams = ::testing::Types<CpuStream>;
#endif

template <class Stream>
class CastKernel : public ::testing::Test {};
TYPED_TEST_SUITE(CastKernel, Streams);

/// Every way to round, and numbers that aren't any: halves between two bf16 to the even one, past the largest to infinity.
std::vector<float> floats(std::int64_t count) {
  std::vector<float> values = random_values<float>(count, 1);
  const std::vector<float> special = {0.0F,
                                      -0.0F,
                                      1.00390625F,
                                      1.01171875F,
                                      -1.00390625F,
                                      1.003906F,
                                      1.0039064F,
                                      std::numeric_limits<float>::max(),
                                      std::numeric_limits<float>::denorm_min(),
                                      std::numeric_limits<float>::infinity(),
                                      -std::numeric_limits<float>::infinity(),
                                      std::numeric_limits<float>::quiet_NaN()};
  for (std::size_t i = 0; i < special.size() && i < values.size(); ++i) values[i] = special[i];
  return values;
}

TYPED_TEST(CastKernel, RoundsToTheNearestBf16AndBack) {
  using Stream = TypeParam;
  for (const std::int64_t count : {0, 1, 3, 4, 12, 13, 1024, 20011}) {
    SCOPED_TRACE(count);
    const std::vector<float> x = floats(count);
    on_every_way<Stream>(
        [&](Stream stream) {
          const Buffer<float, Stream> input(x);
          Buffer<Bf16, Stream> rounded(count);
          Buffer<float, Stream> back(count);
          cast(stream, Cast<Bf16, float>{.y = rounded.data(), .x = input.data(), .count = count});
          cast(stream, Cast<float, Bf16>{.y = back.data(), .x = rounded.data(), .count = count});
          Outputs outputs;
          outputs.add("rounded", rounded.values("rounded"));
          outputs.add("back", back.values("back"));
          return outputs;
        },
        [&](const Outputs& outputs) {
          for (std::size_t i = 0; i < x.size(); ++i) {
            const auto actual = static_cast<float>(outputs.get<Bf16>("rounded")[i]);
            const float back = outputs.get<float>("back")[i];
            if (std::isnan(x[i])) {
              ASSERT_TRUE(std::isnan(actual) && std::isnan(back)) << i;
            } else {
              ASSERT_EQ(bits(actual), bits(static_cast<float>(Bf16(x[i])))) << i << ": " << x[i];
              ASSERT_EQ(bits(back), bits(actual)) << i;
            }
          }
        });
  }
}

TEST(Bf16Rounding, GoesToTheNearestAndToEvenBetween) {
  // bf16 has 8 bits of precision: 1 + k / 128.
  EXPECT_EQ(static_cast<float>(Bf16(1.00390625F)), 1.0F);       // 1 + 1/256, between 1 and 1 + 1/128
  EXPECT_EQ(static_cast<float>(Bf16(1.01171875F)), 1.015625F);  // 1 + 3/256, between 1 + 1/128 and 1 + 2/128
  EXPECT_EQ(static_cast<float>(Bf16(1.0039064F)), 1.0078125F);  // just above the middle
  EXPECT_EQ(static_cast<float>(Bf16(std::numeric_limits<float>::max())), std::numeric_limits<float>::infinity());
}

}  // namespace
}  // namespace lathe::test
