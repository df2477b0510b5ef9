#pragma once
// The few types that every kernel contract shares.
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// bfloat16: the upper half of a float's bits. A type of storage; arithmetic is done in float.
struct Bf16 {
  std::uint16_t bits;

  Bf16() = default;
  /// The value nearest to `value` as a float, ties to even; NaN stays NaN. (Device code has an instruction: kernels/device/convert.cuh.)
  template <std::floating_point F>
  constexpr explicit Bf16(F value) : bits(rounded(std::bit_cast<std::uint32_t>(static_cast<float>(value)))) {}
  template <std::floating_point F>
  constexpr explicit operator F() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }

 private:
  static constexpr std::uint16_t rounded(std::uint32_t word) {
    if ((word & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((word >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((word + 0x7FFFU + ((word >> 16U) & 1U)) >> 16U);
  }
};

/// Element types of tensors.
enum class DType : std::uint8_t { f32, f64, bf16, i32 };

/// Bytes of one element.
constexpr std::int64_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : (dtype == DType::bf16 ? 2 : 4); }

/// The type in which a kernel for elements of T sums and keeps statistics: fp32 for fp32 and bf16, fp64 for fp64.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

/// What a backward kernel does with one gradient that it can compute: nothing, overwrite the destination, or add to it.
enum class Use : std::uint8_t { skip, write, add };

}  // namespace lathe
