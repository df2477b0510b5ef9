#include <cstdint>

#include "lathe/runtime/memory_pool.h"

namespace lathe {
namespace {

constexpr std::int64_t kBytes = std::int64_t{1} << 40;

/// Addresses that no program has unless it asks for them. They aren't reserved, since a limit on addresses (ulimit -v) would count that.
std::byte* range(PromisedMemory which) {
  const std::uintptr_t first = std::uintptr_t{1} << 45U;
  const auto offset = static_cast<std::uintptr_t>(which) * static_cast<std::uintptr_t>(kBytes);
  return reinterpret_cast<std::byte*>(first + offset);  // NOLINT(performance-no-int-to-ptr): nobody reads there
}

class PromisedRange : public MemorySource {
 public:
  explicit PromisedRange(PromisedMemory which) : base_(range(which)) {}

  std::span<std::byte> grow(std::int64_t bytes) override {
    if (given_ || bytes > kBytes) return {};
    given_ = true;
    return {base_, static_cast<std::size_t>(kBytes)};
  }
  std::int64_t available(std::int64_t free) const override { return given_ ? free : kBytes; }
  bool admit(std::int64_t, const std::byte*) override { return true; }
  bool is_real() const noexcept override { return false; }

 private:
  std::byte* base_;
  bool given_ = false;
};

}  // namespace

std::unique_ptr<MemorySource> promised_memory_source(PromisedMemory which) { return std::make_unique<PromisedRange>(which); }

}  // namespace lathe
