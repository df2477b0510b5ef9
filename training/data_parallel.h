#pragma once
// What the ranks that train one model together do beside what each does alone. Functions that take a Communicator are collective; null stands for
// a run alone, and does nothing.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

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

/// Each number becomes its sum over the ranks, in their order: the same bits on all.
void sum_over_ranks(Communicator* communicator, std::span<double> numbers);

/// Sums an arena's gradients over the ranks, bucket by bucket in the arena's order. On GPUs each bucket is sent when backward has completed it,
/// beside the rest of backward.
class GradientSum {
 public:
  /// `arena`, and `communicator` where there is one, must outlive it. `bucket_bytes` are a bucket's at most, but for one block of the arena.
  GradientSum(Communicator* communicator, const ParameterArena& arena, std::int64_t bucket_bytes);
  /// Has `step`, which computes the arena's gradients and which this must outlive, mark when buckets are complete. Without that nothing is sent
  /// before all is done that the device has been given.
  void follow(TrainingStep& step);
  /// After the step's micro-batches, or TrainingStep::clear(): what the device is given from now on finds the sums there. All ranks
  /// sum the same buckets in the same order, whichever were complete first.
  void run();
  /// None where there is no communicator.
  std::span<const Tensor> buckets() const noexcept { return buckets_ ? buckets_->gradients() : std::span<const Tensor>(); }

 private:
  Communicator* communicator_;
  std::optional<GradientBuckets> buckets_;
  bool marked_ = false;
};

/// Throws MismatchError, on all ranks, where they don't have the same bits in an arena's weights; `when` says when that was, for the message.
void check_same_weights(Communicator* communicator, const ParameterArena& arena, std::string_view when);

/// Rank 0's values of all parameters to all.
void share_weights(Communicator* communicator, const ParameterSet& parameters);

}  // namespace lathe
