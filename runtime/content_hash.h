#pragma once
// A hash by which contents are told apart, as fast as they are read.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace [[gnu::visibility("default")]] lathe {

/// XXH64 (Yann Collet's xxHash) of bytes that are given piece by piece; how they are cut changes nothing. It finds what chance breaks; it is no
/// protection against somebody who looks for two contents of one hash.
class ContentHash {
 public:
  explicit ContentHash(std::uint64_t seed = 0);
  ~ContentHash();
  ContentHash(ContentHash&&) noexcept;
  ContentHash& operator=(ContentHash&&) noexcept;
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;

  void add(std::span<const std::byte> data);
  /// The hash of all that was added; more may be added after.
  std::uint64_t value() const;
  /// Bytes that were added.
  std::uint64_t size() const noexcept { return size_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::uint64_t size_ = 0;
};

/// ContentHash of one piece.
std::uint64_t content_hash_of(std::span<const std::byte> data);

}  // namespace lathe
