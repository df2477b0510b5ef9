#pragma once
// Dropout of attention probabilities (kernels/attention.h defines whose decision is where).
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe::device {

/// The decisions for one sequence and head. A Philox call decides eight keys of a query: with block = 4 (key / 32) + (key % 8) / 2 those that
/// one thread's accumulators (fragment.cuh) have of 32 keys. Of a call's counter (sample, query, head, block) two words are constant, and
/// query and block meet in the third round only: what each contributes to the rounds before is worked out once.
class ProbabilityDropout {
 public:
  /// What a query contributes.
  struct Query {
    std::uint32_t x0, x1, x2;
  };

  /// Keeps everything.
  ProbabilityDropout() = default;
  /// `head` counts through all layers: layer * NH + head. The threshold isn't 0.
  __device__ __forceinline__ ProbabilityDropout(const AttentionDropout& dropout, int sequence, std::uint32_t head)
      : threshold_(dropout.threshold << 16U) {
    // By way of the first lane, so that the compiler knows them to be the same for a warp: all that follows costs no register a thread.
    key_ = {.seed = from_first_lane(dropout.key->seed), .step = from_first_lane(dropout.key->step)};
    const std::uint64_t of_sample =
        std::uint64_t{kMultiplier0} * static_cast<std::uint32_t>(from_first_lane(dropout.sample[sequence]));
    const std::uint64_t of_head = std::uint64_t{kMultiplier1} * head;
    sample_low_ = low(of_sample);
    sample_high_ = high(of_sample) ^ key_.step;
    head_low_ = low(of_head);
    head_high_ = high(of_head) ^ key_.seed;
  }

  /// What kept probabilities are multiplied by.
  __device__ __forceinline__ float scale() const {
    // dropout_scale() without fp64: of two integers below 2^24 the quotient is the same float either way.
    return 65536.0F / static_cast<float>(65536U - (threshold_ >> 16U));
  }

  __device__ __forceinline__ Query query(int query) const {
    const std::uint64_t p0 = std::uint64_t{kMultiplier0} * (head_high_ ^ static_cast<std::uint32_t>(query));
    const std::uint64_t p1 = std::uint64_t{kMultiplier1} * (high(p0) ^ sample_low_ ^ (key_.step + kWeyl1));
    return {.x0 = high(p1) ^ (key_.seed + 2 * kWeyl0), .x1 = low(p1), .x2 = low(p0)};
  }

  /// words[r]: those of the call for queries[r] and `block`. Several calls at once share the rounds' keys, and hide each other's latency.
  template <int kCount>
  __device__ __forceinline__ void draw(std::uint32_t (&words)[kCount][4], const Query (&queries)[kCount],
                                       std::uint32_t block) const {
    const std::uint64_t p1 = std::uint64_t{kMultiplier1} * (sample_high_ ^ block);
    const std::uint64_t p0 = std::uint64_t{kMultiplier0} * (high(p1) ^ head_low_ ^ (key_.seed + kWeyl0));
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      words[r][0] = queries[r].x0 ^ low(p1);
      words[r][1] = queries[r].x1;
      words[r][2] = queries[r].x2 ^ high(p0) ^ (key_.step + 2 * kWeyl1);
      words[r][3] = low(p0);
    }
    const std::uint32_t seed = computed_here(key_.seed);
    const std::uint32_t step = computed_here(key_.step);
#pragma unroll
    for (std::uint32_t round = 3; round < 10; ++round) {
      const std::uint32_t k0 = seed + round * kWeyl0;
      const std::uint32_t k1 = step + round * kWeyl1;
#pragma unroll
      for (auto& word : words) {
        const std::uint64_t q0 = std::uint64_t{kMultiplier0} * word[0];
        const std::uint64_t q1 = std::uint64_t{kMultiplier1} * word[2];
        word[0] = high(q1) ^ word[1] ^ k0;
        word[1] = low(q1);
        word[2] = high(q0) ^ word[3] ^ k1;
        word[3] = low(q0);
      }
    }
  }

  /// Sets to 0 what is dropped of the pair of an even key and the next, which draw the two halves of a word.
  __device__ __forceinline__ void drop(float& even, float& odd, std::uint32_t word) const {
    even = (word << 16U) >= threshold_ ? even : 0.0F;
    odd = word >= threshold_ ? odd : 0.0F;  // the lower half decides nothing: the threshold's is 0
  }

  /// A call's eight decisions: bit 2 i for the even key of word i, bit 2 i + 1 for the odd one.
  __device__ __forceinline__ std::uint32_t kept(const std::uint32_t (&words)[4]) const {
    std::uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((words[i] << 16U) >= threshold_) bits |= 1U << (2 * i);
      if (words[i] >= threshold_) bits |= 2U << (2 * i);
    }
    return bits;
  }

  /// Whether one probability is kept, for code that doesn't hold fragments.
  __device__ __forceinline__ bool kept(int query, int key) const {
    std::uint32_t words[1][4];
    const Query queries[1] = {this->query(query)};
    const auto j = static_cast<std::uint32_t>(key);
    draw(words, queries, 4 * (j / 32) + j % 8 / 2);
    return (kept(words[0]) >> (2 * (j % 32 / 8) + j % 2) & 1U) != 0;
  }

 private:
  /// The same value, of which the compiler doesn't know it. What is computed of it is then computed there, not before a loop: fourteen sums
  /// cost less than the registers that would hold them.
  static __device__ __forceinline__ std::uint32_t computed_here(std::uint32_t value) {
#ifndef LATHE_EMULATED
    asm volatile("" : "+r"(value));
#endif
    return value;
  }

  static constexpr std::uint32_t kMultiplier0 = 0xD2511F53U, kMultiplier1 = 0xCD9E8D57U;
  static constexpr std::uint32_t kWeyl0 = 0x9E3779B9U, kWeyl1 = 0xBB67AE85U;

  static __device__ __forceinline__ std::uint32_t low(std::uint64_t product) { return static_cast<std::uint32_t>(product); }
  static __device__ __forceinline__ std::uint32_t high(std::uint64_t product) {
    return static_cast<std::uint32_t>(product >> 32U);
  }

  RandomKey key_{};
  std::uint32_t threshold_ = 0;
  std::uint32_t sample_low_ = 0, sample_high_ = 0;
  std::uint32_t head_low_ = 0, head_high_ = 0;
};

}  // namespace lathe::device
