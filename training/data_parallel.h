#pragma once
// What the ranks that train one model together do beside what each does alone. Functions that take a Communicator are collective; null stands for
// a run alone, and does nothing.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/optim/optimizer_ranks.h"
#include "lathe/runtime/communicator.h"
#include "lathe/runtime/parameters.h"
#include "lathe/text/packing.h"
#include "lathe/training/gradient_buckets.h"
#include "lathe/training/step.h"

namespace [[gnu::visibility("default")]] lathe {

/// The part of a global batch that one rank computes.
struct RankPart {
  std::span<const std::int32_t> members;
  std::int32_t first = 0;  ///< number of the first of them in the global batch
};

/// Cuts `members`, in their order, into `size` parts, so that each has its share of the tokens but for half a sample at either end; parts are
/// empty where there are fewer samples than ranks. Depends on lengths alone, so that every rank knows all parts.
RankPart rank_part(const TokenizedSamples& samples, std::span<const std::int32_t> members, int rank, int size);

/// The part of `communicator`'s rank; all of `members` where it is null.
RankPart rank_part(const TokenizedSamples& samples, std::span<const std::int32_t> members, const Communicator* communicator);

/// Calls f(rank, size) for those whose parts of a batch this rank prepares matrix products for: its own, and where products are timed, which
/// rank 0 does for all, everybody's.
template <class F>
void for_each_prepared_rank(const Communicator* communicator, bool tuned, const F& f) {
  const int size = communicator == nullptr ? 1 : communicator->size();
  const int own = communicator == nullptr ? 0 : communicator->rank();
  for (int rank = 0; rank < size; ++rank) {
    if (rank == own || tuned) f(rank, size);
  }
}

/// Each number becomes its sum over the ranks, in their order: the same bits on all.
void sum_over_ranks(Communicator* communicator, std::span<double> numbers);

/// Where a bucket of gradients is on its way.
enum class BucketMoment : std::uint8_t {
  begun,  ///< its sum is the next that the communicator is asked for
  ended,  ///< it has been asked for: what is marked among the communicator's collectives from here on comes after the sum
};

/// Sums an arena's gradients over the ranks, bucket by bucket in the arena's order. On GPUs each bucket is sent when backward has completed it,
/// beside the rest of backward. Where the optimizer is sharded, a rank gets the sums of those alone whose weights it updates
/// (OptimizerRanks::owned).
class GradientSum {
 public:
  /// `arena`, and `communicator` where there is one, must outlive it. `bucket_bytes` are a bucket's at most, but for one block of the arena.
  GradientSum(Communicator* communicator, const ParameterArena& arena, std::int64_t bucket_bytes,
              ShardOptimizer shard = ShardOptimizer::no);
  /// Has `step`, which computes the arena's gradients and which this must outlive, mark when buckets are complete. Without that nothing is sent
  /// before all is done that the device has been given.
  void follow(TrainingStep& step);
  /// Has `reached` called at both moments of each bucket, by its number in the arena's order.
  void tell(std::function<void(std::size_t bucket, BucketMoment moment)> reached) { reached_ = std::move(reached); }
  /// After the step's micro-batches, or TrainingStep::clear(): what the device is given from now on finds the sums there. All ranks
  /// sum the same buckets in the same order, whichever were complete first.
  void run();
  /// None where there is no communicator.
  std::span<const Tensor> buckets() const noexcept { return buckets_ ? buckets_->gradients() : std::span<const Tensor>(); }

 private:
  void reach(std::size_t bucket, BucketMoment moment) const {
    if (reached_) reached_(bucket, moment);
  }
  void sum(const Tensor& bucket);

  Communicator* communicator_;
  ShardOptimizer shard_;
  std::optional<GradientBuckets> buckets_;
  bool marked_ = false;
  std::function<void(std::size_t, BucketMoment)> reached_;
};

/// Throws MismatchError, on all ranks, where they don't have the same bits in an arena's weights, the master's where it has one; `when`
/// says when that was, for the message.
void check_same_weights(Communicator* communicator, const ParameterArena& arena, std::string_view when);

/// Rank 0's values of all parameters to all.
void share_weights(Communicator* communicator, const ParameterSet& parameters);

}  // namespace lathe
