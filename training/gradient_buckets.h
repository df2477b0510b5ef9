#pragma once
// When which gradients are complete: what ranks sum beside the rest of backward.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lathe/runtime/device_event.h"
#include "lathe/runtime/parameters.h"
#include "lathe/runtime/tensor.h"

namespace [[gnu::visibility("default")]] lathe {

/// The gradients of an arena, cut into pieces in the arena's order, which is about that in which backward completes them; and for each the moment
/// of the device's stream at which it is complete. The moments are those of the last backward: a step's earlier micro-batches have theirs too,
/// which the last one's replace before anybody waits for them.
class GradientBuckets {
 public:
  /// `bytes` are a bucket's at most, but for one block of the arena. Throws LogicError for an arena without gradients.
  GradientBuckets(const ParameterArena& arena, std::int64_t bytes);

  std::span<const Tensor> gradients() const noexcept { return gradients_; }
  /// The moment at which bucket i was complete last. Before the first backward nobody has to wait for it.
  const DeviceEvent& complete(std::size_t i) const { return complete_[i]; }

  /// A backward begins: nothing is complete.
  void begin();
  /// What the device has been given makes `gradient` whole, one parameter's of the arena. To be called once for each: from Tape::tell.
  void ready(const Tensor& gradient);
  /// What the device has been given makes all of them whole.
  void all_ready();

 private:
  std::vector<Tensor> gradients_;
  std::vector<DeviceEvent> complete_;
  std::vector<std::int64_t> parameters_;  // in each bucket
  std::vector<std::int64_t> missing_;     // of those, in this backward
};

}  // namespace lathe
