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

class PromisedRange : public MemorySource {
 public:
  PromisedRange() {
    // Under a limit on addresses a part of what is left; a device has two pools.
    bytes_ = std::min(kMost, available_addresses() / 4);
    void* base = ::mmap(nullptr, static_cast<std::size_t>(bytes_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
      throw OutOfMemoryError(
          fmt::format("cannot reserve {} GiB of addresses to count memory by: {}", bytes_ >> 30, std::strerror(errno)), bytes_,
          0);
    base_ = static_cast<std::byte*>(base);
  }
  ~PromisedRange() override {
    unpoison(base_, front_);
    ::munmap(base_, static_cast<std::size_t>(bytes_));
  }
  PromisedRange(const PromisedRange&) = delete;
  PromisedRange& operator=(const PromisedRange&) = delete;
  PromisedRange(PromisedRange&&) = delete;
  PromisedRange& operator=(PromisedRange&&) = delete;

  std::span<std::byte> grow(std::int64_t bytes) override {
    if (given_ || bytes > bytes_) return {};
    given_ = true;
    return {base_, static_cast<std::size_t>(bytes_)};
  }
  std::int64_t available(std::int64_t free) const override { return given_ ? free : bytes_; }
  bool admit(std::int64_t, const std::byte* end) override {
    front_ = std::max(front_, end - base_);
    return true;
  }

 private:
  static constexpr std::int64_t kMost = std::int64_t{1} << 40;

  std::byte* base_ = nullptr;
  std::int64_t bytes_ = 0;
  std::int64_t front_ = 0;  // that was ever given out
  bool given_ = false;
};

}  // namespace

std::unique_ptr<MemorySource> promised_memory_source() { return std::make_unique<PromisedRange>(); }

}  // namespace lathe
