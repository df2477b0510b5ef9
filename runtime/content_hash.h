#pragma once
// A hash by which contents are told apart, as fast as they are read.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace [[gnu::visibility("default")]] lathe {

/// XXH64 (Yann Collet, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) of bytes that are given piece by piece; how they are cut
/// changes nothing. It finds what chance breaks; it is no protection against somebody who looks for two contents of one hash.
class ContentHash {
 public:
  explicit ContentHash(std::uint64_t seed = 0);
  void add(std::span<const std::byte> data);
  /// The hash of all that was added; more may be added after.
  std::uint64_t value() const;
  /// Bytes that were added.
  std::uint64_t size() const noexcept { return size_; }

 private:
  static constexpr std::size_t kStripe = 32;
  std::array<std::uint64_t, 4> lanes_;
  std::array<std::byte, kStripe> rest_{};  // the first size_ % kStripe: what makes no whole stripe yet
  std::uint64_t seed_;
  std::uint64_t size_ = 0;
};

/// ContentHash of one piece.
std::uint64_t content_hash_of(std::span<const std::byte> data);

}  // namespace lathe
