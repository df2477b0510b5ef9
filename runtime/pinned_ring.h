#pragma once
// Uploads that don't wait for the device: through slots of pinned memory, each used again once the copy from it has run. Internal to
// runtime/.
#include <array>
#include <cstddef>
#include <span>

#include "lathe/runtime/cuda_handles.h"

namespace lathe {

class PinnedRing {
 public:
  PinnedRing();

  /// Enqueues the copy of `from`, piece by piece; returns when all of it has been taken over.
  void upload(std::byte* to, std::span<const std::byte> from, cudaStream_t stream);

 private:
  static constexpr std::size_t kSlots = 4;
  static constexpr std::size_t kSlotBytes = std::size_t{1} << 20U;
  struct Slot {
    PinnedMemory memory;
    OwnedEvent copied;
  };
  std::array<Slot, kSlots> slots_;
  std::size_t next_ = 0;
};

}  // namespace lathe
