#include "lathe/training/gradient_buckets.h"

#include <algorithm>

#include "lathe/kernels/optimizer.h"
#include "lathe/optim/optimizer_ranks.h"
#include "lathe/runtime/error.h"

namespace lathe {

GradientBuckets::GradientBuckets(const ParameterArena& arena, std::int64_t bytes) {
  const Tensor& all = arena.gradients();
  if (!all) throw LogicError("an arena without gradients has no buckets of them");
  const std::span<const ArenaBlock> blocks = arena.blocks();
  for (const Share& bucket : arena_buckets(all.size(), bytes / size_of(all.dtype()))) {
    const std::int64_t begin = bucket.begin / kArenaBlock;
    const std::int64_t count = bucket.count / kArenaBlock;
    gradients_.push_back(all.view(bucket.begin, Shape{bucket.count}));
    complete_.emplace_back(arena.device());
    const auto own = blocks.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
    parameters_.push_back(own.back().tensor - own.front().tensor + 1);  // they follow each other
  }
  begin();
}

void GradientBuckets::begin() { missing_ = parameters_; }

void GradientBuckets::ready(const Tensor& gradient) {
  for (std::size_t i = 0; i < gradients_.size(); ++i) {
    if (gradients_[i].overlaps(gradient) && --missing_[i] == 0) complete_[i].record();
  }
}

void GradientBuckets::all_ready() {
  std::ranges::fill(missing_, 0);
  for (DeviceEvent& event : complete_) event.record();
}

}  // namespace lathe
