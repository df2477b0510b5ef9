#include "lathe/optim/optimizer_ranks.h"

#include <algorithm>
#include <numeric>

#include "lathe/kernels/optimizer.h"

namespace lathe {

std::vector<Share> arena_buckets(std::int64_t elements, std::int64_t most) {
  const std::int64_t whole = std::max<std::int64_t>(1, most / kArenaBlock) * kArenaBlock;
  std::vector<Share> buckets;
  for (std::int64_t at = 0; at < elements; at += whole) buckets.push_back({.begin = at, .count = std::min(whole, elements - at)});
  return buckets;
}

std::int64_t elements_of(std::span<const Share> pieces) {
  return std::accumulate(pieces.begin(), pieces.end(), std::int64_t{0},
                         [](std::int64_t sum, const Share& piece) { return sum + piece.count; });
}

std::vector<Share> OptimizerRanks::buckets(const ParameterArena& arena) const {
  const Tensor& gradients = arena.gradients();
  return arena_buckets(gradients.size(), bucket_bytes / size_of(gradients.dtype()));
}

std::vector<Share> OptimizerRanks::owned(const ParameterArena& arena) const {
  if (!sharded()) return {{.begin = 0, .count = arena.gradients().size()}};
  std::vector<Share> owned;
  for (const Share& bucket : buckets(arena)) {
    const Share mine = share_of(bucket.count, kArenaBlock, rank, size);
    if (mine.count > 0) owned.push_back({.begin = bucket.begin + mine.begin, .count = mine.count});
  }
  return owned;
}

}  // namespace lathe
