#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lathe/runtime/address_poison.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"
#include "lathe/runtime/memory_pool.h"

namespace lathe {
namespace {

class HostRange : public MemorySource {
 public:
  explicit HostRange(std::int64_t bytes) : bytes_(bytes) {
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
  }
  ~HostRange() override {
    unpoison(base_, touched_);
    ::munmap(base_, static_cast<std::size_t>(bytes_));
  }
  HostRange(const HostRange&) = delete;
  HostRange& operator=(const HostRange&) = delete;
  HostRange(HostRange&&) = delete;
  HostRange& operator=(HostRange&&) = delete;

  std::span<std::byte> grow(std::int64_t bytes) override {
    if (given_ || bytes > bytes_) return {};
    given_ = true;
    return {base_, static_cast<std::size_t>(bytes_)};
  }

  std::int64_t available(std::int64_t free) const override { return std::min(given_ ? free : bytes_, available_host_memory()); }

  /// Addresses cost nothing, and the system kills the process that touches more of them than there is memory: so it is asked before the
  /// front of the range that was ever given out grows. A steady step doesn't grow it.
  bool admit(std::int64_t, const std::byte* end) override {
    constexpr std::int64_t kAhead = 16 << 20;  // granted without asking again, so that small tensors are cheap
    const std::int64_t front = end - base_;
    if (front > assured_) {
      const std::int64_t available = available_host_memory();
      if (front - touched_ > available) return false;
      assured_ = front + std::min<std::int64_t>(kAhead, available - (front - touched_));
    }
    touched_ = std::max(touched_, front);
    return true;
  }

 private:
  std::byte* base_ = nullptr;
  std::int64_t bytes_ = 0;
  bool given_ = false;
  std::int64_t touched_ = 0;  // the range's front that was ever given out
  std::int64_t assured_ = 0;  // the front that the system had memory for when it was last asked
};

}  // namespace

std::unique_ptr<MemorySource> host_memory_source(std::int64_t bytes) { return std::make_unique<HostRange>(bytes); }

}  // namespace lathe
