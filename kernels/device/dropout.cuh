#pragma once
// Dropout's decisions for the columns of rows (kernels/dropout.h defines them).
#include <array>
#include <cstdint>

#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/warp.cuh"
#include "lathe/kernels/dropout.h"

namespace lathe::device {

/// One element-wise dropout site. Nothing is read where the threshold is 0.
class ElementDropout {
 public:
  /// A row's place in the global batch, as the first lane of a warp has read it for all.
  struct Row {
    std::uint32_t sample, position;
  };

  __device__ __forceinline__ explicit ElementDropout(const Dropout& dropout)
      : sample_(dropout.sample), position_(dropout.position), site_(dropout.site), threshold_(dropout.threshold) {
    if (threshold_ == 0) return;
    key_ = {.seed = dropout.key->seed, .step = dropout.key->step};
    // dropout_scale() without fp64: of two integers below 2^24 the quotient is the same float either way.
    scale_ = 65536.0F / static_cast<float>(65536U - threshold_);
  }

  __device__ __forceinline__ bool active() const { return threshold_ != 0; }
  /// What kept elements are multiplied by.
  __device__ __forceinline__ float scale() const { return scale_; }

  __device__ __forceinline__ Row row(std::int64_t t) const {
    if (threshold_ == 0 || threadIdx.x % kWarp != 0) return {};
    return {.sample = static_cast<std::uint32_t>(sample_[t]), .position = static_cast<std::uint32_t>(position_[t])};
  }

  /// Which of the row's columns column .. column + 8 are kept: bit i for column + i. 8 divides `column`.
  __device__ __forceinline__ std::uint32_t kept(Row row, std::uint32_t column) const {
    const auto words = philox4x32({row.sample, row.position, site_, column / 8}, key_);
    std::uint32_t bits = 0;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) bits |= philox_value(words, i) >= threshold_ ? 1U << i : 0U;
    return bits;
  }

 private:
  const std::int32_t* sample_;
  const std::int32_t* position_;
  RandomKey key_{};
  std::uint32_t site_;
  std::uint32_t threshold_;
  float scale_ = 1.0F;
};

}  // namespace lathe::device
