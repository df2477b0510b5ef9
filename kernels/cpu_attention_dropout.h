#pragma once
// Dropout of attention probabilities on the CPU: the decisions for a tile of queries, many Philox calls at once (philox.h defines
// one; AttentionDropout says which value is whose). Internal to the CPU kernels (cpu_dispatch.h).
#include <immintrin.h>

#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/cpu_attention.h"
#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/cpu_vector.h"
#include "lathe/kernels/philox.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// The values of one word of each query's call: even keys draw the low halves, odd keys the high ones.
struct KeptPair {
  LaneBits even;
  LaneBits odd;
};

/// Calls of one vector of queries are spread over 64-bit lanes: for fp32 queries of even and of odd number in two registers.
template <class T>
inline constexpr int kCallVectors = kLanes<T> / kWideLanes;

#ifdef __AVX512F__
[[gnu::always_inline]] inline KeptPair kept_pair(const WideLanes (&word)[2], std::uint32_t threshold) {
  const auto odd_queries = reinterpret_cast<__m512i>(word[1] << 32U);
  const __m512i x = _mm512_mask_blend_epi32(0xAAAA, reinterpret_cast<__m512i>(word[0]), odd_queries);
  const __m512i least = _mm512_set1_epi32(static_cast<int>(threshold << 16U));
  const auto even = reinterpret_cast<__m512i>(reinterpret_cast<Vector<std::uint32_t>>(x) << 16U);
  return {_mm512_cmpge_epu32_mask(even, least), _mm512_cmpge_epu32_mask(x, least)};
}
[[gnu::always_inline]] inline KeptPair kept_pair(const WideLanes (&word)[1], std::uint32_t threshold) {
  const __m512i least = _mm512_set1_epi64(static_cast<std::int64_t>(std::uint64_t{threshold} << 48U));
  return {_mm512_cmpge_epu64_mask(reinterpret_cast<__m512i>(word[0] << 48U), least),
          _mm512_cmpge_epu64_mask(reinterpret_cast<__m512i>(word[0] << 32U), least)};
}
#else
[[gnu::always_inline]] inline KeptPair kept_pair(const WideLanes (&word)[2], std::uint32_t threshold) {
  const auto odd_queries = reinterpret_cast<__m256i>(word[1] << 32U);
  const __m256i x = _mm256_blend_epi32(reinterpret_cast<__m256i>(word[0]), odd_queries, 0xAA);
  const __m256i below = _mm256_set1_epi32(static_cast<int>(threshold) - 1);
  const __m256i even = _mm256_cmpgt_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)), below);
  const __m256i odd = _mm256_cmpgt_epi32(_mm256_srli_epi32(x, 16), below);
  return {static_cast<LaneBits>(_mm256_movemask_ps(_mm256_castsi256_ps(even))),
          static_cast<LaneBits>(_mm256_movemask_ps(_mm256_castsi256_ps(odd)))};
}
[[gnu::always_inline]] inline KeptPair kept_pair(const WideLanes (&word)[1], std::uint32_t threshold) {
  const __m256i below = _mm256_set1_epi64x(static_cast<std::int64_t>(threshold) - 1);
  const __m256i even = _mm256_cmpgt_epi64(reinterpret_cast<__m256i>(word[0] & 0xFFFFU), below);
  const __m256i odd = _mm256_cmpgt_epi64(reinterpret_cast<__m256i>((word[0] >> 16U) & 0xFFFFU), below);
  return {static_cast<LaneBits>(_mm256_movemask_pd(_mm256_castsi256_pd(even))),
          static_cast<LaneBits>(_mm256_movemask_pd(_mm256_castsi256_pd(odd)))};
}
#endif

/// Dropout's decisions for a tile of queries of one head, a bit each, a whole vector of queries at a time. Of a call's counter
/// (sample, query, head, block of keys) two words are constant; the other two meet only in the third round of Philox, so that
/// what each contributes to the first three rounds is worked out once a query and once a block of keys.
template <class T>
class TileDropout {
 public:
  /// For queries [first_query, first_query + vectors * lanes) of the sequence.
  [[gnu::noinline]] void start(const AttentionDropout& dropout, std::int64_t sequence, std::uint32_t head,
                               std::int64_t first_query, std::int64_t vectors) noexcept {
    key_ = *dropout.key;
    threshold_ = dropout.threshold;
    vectors_ = vectors;
    const auto sample = static_cast<std::uint32_t>(dropout.sample[sequence]);
    const std::uint64_t head_product = std::uint64_t{kMultiplier1} * head;
    const std::uint64_t sample_product = std::uint64_t{kMultiplier0} * sample;
    head_low_ = static_cast<std::uint32_t>(head_product);
    sample_high_ = static_cast<std::uint32_t>(sample_product >> 32U) ^ key_.step;
    const auto sample_low = static_cast<std::uint32_t>(sample_product);
    const std::uint32_t head_high = static_cast<std::uint32_t>(head_product >> 32U) ^ key_.seed;
    for (int i = 0; i < kCallVectors<T> * vectors; ++i) {
      // Register i holds every kCallVectors-th query of vector i / kCallVectors, from query i % kCallVectors of it.
      const std::int64_t origin = first_query + i / kCallVectors<T> * kLanes<T> + i % kCallVectors<T>;
      const WideLanes query = kLaneNumbers * static_cast<std::uint64_t>(kCallVectors<T>) + static_cast<std::uint64_t>(origin);
      const WideLanes p0 = multiply_low_words(query ^ head_high, WideLanes{} + kMultiplier0);
      const WideLanes p1 = multiply_low_words((p0 >> 32U) ^ (sample_low ^ (key_.step + kWeyl1)), WideLanes{} + kMultiplier1);
      query_[i] = {(p1 >> 32U) ^ (key_.seed + 2 * kWeyl0), p1, p0};
    }
  }

  /// bits[j * kTileVectors + v] = the decisions for key first_key + j and vector v, for j below keys.
  [[gnu::noinline]] void draw(std::int64_t first_key, std::int64_t keys, LaneBits* bits) const noexcept {
    for (std::int64_t group = first_key / 32; 32 * group < first_key + keys; ++group) {
      for (std::int64_t column = 0; column < 4; ++column) {
        const std::int64_t key = 32 * group + 2 * column - first_key;
        if (key >= keys) break;
        const BlockPart block = block_part(static_cast<std::uint32_t>(4 * group + column));
        for (std::int64_t v = 0; v < vectors_; ++v) draw_vector(block, v, key, keys, bits + v);
      }
    }
  }

 private:
  static constexpr std::uint32_t kMultiplier0 = 0xD2511F53U, kMultiplier1 = 0xCD9E8D57U;
  static constexpr std::uint32_t kWeyl0 = 0x9E3779B9U, kWeyl1 = 0xBB67AE85U;

  /// What a query, and a block of keys, contribute to the words after three rounds: x0 and x2 are exclusive ors of both parts.
  struct QueryPart {
    WideLanes x0, x1, x2;
  };
  struct BlockPart {
    std::uint32_t x0, x2, x3;
  };

  [[gnu::always_inline]] BlockPart block_part(std::uint32_t block) const {
    const std::uint64_t p1 = std::uint64_t{kMultiplier1} * (sample_high_ ^ block);
    const std::uint32_t x0 = static_cast<std::uint32_t>(p1 >> 32U) ^ head_low_ ^ (key_.seed + kWeyl0);
    const std::uint64_t p0 = std::uint64_t{kMultiplier0} * x0;
    return {static_cast<std::uint32_t>(p1), static_cast<std::uint32_t>(p0 >> 32U) ^ (key_.step + 2 * kWeyl1),
            static_cast<std::uint32_t>(p0)};
  }

  [[gnu::always_inline]] void draw_vector(const BlockPart& block, std::int64_t v, std::int64_t key, std::int64_t keys,
                                          LaneBits* bits) const {
    WideLanes x[4][kCallVectors<T>];
#pragma GCC unroll 2
    for (int i = 0; i < kCallVectors<T>; ++i) {
      const QueryPart& query = query_[v * kCallVectors<T> + i];
      x[0][i] = query.x0 ^ block.x0;
      x[1][i] = query.x1;
      x[2][i] = query.x2 ^ block.x2;
      x[3][i] = WideLanes{} + block.x3;
    }
    const WideLanes m0 = WideLanes{} + kMultiplier0;
    const WideLanes m1 = WideLanes{} + kMultiplier1;
#pragma GCC unroll 7
    for (std::uint32_t round = 3; round < 10; ++round) {
#pragma GCC unroll 2
      for (int i = 0; i < kCallVectors<T>; ++i) {
        const WideLanes p0 = multiply_low_words(x[0][i], m0);
        const WideLanes p1 = multiply_low_words(x[2][i], m1);
        x[0][i] = (p1 >> 32U) ^ x[1][i] ^ (key_.seed + round * kWeyl0);
        x[1][i] = p1;
        x[2][i] = (p0 >> 32U) ^ x[3][i] ^ (key_.step + round * kWeyl1);
        x[3][i] = p0;
      }
    }
#pragma GCC unroll 4
    for (std::int64_t w = 0; w < 4; ++w) {
      const std::int64_t j = key + 8 * w;
      if (j >= keys) break;
      const KeptPair kept = kept_pair(x[w], threshold_);
      if (j >= 0) bits[j * kTileVectors] = kept.even;
      if (j >= -1 && j + 1 < keys) bits[(j + 1) * kTileVectors] = kept.odd;
    }
  }

  QueryPart query_[kTileVectors * kCallVectors<T>];
  RandomKey key_;
  std::uint32_t threshold_ = 0;
  std::uint32_t head_low_ = 0;
  std::uint32_t sample_high_ = 0;
  std::int64_t vectors_ = 0;
};

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
