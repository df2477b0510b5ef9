#pragma once
// The sum over ranks, in their order: what makes results a function of the number of ranks alone. Internal to runtime/.
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace lathe {

/// to[i] = ((from[0][i] + from[1][i]) + from[2][i]) + ... in fp32, rounded once where T is Bf16. `to` may be one of `from`, which has at least
/// one.
template <class T>
void sum_in_rank_order(T* to, std::span<const T* const> from, std::int64_t count) {
  // A piece of the sum stays in the cache while the ranks' elements stream by.
  constexpr std::int64_t kPiece = 2048;
  std::array<float, kPiece> sum;  // NOLINT(cppcoreguidelines-pro-type-member-init): written before it is read
  for (std::int64_t begin = 0; begin < count; begin += kPiece) {
    const std::int64_t length = std::min(kPiece, count - begin);
    // Begins with rank 0's elements and not with zero: 0 + -0 isn't -0.
    for (std::int64_t i = 0; i < length; ++i) sum[static_cast<std::size_t>(i)] = static_cast<float>(from.front()[begin + i]);
    for (const T* rank : from.subspan(1)) {
      for (std::int64_t i = 0; i < length; ++i) sum[static_cast<std::size_t>(i)] += static_cast<float>(rank[begin + i]);
    }
    for (std::int64_t i = 0; i < length; ++i) to[begin + i] = static_cast<T>(sum[static_cast<std::size_t>(i)]);
  }
}

}  // namespace lathe
