#pragma once
#include <bit>
#include <cstdint>
#include <type_traits>

namespace lathe::test {

/// A number's bits: NaN equals itself by them, and 0 isn't -0.
template <class T>
auto bits(T number) {
  if constexpr (sizeof(T) == sizeof(std::uint16_t)) {
    return std::bit_cast<std::uint16_t>(number);
  } else {
    return std::bit_cast<std::conditional_t<sizeof(T) == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>>(number);
  }
}

}  // namespace lathe::test
