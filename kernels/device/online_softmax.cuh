#pragma once
// Softmax of rows whose scores come a tile at a time ("Online normalizer calculation for softmax", Milakov and Gimelshein, 2018), in the
// registers that the tensor cores leave them in.
#include <cmath>

#include "lathe/kernels/device/fragment.cuh"
#include "lathe/kernels/device/math.cuh"

namespace lathe::device {

/// For each of a thread's rows a reference, which is a score that the row has met, and the sum of exponentials relative to it, in part: a
/// thread sums its own columns, and the four lanes of a row meet at the end. The reference is not quite the maximum: it moves only when a score
/// exceeds it by more than 8 powers of two. Until then exponentials are at most 256 instead of 1, which fp32 and bf16 hold as exactly, and
/// nothing that was computed before has to be scaled anew. A row's numbers are a function of its own scores.
template <int kM>
class OnlineSoftmax {
 public:
  /// Scores are multiplied by `scale`, which is positive.
  __device__ __forceinline__ explicit OnlineSoftmax(float scale) : slope_(scale * kLog2E) {
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      reference_[r] = -INFINITY;
      sum_[r] = 0.0F;
    }
  }

  /// Scores become exponentials, -inf becomes 0. `outputs`, which earlier exponentials have entered, follow where a row's reference moves.
  /// All lanes take part.
  template <int kN, int kOutputs>
  __device__ __forceinline__ void exponentiate(Accumulators<kM, kN>& scores, Accumulators<kM, kOutputs>& outputs) {
    float largest[2 * kM];
#pragma unroll
    for (float& row : largest) row = -INFINITY;
    scores.each([&](float& score, int row, int) { largest[row] = fmaxf(largest[row], score); });
    bool moves = false;
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) moves = moves || exceeds(largest[r], r);
    if (__any_sync(kAllLanes, moves)) move(largest, outputs);

    float offset[2 * kM];
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) offset[r] = reference_[r] == -INFINITY ? 0.0F : -reference_[r] * slope_;
    scores.each([&](float& score, int row, int) {
      score = fast_exp2(fmaf(score, slope_, offset[row]));
      sum_[row] += score;
    });
  }

  /// The sum of a row's exponentials relative to its reference, 0 where it has met no key, and the natural logarithm of that of the
  /// exponentials themselves, +inf where it has met none. All lanes take part.
  struct Sum {
    float exponentials, logarithm;
  };
  __device__ __forceinline__ Sum sum(int row, float scale) const {
    const float all = reduce_quad(sum_[row], Plus{});
    return {all, all == 0.0F ? INFINITY : fmaf(reference_[row], scale, logf(all))};
  }

 private:
  /// Whether the score lies too far above the row's reference. Any score does above none; -inf never does.
  __device__ __forceinline__ bool exceeds(float score, int row) const {
    return fmaf(score, slope_, -reference_[row] * slope_) > kSlack;
  }

  template <int kOutputs>
  __device__ __forceinline__ void move(const float (&largest)[2 * kM], Accumulators<kM, kOutputs>& outputs) {
    float shrink[2 * kM];
#pragma unroll
    for (int r = 0; r < 2 * kM; ++r) {
      const float of_row = reduce_quad(largest[r], [](float a, float b) { return fmaxf(a, b); });
      shrink[r] = 1.0F;
      if (exceeds(of_row, r)) {
        shrink[r] = fast_exp2((reference_[r] - of_row) * slope_);
        reference_[r] = of_row;
      }
      sum_[r] *= shrink[r];
    }
    outputs.each([&](float& output, int row, int) { output *= shrink[row]; });
  }

  static constexpr float kSlack = 8.0F;

  float slope_;
  float reference_[2 * kM];
  float sum_[2 * kM];
};

}  // namespace lathe::device
