#pragma once
// Which samples a step sees.
#include <cstdint>
#include <span>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// The batches of one epoch after the other: all samples in an order that depends on (seed, epoch) alone, cut into batches of `batch_size`;
/// the last batch of an epoch may be smaller.
class SampleOrder {
 public:
  SampleOrder(std::int32_t samples, std::int32_t batch_size, std::uint32_t seed);

  std::int64_t steps_per_epoch() const;
  /// The samples of step `step`, counted over all epochs from 0. Valid until the next call.
  std::span<const std::int32_t> batch(std::int64_t step);

 private:
  std::int32_t samples_;
  std::int32_t batch_size_;
  std::uint32_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int32_t> order_;
};

}  // namespace lathe
