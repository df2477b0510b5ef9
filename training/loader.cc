#include "lathe/training/loader.h"

#include <algorithm>

#include "lathe/runtime/random.h"

namespace lathe {

SampleOrder::SampleOrder(std::int32_t samples, std::int32_t batch_size, std::uint32_t seed)
    : samples_(samples), batch_size_(batch_size), seed_(seed) {}

std::int64_t SampleOrder::steps_per_epoch() const { return (samples_ + batch_size_ - 1) / batch_size_; }

std::span<const std::int32_t> SampleOrder::batch(std::int64_t step) {
  const std::int64_t epoch = step / steps_per_epoch();
  if (epoch != epoch_) {
    order_ = RandomNumbers(seed_, RandomUse::shuffle, static_cast<std::uint32_t>(epoch)).permutation(samples_);
    epoch_ = epoch;
  }
  const auto begin = static_cast<std::size_t>(step % steps_per_epoch() * batch_size_);
  return std::span(order_).subspan(begin, std::min(static_cast<std::size_t>(batch_size_), order_.size() - begin));
}

}  // namespace lathe
