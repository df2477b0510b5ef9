#pragma once
// Random numbers for the host: shuffles, splits, initial weights. Counter-based, as the device's are: a value is a function of
// (seed, what it is for, index), so that nothing depends on the order in which things are drawn.
#include <cstdint>
#include <string_view>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// What random numbers are drawn for; each use has numbers of its own.
enum class RandomUse : std::uint32_t { split, shuffle, initial_weights };

class RandomNumbers {
 public:
  /// `stream` tells apart what shares a seed and a use: an epoch, a parameter.
  RandomNumbers(std::uint32_t seed, RandomUse use, std::uint32_t stream) : seed_(seed), use_(use), stream_(stream) {}

  /// 64 random bits, a function of `index`.
  std::uint64_t bits(std::uint64_t index) const;
  /// Uniform in (0, 1): never 0, so that its logarithm is finite.
  double uniform(std::uint64_t index) const;
  /// Standard normal (Box and Muller, 1958).
  double normal(std::uint64_t index) const;
  /// 0..count-1 in random order (Fisher and Yates), without bias.
  std::vector<std::int32_t> permutation(std::int32_t count) const;

 private:
  std::uint32_t seed_;
  RandomUse use_;
  std::uint32_t stream_;
};

/// A number for a name (64-bit FNV-1a folded to 32): gives each parameter its own stream, whatever else the model holds.
std::uint32_t stream_of(std::string_view name);

}  // namespace lathe
