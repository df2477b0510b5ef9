#pragma once
// Which samples a step sees.
#include <cstdint>
#include <span>
#include <vector>

#include "lathe/text/packing.h"

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

/// Batches of a bounded number of tokens, one epoch after the other: all samples in SampleOrder's order, each batch taking samples as long as
/// they fit. How many batches an epoch has thus depends a little on its order.
class TokenBatches {
 public:
  /// `samples`, none of which may have more than `budget` tokens, must outlive this.
  TokenBatches(const TokenizedSamples& samples, std::int64_t budget, std::uint32_t seed);

  /// The samples of step `step`, counted over all epochs from 0. Valid until the next call.
  std::span<const std::int32_t> batch(std::int64_t step);
  /// The steps of the first epoch.
  std::int64_t first_epoch_steps() const { return first_step_[1]; }
  /// The steps of so many epochs: all of the whole ones, and of the last one its share, rounded up. At least what so many epochs have if none has
  /// more steps than its tokens need, which alone is what is given where it is above `most`.
  double steps_of(double epochs, double most);
  /// Epochs that the first `steps` steps are, all of which batch() or steps_of() has come by.
  double epochs_at(std::int64_t steps) const;
  bool ends_epoch(std::int64_t steps) const;

 private:
  void enter(std::int64_t epoch);

  const TokenizedSamples& samples_;
  std::int64_t budget_;
  std::uint32_t seed_;
  std::int64_t epoch_ = -1;
  std::vector<std::int32_t> order_;
  std::vector<std::size_t> starts_;          // [batches of the epoch + 1] into order_
  std::vector<std::int64_t> first_step_{0};  // of each epoch that is known, and of the one after the last
};

}  // namespace lathe
