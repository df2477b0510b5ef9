#pragma once
// Uploads that don't wait for the device: through slots of pinned memory, each used again once the copy from it has run. The host may be as
// many uploads ahead of the device as there are slots. Internal to runtime/.
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
  /// The next slot's memory, at least `bytes` of it, for send().
  std::span<std::byte> stage(std::size_t bytes);
  /// Enqueues the copy of what stage() gave last.
  void send(std::byte* to, std::span<const std::byte> staged, cudaStream_t stream);

 private:
  static constexpr std::size_t kSlots = 8;  // a training step takes two
  static constexpr std::size_t kSlotBytes = std::size_t{1} << 20U;
  struct Slot {
    PinnedMemory memory;
    std::size_t bytes = 0;
    OwnedEvent copied;
  };
  std::array<Slot, kSlots> slots_;
  std::size_t next_ = 0;
};

}  // namespace lathe
