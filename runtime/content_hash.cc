#include "lathe/runtime/content_hash.h"

// The functions themselves, so that who uses Lathe links no library for them.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace lathe {

struct ContentHash::State {
  XXH64_state_t sums;
};

ContentHash::ContentHash(std::uint64_t seed) : state_(std::make_unique<State>()) { XXH64_reset(&state_->sums, seed); }
ContentHash::~ContentHash() = default;
ContentHash::ContentHash(ContentHash&&) noexcept = default;
ContentHash& ContentHash::operator=(ContentHash&&) noexcept = default;

void ContentHash::add(std::span<const std::byte> data) {
  XXH64_update(&state_->sums, data.data(), data.size());
  size_ += data.size();
}

std::uint64_t ContentHash::value() const { return XXH64_digest(&state_->sums); }

std::uint64_t content_hash_of(std::span<const std::byte> data) { return XXH64(data.data(), data.size(), 0); }

}  // namespace lathe
