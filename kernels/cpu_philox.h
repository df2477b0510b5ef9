#pragma once
// Many Philox calls at once (philox.h defines one), and dropout's multipliers for a run of columns. Internal to the CPU kernels:
// every instruction set has its own copy, with internal linkage (cpu_dispatch.h).
#include <immintrin.h>

#include <cstdint>

#include "lathe/kernels/dropout.h"
#include "lathe/kernels/philox.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// 64-bit lanes, one Philox call in each. Only the low half of a lane counts: the multiplication reads no more, so that a
/// product serves as its own low word and needs no shuffle.
#ifdef __AVX512F__
using WideLanes [[gnu::vector_size(64)]] = std::uint64_t;
using NarrowLanes [[gnu::vector_size(32)]] = std::uint32_t;
[[gnu::always_inline]] inline WideLanes multiply_low_words(WideLanes a, WideLanes b) {
  // The form with a mask, all ones: of the plain one g++ 12 says that the compiler's own header reads an undefined variable.
  return reinterpret_cast<WideLanes>(_mm512_maskz_mul_epu32(0xFF, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
[[gnu::always_inline]] inline WideLanes even_lanes(WideLanes a, WideLanes b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
}
[[gnu::always_inline]] inline WideLanes odd_lanes(WideLanes a, WideLanes b) {
  return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
inline constexpr WideLanes kLaneNumbers = {0, 1, 2, 3, 4, 5, 6, 7};
inline constexpr WideLanes kEvenThenOdd = {0, 4, 1, 5, 2, 6, 3, 7};
#else
using WideLanes [[gnu::vector_size(32)]] = std::uint64_t;
using NarrowLanes [[gnu::vector_size(16)]] = std::uint32_t;
[[gnu::always_inline]] inline WideLanes multiply_low_words(WideLanes a, WideLanes b) {
  return reinterpret_cast<WideLanes>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
[[gnu::always_inline]] inline WideLanes even_lanes(WideLanes a, WideLanes b) { return __builtin_shufflevector(a, b, 0, 4, 2, 6); }
[[gnu::always_inline]] inline WideLanes odd_lanes(WideLanes a, WideLanes b) { return __builtin_shufflevector(a, b, 1, 5, 3, 7); }
inline constexpr WideLanes kLaneNumbers = {0, 1, 2, 3};
inline constexpr WideLanes kEvenThenOdd = {0, 2, 1, 3};
#endif
inline constexpr std::int64_t kWideLanes = sizeof(WideLanes) / sizeof(std::uint64_t);

struct WideWords {
  WideLanes word[4];
};

/// philox4x32({c0, c1, c2, c3's lane}, key) in each lane; the high halves of the result are noise.
[[gnu::always_inline]] inline WideWords philox_wide(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, WideLanes c3,
                                                    RandomKey key) {
  WideLanes x0 = WideLanes{} + c0;
  WideLanes x1 = WideLanes{} + c1;
  WideLanes x2 = WideLanes{} + c2;
  WideLanes x3 = c3;
  const WideLanes m0 = WideLanes{} + 0xD2511F53U;
  const WideLanes m1 = WideLanes{} + 0xCD9E8D57U;
#pragma GCC unroll 10
  for (std::uint32_t round = 0; round < 10; ++round) {
    const WideLanes p0 = multiply_low_words(x0, m0);
    const WideLanes p1 = multiply_low_words(x2, m1);
    x0 = (p1 >> 32U) ^ x1 ^ (key.seed + round * 0x9E3779B9U);
    x1 = p1;
    x2 = (p0 >> 32U) ^ x3 ^ (key.step + round * 0xBB67AE85U);
    x3 = p0;
  }
  return {{x0, x1, x2, x3}};
}

/// Calls that philox_lanes() and philox_values() make at once.
inline constexpr int kPhiloxLanes = 16;

/// words[w][i] = word w of philox4x32({c0, c1, c2, first + i}, key).
[[gnu::always_inline]] inline void philox_lanes(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t first,
                                                RandomKey key, std::uint32_t (&words)[4][kPhiloxLanes]) {
#pragma GCC unroll 4
  for (std::int64_t i = 0; i < kPhiloxLanes; i += kWideLanes) {
    const WideWords x = philox_wide(c0, c1, c2, kLaneNumbers + (first + static_cast<std::uint32_t>(i)), key);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const NarrowLanes narrow = __builtin_convertvector(x.word[w], NarrowLanes);
      __builtin_memcpy(words[w] + i, &narrow, sizeof narrow);
    }
  }
}

/// values[8 i + n] = value n (philox_value) of philox4x32({c0, c1, c2, first + i}, key).
[[gnu::always_inline]] inline void philox_values(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t first,
                                                 RandomKey key, std::uint16_t (&values)[8 * kPhiloxLanes]) {
  const WideLanes low_word = WideLanes{} + 0xFFFFFFFFU;
#pragma GCC unroll 4
  for (std::int64_t i = 0; i < kPhiloxLanes; i += kWideLanes) {
    // A call's four words, one after another in memory, are its eight values in order. Its two pairs of words are brought
    // together for the even lanes, then for the odd ones: kEvenThenOdd numbers the lanes such that the calls come out in order.
    const WideWords x = philox_wide(c0, c1, c2, kEvenThenOdd + (first + static_cast<std::uint32_t>(i)), key);
    const WideLanes front = (x.word[0] & low_word) | (x.word[1] << 32U);
    const WideLanes back = (x.word[2] & low_word) | (x.word[3] << 32U);
    const WideLanes in_order[2] = {even_lanes(front, back), odd_lanes(front, back)};
    __builtin_memcpy(values + 8 * i, in_order, sizeof in_order);
  }
}

/// Columns that dropout_multipliers() decides at once.
inline constexpr std::int64_t kDropoutColumns = std::int64_t{8} * kPhiloxLanes;

/// multipliers[i] = dropout_scale(threshold) where element (t, first_column + i) is kept, else 0, for the kDropoutColumns columns
/// from first_column on, which is a multiple of 8; columns past the row's end are decided too, and mean nothing. The key is read
/// even where the threshold is 0.
template <class T>
[[gnu::always_inline]] inline void dropout_multipliers(const Dropout& dropout, std::int64_t t, std::int64_t first_column,
                                                       T (&multipliers)[kDropoutColumns]) {
  alignas(64) std::uint16_t values[kDropoutColumns];
  philox_values(static_cast<std::uint32_t>(dropout.sample[t]), static_cast<std::uint32_t>(dropout.position[t]), dropout.site,
                static_cast<std::uint32_t>(first_column / 8), *dropout.key, values);
  const auto scale = static_cast<T>(dropout_scale(dropout.threshold));
  const std::uint32_t threshold = dropout.threshold;
#pragma omp simd
  for (std::int64_t i = 0; i < kDropoutColumns; ++i) multipliers[i] = std::uint32_t{values[i]} >= threshold ? scale : T{0};
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
