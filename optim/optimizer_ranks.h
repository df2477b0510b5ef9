#pragma once
// The ranks that update one model together, and what of an optimizer's state each of them keeps.
#include <cstdint>
#include <span>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/parameters.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether every rank keeps an optimizer's state for all parameters, or for its share of them alone (ZeRO-1: Rajbhandari et al., "ZeRO: Memory
/// Optimizations Toward Training Trillion Parameter Models", 2020).
enum class ShardOptimizer : std::uint8_t { no, yes };

/// Bytes of gradients that ranks sum at once, where nothing else is asked for.
inline constexpr std::int64_t kGradientBucketBytes = std::int64_t{25} << 20;

/// An arena of `elements` in pieces, in its order, each of whole blocks: at most `most` elements, but one block at least. What ranks sum and share
/// at once; of each, where state is sharded, a rank owns its share (share_of in blocks of kArenaBlock).
std::vector<Share> arena_buckets(std::int64_t elements, std::int64_t most);

/// Elements of all `pieces`.
std::int64_t elements_of(std::span<const Share> pieces);

/// Who takes an optimizer's steps together.
struct OptimizerRanks {
  Communicator* communicator = nullptr;  ///< null for a process alone, and where only memory is asked for
  int rank = 0;
  int size = 1;
  ShardOptimizer shard = ShardOptimizer::no;
  std::int64_t bucket_bytes = kGradientBucketBytes;  ///< of gradients, whose sums are shared out bucket by bucket

  /// A process alone has all of the state, whatever was asked for.
  bool sharded() const noexcept { return shard == ShardOptimizer::yes && size > 1; }
  /// Whether a rank keeps a part of the fp32 master too: beside bf16, of which every rank has the whole.
  bool parts_master(const ParameterArena& arena) const { return sharded() && arena.values().dtype() == DType::bf16; }
  /// The pieces of `arena` that travel at once.
  std::vector<Share> buckets(const ParameterArena& arena) const;
  /// The pieces of `arena` that the rank updates, in its order; none is empty.
  std::vector<Share> owned(const ParameterArena& arena) const;
};

}  // namespace lathe
