#pragma once
// How sums over the T rows of a batch are cut, so that their order is a function of T alone.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// Equal parts that sums over `rows` rows are cut into: each part is summed in a fixed order, then the parts in order. One for 32 rows,
/// so that a part outweighs its partial sums, and at most 256, which fill a large GPU.
constexpr std::int64_t row_parts(std::int64_t rows) {
  const std::int64_t parts = (rows + 31) / 32;
  return parts < 1 ? 1 : (parts > 256 ? 256 : parts);
}

}  // namespace lathe
