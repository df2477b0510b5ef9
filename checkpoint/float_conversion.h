#pragma once
// The 16-bit floating-point formats of published weights, widened exactly: subnormals, infinities, NaN with their payloads. By
// integers and selects, so that loops over them vectorise and a processor set to flush subnormals changes nothing.
#include <bit>
#include <cstdint>

namespace lathe {

/// fp32 value of an IEEE binary16: 1 sign, 5 exponent, 10 fraction bits.
constexpr float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t magnitude = bits & 0x7FFFU;
  constexpr std::uint32_t kRebias = (127U - 15U) << 23U;
  const std::uint32_t widened = (magnitude << 13U) + kRebias;
  // Infinity and NaN: the exponent is all ones in fp32 too, which takes the difference of the biases once more.
  const std::uint32_t special = widened + kRebias;
  // Subnormal or zero: fraction * 2^-24, which fp32 holds as a normal number.
  const auto subnormal = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F);
  const std::uint32_t finite = magnitude < 0x0400U ? subnormal : widened;
  return std::bit_cast<float>(sign | (magnitude >= 0x7C00U ? special : finite));
}

/// fp32 value of a bfloat16: the upper half of its fp32 pattern.
constexpr float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

}  // namespace lathe
