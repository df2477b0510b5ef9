#include "lathe/runtime/content_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lathe {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie");

constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87U;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4FU;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9U;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63U;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5U;

template <class T>
std::uint64_t word(const std::byte* at) {
  T value = 0;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

std::uint64_t round(std::uint64_t lane, std::uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

void add_stripe(std::array<std::uint64_t, 4>& lanes, const std::byte* at) {
  for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = round(lanes[i], word<std::uint64_t>(at + 8 * i));
}

}  // namespace

ContentHash::ContentHash(std::uint64_t seed)
    : lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1}, seed_(seed) {}

void ContentHash::add(std::span<const std::byte> data) {
  const std::size_t waiting = size_ % kStripe;
  size_ += data.size();
  if (waiting > 0) {
    const auto head = data.first(std::min(data.size(), kStripe - waiting));
    std::ranges::copy(head, rest_.begin() + static_cast<std::ptrdiff_t>(waiting));
    data = data.subspan(head.size());
    if (waiting + head.size() < kStripe) return;
    add_stripe(lanes_, rest_.data());
  }
  auto lanes = lanes_;  // in registers
  for (; data.size() >= kStripe; data = data.subspan(kStripe)) add_stripe(lanes, data.data());
  lanes_ = lanes;
  std::ranges::copy(data, rest_.begin());
}

std::uint64_t ContentHash::value() const {
  std::uint64_t hash = seed_ + kPrime5;
  if (size_ >= kStripe) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  hash += size_;
  std::span<const std::byte> rest = std::span(rest_).first(size_ % kStripe);
  for (; rest.size() >= 8; rest = rest.subspan(8))
    hash = std::rotl(hash ^ round(0, word<std::uint64_t>(rest.data())), 27) * kPrime1 + kPrime4;
  if (rest.size() >= 4) {
    hash = std::rotl(hash ^ word<std::uint32_t>(rest.data()) * kPrime1, 23) * kPrime2 + kPrime3;
    rest = rest.subspan(4);
  }
  for (const std::byte byte : rest) hash = std::rotl(hash ^ std::to_integer<std::uint64_t>(byte) * kPrime5, 11) * kPrime1;
  hash = (hash ^ (hash >> 33U)) * kPrime2;
  hash = (hash ^ (hash >> 29U)) * kPrime3;
  return hash ^ (hash >> 32U);
}

std::uint64_t content_hash_of(std::span<const std::byte> data) {
  ContentHash hash;
  hash.add(data);
  return hash.value();
}

}  // namespace lathe
