#pragma once
// A device: where tensors live and kernels run, with its memory and its stream.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "lathe/kernels/matmul.h"
#include "lathe/kernels/stream.h"

namespace [[gnu::visibility("default")]] lathe {

class Device;
using DeviceRef = std::shared_ptr<Device>;

/// A counted block of a device's memory. The handle is cheap to copy; the memory goes back to the device with the last one.
/// Counting and allocation are safe from several threads.
// NOLINTNEXTLINE(cppcoreguidelines-special-member-functions): the assignment takes its operand by value, copied or moved.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) noexcept;
  Storage(Storage&& other) noexcept;
  Storage& operator=(Storage other) noexcept;
  ~Storage();

  std::byte* data() const noexcept;
  std::int64_t bytes() const noexcept;
  const DeviceRef& device() const noexcept;
  explicit operator bool() const noexcept { return block_ != nullptr; }
  bool operator==(const Storage& other) const noexcept = default;

 private:
  friend class Device;
  struct Block;
  explicit Storage(Block* block) noexcept : block_(block) {}
  Block* block_ = nullptr;
};

/// What a device has handed out, in bytes.
struct MemoryUse {
  std::int64_t now = 0;
  std::int64_t peak = 0;
};

/// Memory comes from one range of addresses that is reserved at once and becomes real as it is first touched; freed blocks are
/// joined and used again, the lowest that fits first. A step that allocates as the step before therefore gets the same addresses,
/// warm in cache, and asks the system for nothing.
class Device : public std::enable_shared_from_this<Device> {
 public:
  struct CpuOptions {
    int threads = 1;
    /// The instruction set of the kernels; the processor's best where empty.
    std::optional<CpuTarget> target;
    /// Addresses reserved for tensors; twice the machine's memory where 0.
    std::int64_t reserved_bytes = 0;
  };
  /// Throws UsageError where the processor lacks AVX2, or can't run `target`, and OutOfMemoryError where addresses can't be
  /// reserved.
  static DeviceRef cpu(const CpuOptions& options);

  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  Device(Device&&) = delete;
  Device& operator=(Device&&) = delete;

  /// Uninitialised memory aligned to 64 bytes. Throws OutOfMemoryError.
  Storage allocate(std::int64_t bytes);
  MemoryUse memory() const;
  CpuStream stream() const noexcept { return stream_; }
  /// A number that no other tensor of this device has.
  std::uint64_t next_id() noexcept;

 private:
  friend class Storage;
  class Memory;
  explicit Device(const CpuOptions& options, CpuTarget target);
  void release(Storage::Block* block) noexcept;

  MatmulPlans plans_;
  CpuStream stream_;
  std::unique_ptr<Memory> memory_;
};

/// Scratch memory for one kernel call.
class Workspace {
 public:
  Workspace(Device& device, std::int64_t bytes) : storage_(bytes > 0 ? device.allocate(bytes) : Storage()) {}
  std::byte* data() const noexcept { return storage_ ? storage_.data() : nullptr; }

 private:
  Storage storage_;
};

}  // namespace lathe
