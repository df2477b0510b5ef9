#include "lathe/runtime/device.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "lathe/kernels/cpu_target.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) static_cast<void>(0)
#endif

namespace lathe {

struct Storage::Block {
  std::atomic<int> references{0};
  std::int64_t offset = 0;
  std::int64_t bytes = 0;    // asked for
  std::int64_t granted = 0;  // taken from the range
  std::byte* data = nullptr;
  DeviceRef device;  // keeps the memory's owner alive; empty while the block is unused
};

Storage::Storage(const Storage& other) noexcept : block_(other.block_) {
  if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
}
Storage::Storage(Storage&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
Storage& Storage::operator=(Storage other) noexcept {
  std::swap(block_, other.block_);
  return *this;
}
Storage::~Storage() {
  if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const DeviceRef owner = std::move(block_->device);
    owner->release(block_);
  }
}
std::byte* Storage::data() const noexcept { return block_->data; }
std::int64_t Storage::bytes() const noexcept { return block_->bytes; }
const DeviceRef& Storage::device() const noexcept { return block_->device; }

/// The reserved range, its free holes, and the records of blocks, which are used again like the memory.
class Device::Memory {
 public:
  explicit Memory(std::int64_t bytes) : bytes_(bytes) {
    void* base = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
      throw OutOfMemoryError(
          fmt::format("cannot reserve {} GiB of addresses for tensors: {}; is there a limit on virtual memory (ulimit -v)?",
                      bytes >> 30, std::strerror(errno)),
          bytes, 0);
    }
    base_ = static_cast<std::byte*>(base);
    ::madvise(base_, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
    holes_.reserve(kHolesExpected);
    unused_.reserve(kHolesExpected);
    holes_.push_back({0, bytes});
  }
  ~Memory() {
    ASAN_UNPOISON_MEMORY_REGION(base_, touched_);
    ::munmap(base_, static_cast<std::size_t>(bytes_));
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory(Memory&&) = delete;
  Memory& operator=(Memory&&) = delete;

  Storage::Block* take(std::int64_t bytes) {
    const std::scoped_lock lock(mutex_);
    // A guard of one line between blocks: what a kernel writes past its end is seen by AddressSanitizer.
    const std::int64_t granted = (std::max<std::int64_t>(bytes, 1) + kGuard + kAlignment - 1) / kAlignment * kAlignment;
    const auto hole = std::find_if(holes_.begin(), holes_.end(), [&](const Hole& h) { return h.bytes >= granted; });
    if (hole == holes_.end()) refuse(bytes, bytes_ - use_.now);
    require_real_memory(bytes, hole->offset + granted);
    Storage::Block* block = nullptr;
    if (unused_.empty()) {
      block = &blocks_.emplace_back();
    } else {
      block = unused_.back();
      unused_.pop_back();
    }
    block->offset = hole->offset;
    block->bytes = bytes;
    block->granted = granted;
    block->data = base_ + hole->offset;
    block->references.store(1, std::memory_order_relaxed);
    hole->offset += granted;
    hole->bytes -= granted;
    if (hole->bytes == 0) holes_.erase(hole);
    use_.now += granted;
    use_.peak = std::max(use_.peak, use_.now);
    touched_ = std::max(touched_, block->offset + granted);
    ASAN_UNPOISON_MEMORY_REGION(block->data, bytes);
    ASAN_POISON_MEMORY_REGION(block->data + bytes, granted - bytes);
    return block;
  }

  void give_back(Storage::Block* block) noexcept {
    const std::scoped_lock lock(mutex_);
    ASAN_POISON_MEMORY_REGION(block->data, block->granted);
    use_.now -= block->granted;
    const std::int64_t end = block->offset + block->granted;
    auto after = std::find_if(holes_.begin(), holes_.end(), [&](const Hole& h) { return h.offset >= end; });
    const bool joins_after = after != holes_.end() && after->offset == end;
    const bool joins_before = after != holes_.begin() && std::prev(after)->offset + std::prev(after)->bytes == block->offset;
    if (joins_before) {
      std::prev(after)->bytes += block->granted + (joins_after ? after->bytes : 0);
      if (joins_after) holes_.erase(after);
    } else if (joins_after) {
      after->offset = block->offset;
      after->bytes += block->granted;
    } else {
      holes_.insert(after, {block->offset, block->granted});
    }
    unused_.push_back(block);
  }

  MemoryUse use() const {
    const std::scoped_lock lock(mutex_);
    return use_;
  }
  std::uint64_t next_id() noexcept { return next_id_.fetch_add(1, std::memory_order_relaxed); }

 private:
  struct Hole {
    std::int64_t offset, bytes;
  };
  static constexpr std::int64_t kAlignment = 64;
  static constexpr std::int64_t kGuard = 64;
  static constexpr std::size_t kHolesExpected = 4096;
  static double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

  [[noreturn]] void refuse(std::int64_t bytes, std::int64_t available) const {
    throw OutOfMemoryError(
        fmt::format("no memory for a tensor of {:.1f} MiB: tensors have {:.1f} MiB and {:.1f} MiB are free; use a smaller "
                    "--batch-size or --max-length",
                    mebibytes(bytes), mebibytes(use_.now), mebibytes(available)),
        bytes, available);
  }

  /// Addresses cost nothing, and the system kills the process that touches more of them than there is memory: so it is asked before the
  /// front of the range that was ever given out grows to `end`. A steady step doesn't grow it.
  void require_real_memory(std::int64_t bytes, std::int64_t end) {
    constexpr std::int64_t kAhead = 16 << 20;  // granted without asking again, so that small tensors are cheap
    if (end <= assured_) return;
    const std::int64_t available = available_host_memory();
    if (end - touched_ > available) refuse(bytes, available);
    assured_ = end + std::min<std::int64_t>(kAhead, available - (end - touched_));
  }

  mutable std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::int64_t bytes_ = 0;
  std::int64_t touched_ = 0;  // the range's front that was ever given out
  std::int64_t assured_ = 0;  // the front that the system had memory for when it was last asked
  std::vector<Hole> holes_;   // by offset
  std::deque<Storage::Block> blocks_;
  std::vector<Storage::Block*> unused_;
  MemoryUse use_;
  std::atomic<std::uint64_t> next_id_{1};
};

DeviceRef Device::cpu(const CpuOptions& options) {
  if (options.threads < 1)
    throw UsageError(fmt::format("a device needs at least one thread; {} were asked for", options.threads));
  const CpuTarget best = [] {
    try {
      return best_cpu_target();
    } catch (const std::runtime_error& failure) {
      throw UsageError(failure.what());
    }
  }();
  const CpuTarget target = options.target.value_or(best);
  if (target > best) throw UsageError(fmt::format("this processor can't run kernels for {}", name(target)));
  return DeviceRef(new Device(options, target));  // the constructor is private to make_shared
}

Device::Device(const CpuOptions& options, CpuTarget target)
    : stream_{.threads = options.threads, .target = target, .plans = &plans_} {
  const std::int64_t physical = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  // Under a limit on addresses (ulimit -v) the half of what is left: weights are mapped, and data lies outside tensors.
  const std::int64_t most = std::min(2 * physical, available_addresses() / 2);
  memory_ = std::make_unique<Memory>(options.reserved_bytes > 0 ? options.reserved_bytes : std::max<std::int64_t>(most, 1 << 20));
}

Device::~Device() = default;

Storage Device::allocate(std::int64_t bytes) {
  Storage::Block* block = memory_->take(bytes);
  block->device = shared_from_this();
  return Storage(block);
}

void Device::release(Storage::Block* block) noexcept { memory_->give_back(block); }
MemoryUse Device::memory() const { return memory_->use(); }
std::uint64_t Device::next_id() noexcept { return memory_->next_id(); }

}  // namespace lathe
