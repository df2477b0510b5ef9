#include "lathe/checkpoint/float_conversion.h"

#include <gtest/gtest.h>

#include <cmath>

namespace lathe {
namespace {

/// The value of a small floating-point format by its definition: sign * 2^(exponent - bias) * 1.fraction, and 0.fraction at exponent 0.
double by_definition(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = static_cast<int>(bits) & ((1 << fraction_bits) - 1);
  const double sign = (bits >> (exponent_bits + fraction_bits)) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

void expect_same(float found, double expected, std::uint32_t bits, int fraction_bits) {
  const auto pattern = std::bit_cast<std::uint32_t>(found);
  if (std::isnan(expected)) {
    ASSERT_TRUE(std::isnan(found)) << std::hex << bits;
    ASSERT_EQ(pattern & 0x7FFFFFU, (bits & ((1U << fraction_bits) - 1)) << (23 - fraction_bits)) << std::hex << bits;
  } else {
    ASSERT_EQ(static_cast<double>(found), expected) << std::hex << bits;
  }
  ASSERT_EQ(pattern >> 31U, bits >> 15U) << std::hex << bits;  // also of zeros and NaN
}

TEST(FloatConversion, EveryF16) {
  for (std::uint32_t bits = 0; bits < 65'536; ++bits) {
    expect_same(f16_to_f32(static_cast<std::uint16_t>(bits)), by_definition(bits, 5, 10), bits, 10);
  }
}

TEST(FloatConversion, EveryBf16) {
  for (std::uint32_t bits = 0; bits < 65'536; ++bits) {
    expect_same(bf16_to_f32(static_cast<std::uint16_t>(bits)), by_definition(bits, 8, 7), bits, 7);
  }
}

TEST(FloatConversion, KnownValues) {
  EXPECT_EQ(f16_to_f32(0x3C00), 1.0F);
  EXPECT_EQ(f16_to_f32(0xC000), -2.0F);
  EXPECT_EQ(f16_to_f32(0x7BFF), 65504.0F);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24F);
  EXPECT_EQ(bf16_to_f32(0x3F80), 1.0F);
  EXPECT_EQ(bf16_to_f32(0x0001), 0x1p-133F);
}

}  // namespace
}  // namespace lathe
