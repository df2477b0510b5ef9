#pragma once
// How a device's memory is handed out. Internal to runtime/.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "lathe/runtime/device.h"

namespace lathe {

struct Storage::Block {
  std::atomic<int> references{0};
  std::int64_t bytes = 0;    // asked for
  std::int64_t granted = 0;  // taken from the pool
  std::byte* data = nullptr;
  MemoryPool* pool = nullptr;  // that it is of
  DeviceRef device;            // keeps the memory's owner alive; empty while the block is unused
};

/// Where a pool has its memory from; it goes back with the source.
class MemorySource {
 public:
  MemorySource() = default;
  virtual ~MemorySource() = default;
  MemorySource(const MemorySource&) = delete;
  MemorySource& operator=(const MemorySource&) = delete;
  MemorySource(MemorySource&&) = delete;
  MemorySource& operator=(MemorySource&&) = delete;

  /// A further piece of at least `bytes` bytes, aligned to 64; empty where there is none.
  virtual std::span<std::byte> grow(std::int64_t bytes) = 0;
  /// Bytes that can still be handed out, where the pieces so far have `free` bytes.
  virtual std::int64_t available(std::int64_t free) const = 0;
  /// Whether `bytes` bytes that end at `end` may be used: addresses may cost nothing until they are touched.
  virtual bool admit(std::int64_t bytes, const std::byte* end) = 0;
  /// Whether there is memory behind the addresses, so that AddressSanitizer is told which of it may be touched: for that it needs an eighth as much.
  virtual bool is_real() const noexcept { return true; }
};

/// One range of addresses of the host, as large as `bytes`, that becomes real as it is first touched. Throws OutOfMemoryError where
/// addresses can't be reserved.
std::unique_ptr<MemorySource> host_memory_source(std::int64_t bytes);

/// A TiB of addresses behind which there is never any memory, for what is only counted; the two of a device don't overlap.
enum class PromisedMemory : std::uint8_t { lasting, step };
std::unique_ptr<MemorySource> promised_memory_source(PromisedMemory which);

/// Free holes, the lowest that fits first, and the records of blocks, which are used again like the memory. Safe from several threads.
class MemoryPool {
 public:
  /// `advice` ends the message where memory is missing.
  MemoryPool(std::unique_ptr<MemorySource> source, std::string advice);

  /// Throws OutOfMemoryError.
  Storage::Block* take(std::int64_t bytes);
  void give_back(Storage::Block* block) noexcept;
  MemoryUse use() const;
  /// Bytes of its holes, and what can be handed out with what the source still has.
  std::int64_t free() const;
  std::int64_t available() const;

 private:
  struct Hole {
    std::byte* begin;
    std::int64_t bytes;
  };
  std::vector<Hole>::iterator find_hole(std::int64_t bytes);
  std::int64_t count_free() const;
  [[noreturn]] void refuse(std::int64_t bytes) const;

  mutable std::mutex mutex_;
  std::unique_ptr<MemorySource> source_;
  std::string advice_;
  std::vector<Hole> holes_;  // by address
  std::deque<Storage::Block> blocks_;
  std::vector<Storage::Block*> unused_;
  MemoryUse use_;
};

}  // namespace lathe
