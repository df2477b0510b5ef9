#include "lathe/runtime/pinned_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lathe {

PinnedRing::PinnedRing() {
  for (Slot& slot : slots_) slot = {.memory = make_pinned(kSlotBytes), .bytes = kSlotBytes, .copied = make_event()};
}

void PinnedRing::upload(std::byte* to, std::span<const std::byte> from, cudaStream_t stream) {
  while (!from.empty()) {
    const auto piece = from.first(std::min(from.size(), kSlotBytes));
    const std::span<std::byte> staged = stage(piece.size());
    std::memcpy(staged.data(), piece.data(), piece.size());
    send(to, staged, stream);
    to += piece.size();
    from = from.subspan(piece.size());
  }
}

std::span<std::byte> PinnedRing::stage(std::size_t bytes) {
  Slot& slot = slots_[next_];
  check(cudaEventSynchronize(slot.copied.get()));
  if (slot.bytes < bytes) {
    slot.bytes = std::bit_ceil(bytes);  // so that batches which vary soon find all slots large enough
    slot.memory = make_pinned(slot.bytes);
  }
  return {slot.memory.get(), bytes};
}

void PinnedRing::send(std::byte* to, std::span<const std::byte> staged, cudaStream_t stream) {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % kSlots;
  check(cudaMemcpyAsync(to, staged.data(), staged.size(), cudaMemcpyHostToDevice, stream));
  check(cudaEventRecord(slot.copied.get(), stream));
}

}  // namespace lathe
