#pragma once
// The part of a run that is the same for every task: steps, learning rate, optimizer, logging, the end.
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/optim/adamw.h"
#include "lathe/runtime/communicator.h"
#include "lathe/runtime/parameters.h"
#include "lathe/runtime/tape.h"
#include "lathe/text/packing.h"
#include "lathe/training/step.h"
#include "lathe/training/step_times.h"

namespace [[gnu::visibility("default")]] lathe {

/// How long and how fast a run trains, whatever it trains.
struct TrainingSettings {
  /// Epochs to train, fractions allowed; max_steps, where above 0, decides instead.
  double epochs = 3.0;
  std::int64_t max_steps = 0;
  double learning_rate = 5e-5;
  /// Steps of warm-up, or where `warmup_share` is set that share of all steps, rounded up.
  std::int64_t warmup_steps = 0;
  std::optional<double> warmup_share = 0.1;
  AdamWSettings optimizer;
  std::uint32_t seed = 42;
  std::int64_t log_steps = 10;
  /// Tokens of a micro-batch, at most; a batch is computed as one where 0. It bounds a step's memory, and changes nothing but the rounding of
  /// gradients.
  std::int64_t micro_batch_tokens = 0;
  /// What a step computes again rather than keep it: less memory for more time, and the same bits.
  Recompute recompute = Recompute::none;
  Replay replay = Replay::graphs;
  /// Bytes of gradients that ranks sum at once: the more, the fewer messages, and the later the first.
  std::int64_t gradient_bucket_bytes = kGradientBucketBytes;
  /// Steps after the first whose trace is made (TrainingObserver::traced); none where 0.
  std::int64_t profile_steps = 0;
  /// Whether ranks keep a part of the optimizer's state each, rather than all of it: less memory, and on the CPU the same bits. A process alone has
  /// all of it anyway.
  ShardOptimizer shard_optimizer = ShardOptimizer::no;
  /// Whether a GPU's matrix products are timed before the first step, and the fastest taken, rather than what the library expects to be.
  bool tune_products = false;
};

/// What `settings` make of an optimizer on the rank at `place`.
OptimizerRanks optimizer_ranks(const TrainingSettings& settings, const Place& place, Communicator* communicator = nullptr);

/// The steps that settings ask for.
struct TrainingSteps {
  std::int64_t per_epoch = 0;
  std::int64_t total = 0;
  std::int64_t warmup = 0;
};

/// What settings make of an epoch of so many steps, where `total` steps are wanted. UsageError for more than 1e9, or for no number.
TrainingSteps training_steps(const TrainingSettings& settings, std::int64_t per_epoch, double total);

/// A logged step. Loss is that step's global batch's; tokens are real ones since the line before, and tokens_per_second is those over the
/// wall time since then, loader, optimizer and logging included, evaluation excluded.
struct StepLog {
  std::int64_t step = 0;  ///< from 1
  double epoch = 0.0;
  double loss = 0.0;
  double learning_rate = 0.0;
  double gradient_norm = 0.0;
  std::int64_t tokens = 0;
  double tokens_per_second = 0.0;
  StepSeconds seconds;  ///< of the steps since the line before
};

/// Told what happens as it happens; every function may be left as it is.
class TrainingObserver {
 public:
  TrainingObserver() = default;
  virtual ~TrainingObserver() = default;
  TrainingObserver(const TrainingObserver&) = delete;
  TrainingObserver& operator=(const TrainingObserver&) = delete;
  TrainingObserver(TrainingObserver&&) = delete;
  TrainingObserver& operator=(TrainingObserver&&) = delete;
  /// After every step, of `total`.
  virtual void stepped(std::int64_t step, std::int64_t total, std::int64_t tokens) {
    static_cast<void>(step), static_cast<void>(total), static_cast<void>(tokens);
  }
  virtual void logged(const StepLog& log) { static_cast<void>(log); }
  /// What of a step has been done, or on a GPU enqueued: the phases of all micro-batches, between packed and updated.
  virtual void reached(StepPhase phase) { static_cast<void>(phase); }
  /// Before the first step, where products were timed: what was chosen (Device::product_table).
  virtual void tuned(const std::string& product_table) { static_cast<void>(product_table); }
  /// After the last step, where a profile was asked for, on the first rank: a Chrome trace of all ranks (training/step_trace.h).
  virtual void traced(const std::string& chrome_trace) { static_cast<void>(chrome_trace); }
};

struct TrainingResult {
  std::int64_t steps = 0;
  std::int64_t total_steps = 0;
  double epochs = 0.0;
  std::int64_t tokens = 0;
  double seconds = 0.0;  ///< of training, evaluation excluded
  std::int64_t skipped_steps = 0;
  StepSeconds parts;  ///< of `seconds`, as far as ranks' clocks agree
  bool interrupted = false;
};

/// What a rank computes of a step's global batch, as one batch or cut into micro-batches, each rounded up to a bucket. A rank may have none.
struct StepBatches {
  struct MicroBatch {
    PackedBatch packed;
    Bucket bucket;
  };
  std::vector<MicroBatch> micro_batches;  ///< the first `count` of them; the others' memory is kept for later steps
  std::size_t count = 0;
  std::int64_t tokens = 0;  ///< of the global batch, real ones
  std::int64_t rows = 0;    ///< of the global batch, with a label

  /// The next micro-batch, to be packed.
  MicroBatch& add() {
    if (count == micro_batches.size()) micro_batches.emplace_back();
    return micro_batches[count++];
  }
};

/// Cuts `members`, of which there may be none, in order, where the samples of a part would have more than `budget` tokens together; one that has more is a part of its own.
/// One part where the budget is 0. Calls part(members, number of the first of them).
template <class Part>
void for_each_part(const TokenizedSamples& samples, std::span<const std::int32_t> members, std::int64_t budget, Part part) {
  std::size_t first = 0;
  std::int64_t tokens = 0;
  const auto end_part = [&](std::size_t end) {
    part(members.subspan(first, end - first), static_cast<std::int32_t>(first));
    first = end;
    tokens = 0;
  };
  for (std::size_t i = 0; i < members.size(); ++i) {
    const std::int64_t length = samples.length(members[i]);
    if (budget > 0 && i > first && tokens + length > budget) end_part(i);
    tokens += length;
  }
  if (!members.empty()) end_part(members.size());
}

/// Gradients and loss of all micro-batches, zero where there are none, under the random key of a step.
void compute_gradients(TrainingStep& step, const StepBatches& batches, const RandomKey& key);

/// What a loop trains.
class TrainingTask {
 public:
  TrainingTask() = default;
  virtual ~TrainingTask() = default;
  TrainingTask(const TrainingTask&) = delete;
  TrainingTask& operator=(const TrainingTask&) = delete;
  TrainingTask(TrainingTask&&) = delete;
  TrainingTask& operator=(TrainingTask&&) = delete;

  /// Before the first step: takes what memory steps need of the host, so that none has to wait for the system.
  virtual void prepare(StepBatches& batches) { static_cast<void>(batches); }
  /// Packs what step `step`, from 0, sees.
  virtual void pack(std::int64_t step, StepBatches& batches) = 0;
  /// The loss of a batch, as TrainingStep asks for it.
  virtual Tensor loss(Tape& tape, const Batch& batch) = 0;
  /// Epochs that `steps` steps are.
  virtual double epochs_at(std::int64_t steps) const = 0;
  /// Whether the last of `steps` steps ends an epoch.
  virtual bool ends_epoch(std::int64_t steps) const = 0;
  /// After an epoch's last step and the run's, whose number from 1 is `steps`. False where the run was told to stop meanwhile. Its time isn't
  /// training's.
  virtual bool finish_epoch(std::int64_t steps) = 0;
};

/// Whether a run was told to stop; `stop` may be null.
inline bool is_stopped(const std::atomic<int>* stop) { return stop != nullptr && stop->load(std::memory_order_relaxed) != 0; }

/// Trains the parameters of `arena`, which must outlive the call. `stop`, where given, ends it after the step during which it becomes
/// non-zero. Throws NonFiniteError, with the step, where a loss is not a number or the gradients aren't: on the CPU at the step itself; a GPU,
/// which leaves the weights alone in such a step, is asked every 64 steps, where a step is logged and before anything is evaluated or kept, and
/// is waited for nowhere else. With a `communicator` all ranks call it, with the same settings, each with its part of the batches; gradients are
/// summed before the optimizer sees them, so that all have the same weights. What is logged is the global batch's. Ranks agree on when to stop
/// where the CPU or a GPU is asked for numbers: all end after the same step. Where the optimizer is sharded and the model computes in bf16, all ranks
/// have the fp32 master when an epoch is finished and after the call, in the gradients' memory (ParameterArena::lend_gradients), and where the
/// call throws, no rank has it.
TrainingResult train(TrainingTask& task, ParameterArena& arena, const TrainingSettings& settings, const TrainingSteps& steps,
                     TrainingObserver& observer, const std::atomic<int>* stop, Communicator* communicator = nullptr);

}  // namespace lathe
