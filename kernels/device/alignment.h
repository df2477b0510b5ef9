#pragma once
// What a contract leaves open: it promises the alignment of an element, kernels would rather move 16 bytes.
#include <cstdint>

namespace lathe::device {

/// Whether all of the addresses are multiples of 16; null is.
template <class... Pointers>
bool aligned_to_16(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

/// Whether all rows [channels] of T that begin at these addresses do so at multiples of 16.
template <class T, class... Pointers>
bool rows_aligned_to_16(std::int64_t channels, const Pointers*... pointers) {
  return channels * static_cast<std::int64_t>(sizeof(T)) % 16 == 0 && aligned_to_16(pointers...);
}

}  // namespace lathe::device
