#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#include <array>
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// The key of every random number of a step. A scalar in device memory, so that a captured graph replays with new masks.
struct RandomKey {
  std::uint32_t seed = 0;
  std::uint32_t step = 0;
};

/// Four 32-bit words from a 128-bit counter and a key; each counter gives an independent value.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, RandomKey key) {
  std::uint32_t k0 = key.seed;
  std::uint32_t k1 = key.step;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32U) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32U) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return counter;
}

/// 16-bit value `n` (0..7) of a call: values 2w and 2w+1 are the low and the high half of word w.
constexpr std::uint32_t philox_value(const std::array<std::uint32_t, 4>& words, unsigned n) {
  return (words[n / 2] >> (16U * (n % 2))) & 0xFFFFU;
}

}  // namespace lathe
