#include "lathe/training/loader.h"

#include <algorithm>
#include <cmath>

#include "lathe/runtime/error.h"
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

TokenBatches::TokenBatches(const TokenizedSamples& samples, std::int64_t budget, std::uint32_t seed)
    : samples_(samples), budget_(budget), seed_(seed) {
  enter(0);
}

void TokenBatches::enter(std::int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_ = RandomNumbers(seed_, RandomUse::shuffle, static_cast<std::uint32_t>(epoch))
               .permutation(static_cast<std::int32_t>(samples_.count()));
  starts_.assign(1, 0);
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const std::int64_t length = samples_.length(order_[i]);
    if (length > budget_) throw LogicError("TokenBatches: a sample has more tokens than a batch");
    if (tokens + length > budget_) {
      starts_.push_back(i);
      tokens = 0;
    }
    tokens += length;
  }
  starts_.push_back(order_.size());
  if (epoch + 1 == static_cast<std::int64_t>(first_step_.size()))
    first_step_.push_back(first_step_.back() + static_cast<std::int64_t>(starts_.size()) - 1);
}

std::span<const std::int32_t> TokenBatches::batch(std::int64_t step) {
  while (step >= first_step_.back()) enter(static_cast<std::int64_t>(first_step_.size()) - 1);
  const auto epoch = std::ranges::upper_bound(first_step_, step) - first_step_.begin() - 1;
  enter(epoch);
  const auto at = static_cast<std::size_t>(step - first_step_[static_cast<std::size_t>(epoch)]);
  return std::span(order_).subspan(starts_[at], starts_[at + 1] - starts_[at]);
}

double TokenBatches::steps_of(double epochs, double most) {
  const std::int64_t needed = (static_cast<std::int64_t>(samples_.ids.size()) + budget_ - 1) / budget_;
  const double least = epochs * static_cast<double>(needed);
  if (!(least <= most)) return least;
  const auto whole = static_cast<std::int64_t>(epochs);
  const double rest = epochs - static_cast<double>(whole);
  const std::int64_t last = rest > 0.0 ? whole + 1 : whole;
  while (static_cast<std::int64_t>(first_step_.size()) <= last) enter(static_cast<std::int64_t>(first_step_.size()) - 1);
  const auto begin = static_cast<std::size_t>(whole);
  auto steps = static_cast<double>(first_step_[begin]);
  if (rest > 0.0) steps += std::ceil(rest * static_cast<double>(first_step_[begin + 1] - first_step_[begin]));
  return steps;
}

double TokenBatches::epochs_at(std::int64_t steps) const {
  const auto after = std::ranges::upper_bound(first_step_, steps) - first_step_.begin();
  const auto epoch = static_cast<std::size_t>(after - 1);
  if (epoch + 1 == first_step_.size()) return static_cast<double>(epoch);
  return static_cast<double>(epoch) +
         static_cast<double>(steps - first_step_[epoch]) / static_cast<double>(first_step_[epoch + 1] - first_step_[epoch]);
}

bool TokenBatches::ends_epoch(std::int64_t steps) const { return std::ranges::binary_search(first_step_, steps); }

}  // namespace lathe
