#pragma once
// Fine-tuning a published BERT to classify sentences or pairs.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/text/packing.h"
#include "lathe/training/classifier.h"
#include "lathe/training/metrics.h"
#include "lathe/training/training_loop.h"

namespace [[gnu::visibility("default")]] lathe {

/// A data set ready to train on or to evaluate.
struct LabelledSamples {
  TokenizedSamples samples;
  std::vector<std::int32_t> labels;  ///< class ids
};

/// The samples `members` of `all`, in that order.
LabelledSamples select(const LabelledSamples& all, std::span<const std::int64_t> members);

struct FinetuneSettings : TrainingSettings {
  std::int32_t batch_size = 32;  ///< sequences of the global batch
};

/// An evaluation of the dev split during training.
struct EvaluationLog {
  std::int64_t step = 0;
  double epoch = 0.0;
  ClassificationMetrics metrics;
  bool best = false;  ///< better than all before, so that the model was saved
};

/// Told what happens as it happens; every function may be left as it is.
class FinetuneObserver : public TrainingObserver {
 public:
  virtual void evaluated(const EvaluationLog& log) { static_cast<void>(log); }
  /// The model is the best so far (or, without a dev split, as an epoch left it): keep it.
  virtual void save(const Classifier& classifier) { static_cast<void>(classifier); }
};

struct FinetuneResult : TrainingResult {
  std::optional<EvaluationLog> best;  ///< absent without a dev split
};

/// Trains `classifier` on `train`, evaluating `dev` (where given) after each epoch and at the end; best is the highest accuracy, of equals
/// the lowest loss. `stop`, where given, ends training after the step during which it becomes non-zero, without an evaluation; where one
/// is under way, that ends unfinished, and the model is not saved. The same settings, data, build, device and thread count give the same
/// bits. Throws NonFiniteError, with the step, where a loss is not a number or the gradients aren't. With a `communicator` all ranks call it,
/// with the same samples and settings, and share the work; the observers of all are told the same, and one rank's should save.
FinetuneResult finetune(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                        const FinetuneSettings& settings, FinetuneObserver& observer, const std::atomic<int>* stop = nullptr,
                        Communicator* communicator = nullptr);

/// The samples of the batch with the most tokens that `settings` will make of `train`: which samples a step sees is known before. Looks at
/// the first 100,000 steps.
std::vector<std::int64_t> largest_batch(const LabelledSamples& train, const FinetuneSettings& settings);

/// Takes forward and backward, and the optimizer's memory, of the largest batch that `settings` will make of `train`, so that too little
/// memory shows before a run has begun, and changes nothing but gradients. Throws OutOfMemoryError, which says what batch size fits. `place` is
/// this rank's: of the batch, and where it is sharded of the optimizer's memory, it is the rank's part. It isn't a collective call. Where ranks will
/// keep a part of the master each, nothing is tried: until the run lets it go, the master lies where a step has its room (estimate_memory counts that).
void rehearse(Classifier& classifier, const LabelledSamples& train, const FinetuneSettings& settings, const Place& place = {});

/// Packs what a step sees, `members`, and rounds it up; with a `communicator` this rank's part of it.
void pack_step(const LabelledSamples& train, std::span<const std::int32_t> members, const FinetuneSettings& settings,
               StepBatches& batches, const Communicator* communicator = nullptr);

/// The steps that settings ask for on so many samples. UsageError for more than 1e9.
TrainingSteps finetune_steps(const FinetuneSettings& settings, std::int64_t samples);

}  // namespace lathe
