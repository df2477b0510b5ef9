#include "lathe/runtime/pinned_ring.h"

#include <algorithm>
#include <cstring>

namespace lathe {

PinnedRing::PinnedRing() {
  for (Slot& slot : slots_) slot = {.memory = make_pinned(kSlotBytes), .copied = make_event()};
}

void PinnedRing::upload(std::byte* to, std::span<const std::byte> from, cudaStream_t stream) {
  while (!from.empty()) {
    const auto piece = from.first(std::min(from.size(), kSlotBytes));
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % kSlots;
    check(cudaEventSynchronize(slot.copied.get()));
    std::memcpy(slot.memory.get(), piece.data(), piece.size());
    check(cudaMemcpyAsync(to, slot.memory.get(), piece.size(), cudaMemcpyHostToDevice, stream));
    check(cudaEventRecord(slot.copied.get(), stream));
    to += piece.size();
    from = from.subspan(piece.size());
  }
}

}  // namespace lathe
