#pragma once
// Dropout's multipliers for the columns of a row (kernels/dropout.h defines them).
#include <array>
#include <cstdint>

#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/dropout.h"

namespace lathe::device {

/// What is drawn for one row: nothing where threshold is 0, and nothing is read then.
class RowDropout {
 public:
  __device__ __forceinline__ RowDropout(const Dropout& dropout, std::int64_t row)
      : site_(dropout.site), threshold_(dropout.threshold) {
    if (threshold_ == 0) return;
    key_ = {.seed = dropout.key->seed, .step = dropout.key->step};
    sample_ = static_cast<std::uint32_t>(dropout.sample[row]);
    position_ = static_cast<std::uint32_t>(dropout.position[row]);
    scale_ = static_cast<float>(dropout_scale(threshold_));
  }

  __device__ __forceinline__ bool active() const { return threshold_ != 0; }

  /// Multiplies value[0..N), columns column .. column + N of the row, by the scale or by 0. N columns lie within eight: N divides 8 and
  /// `column`.
  template <int N>
  __device__ __forceinline__ void apply(float (&value)[N], std::uint32_t column) const {
    static_assert(8 % N == 0);
    if (threshold_ == 0) return;
    const auto words = philox4x32({sample_, position_, site_, column / 8}, key_);
    const unsigned first = N == 8 ? 0 : column % 8;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) value[i] *= philox_value(words, first + i) >= threshold_ ? scale_ : 0.0F;
  }

 private:
  RandomKey key_{};
  std::uint32_t sample_ = 0;
  std::uint32_t position_ = 0;
  std::uint32_t site_;
  std::uint32_t threshold_;
  float scale_ = 1.0F;
};

}  // namespace lathe::device
