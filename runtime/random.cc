#include "lathe/runtime/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "lathe/kernels/philox.h"

namespace lathe {

std::uint64_t RandomNumbers::bits(std::uint64_t index) const {
  const auto words = philox4x32(
      {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32U), static_cast<std::uint32_t>(use_), stream_},
      {.seed = seed_, .step = 0xFFFFFFFFU});  // a step that no training reaches: dropout has the others
  return words[0] | (std::uint64_t{words[1]} << 32U);
}

double RandomNumbers::uniform(std::uint64_t index) const {
  constexpr double kUnit = 0x1p-53;
  return (static_cast<double>(bits(index) >> 11U) + 0.5) * kUnit;
}

double RandomNumbers::normal(std::uint64_t index) const {
  const double radius = std::sqrt(-2.0 * std::log(uniform(2 * index)));
  return radius * std::cos(2.0 * std::numbers::pi * uniform(2 * index + 1));
}

std::vector<std::int32_t> RandomNumbers::permutation(std::int32_t count) const {
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::uint64_t next = 0;
  for (std::size_t i = order.size(); i > 1; --i) {
    // The bits below the largest multiple of i are used, so that every remainder is equally likely.
    const std::uint64_t limit = ~std::uint64_t{0} - ~std::uint64_t{0} % i;
    std::uint64_t value = bits(next++);
    while (value >= limit) value = bits(next++);
    std::swap(order[i - 1], order[value % i]);
  }
  return order;
}

std::uint32_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return static_cast<std::uint32_t>(hash ^ (hash >> 32U));
}

}  // namespace lathe
