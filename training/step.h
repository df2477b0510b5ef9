#pragma once
// What a training step computes before the optimizer: the gradients and the loss of a batch, at once or micro-batch by micro-batch.
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "lathe/runtime/graph.h"
#include "lathe/runtime/parameters.h"
#include "lathe/runtime/tape.h"
#include "lathe/training/gradient_buckets.h"
#include "lathe/training/upload.h"

namespace [[gnu::visibility("default")]] lathe {

/// What of a step has been done, or on a GPU enqueued.
enum class StepPhase : std::uint8_t {
  packed,    ///< the batch is laid out on the host
  captured,  ///< a graph of a bucket that is new
  uploaded,  ///< the (micro-)batch is where it is computed
  computed,  ///< its gradients are there
  summed,    ///< they are those of all ranks; at once for a run alone
  updated,   ///< the optimizer's step is taken
};

/// Gradients into an arena, and the loss, of one batch after the other. On a CUDA device the first batch of a bucket is captured, and every batch of
/// that bucket replays it: what varies lies in device memory (BatchMemory). Steps have their tensors in a StepMemory. Nothing is waited for but in
/// loss().
class TrainingStep {
 public:
  /// The loss of a batch on a device, recorded on a tape. It depends on the batch's sizes and on what lies in device memory alone.
  using Loss = std::function<Tensor(Tape& tape, const Batch& batch)>;

  /// `arena` must outlive it. Throws LogicError for an arena without gradients.
  TrainingStep(const ParameterArena& arena, Loss loss, Replay replay);
  ~TrainingStep();
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;
  TrainingStep(TrainingStep&&) = delete;
  TrainingStep& operator=(TrainingStep&&) = delete;

  /// Has `reached` called at each StepPhase that run() comes to: those from captured to computed.
  void tell(std::function<void(StepPhase)> reached) { reached_ = std::move(reached); }
  /// Has the moments of `buckets` recorded, of the same arena, at which what follows completes them: in run() between the kernels, in graphs too, and
  /// in clear(). Called before the first of them, and `buckets` must outlive this.
  void mark(GradientBuckets& buckets);
  /// Gradients and loss of a (micro-)batch of `bucket`'s sizes: `first` says whether they are written, or added to those of the step's
  /// micro-batches before.
  void run(const PackedBatch& packed, const Bucket& bucket, const BatchScalars& scalars, Use first);
  /// Gradients and loss of a step without any batch: zero, as of a rank that has no sample.
  void clear();
  /// The step's loss so far. Waits for the device.
  double loss() const;
  /// Graphs that were captured.
  std::int64_t graphs() const noexcept { return static_cast<std::int64_t>(captured_.size()); }
#ifdef LATHE_EMULATED
  /// Captures what `bucket` does once more, from another batch, and throws the emulation's Fault where anything would be stale in a replay.
  void expect_replay_is_current(const Bucket& bucket, Use first);
#endif

 private:
  struct Key {
    Bucket bucket;
    Use first;
    auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr): as in Bucket
  };
  struct Captured {
    BatchMemory memory;
    Graph graph;
  };
  void compute(const Batch& batch, Use first);
  void reach(StepPhase phase) const {
    if (reached_) reached_(phase);
  }

  const ParameterArena& arena_;
  Loss compute_loss_;
  std::function<void(StepPhase)> reached_;
  GradientBuckets* buckets_ = nullptr;
  Replay replay_;
  Tape write_;
  Tape add_;
  Tensor loss_;  // of the step so far
  std::map<Key, Captured> captured_;
};

}  // namespace lathe
