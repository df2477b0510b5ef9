#pragma once
// Pre-training: a BERT learns to guess masked words of plain text (Devlin et al., 2019), without labels.
#include <atomic>
#include <cstdint>
#include <optional>

#include "lathe/text/masking.h"
#include "lathe/text/packing.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/masked_lm.h"
#include "lathe/training/training_loop.h"

namespace [[gnu::visibility("default")]] lathe {

struct PretrainSettings : TrainingSettings {
  std::int64_t batch_tokens = 8192;  ///< of the global batch, [CLS] and [SEP] included; as many sequences as fit
  double mlm_probability = 0.15;     ///< of a token to be chosen (text/masking.h)
};

/// The loss on masked tokens: mean cross-entropy.
struct MaskedLmScore {
  double loss = 0.0;
  std::int64_t tokens = 0;  ///< masked ones
  /// exp(loss).
  double perplexity() const;
};

/// An evaluation of the dev split during training.
struct MaskedLmEvaluation {
  std::int64_t step = 0;
  double epoch = 0.0;
  MaskedLmScore score;
};

/// Told what happens as it happens; every function may be left as it is.
class PretrainObserver : public TrainingObserver {
 public:
  virtual void evaluated(const MaskedLmEvaluation& log) { static_cast<void>(log); }
  /// An epoch or the run is over: keep the model as it is.
  virtual void save(const MaskedLm& model) { static_cast<void>(model); }
};

struct PretrainResult : TrainingResult {
  std::optional<MaskedLmEvaluation> dev;  ///< the last evaluation; absent without a dev split
};

/// Trains `model` on sequences (text/documents.h), saving it, and evaluating `dev` where given, after each epoch and at the end. Masks are drawn
/// anew at each step; those of `dev` depend on the seed alone. A step's loss is the mean over all tokens that its batch has masked. `stop`, where
/// given, ends training after the step during which it becomes non-zero; the model is saved then too. The same settings, data, build, device and
/// thread count give the same bits. Throws UsageError where a sequence has more tokens than a batch, and NonFiniteError, with the step,
/// where a loss is not a number or the gradients aren't. With a `communicator` all ranks call it, with the same samples and settings, and share
/// the work; the observers of all are told the same, and one rank's should save.
PretrainResult pretrain(MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                        const PretrainSettings& settings, PretrainObserver& observer, const std::atomic<int>* stop = nullptr,
                        Communicator* communicator = nullptr);

/// The loss of `samples`, whose masks depend on the settings' seed alone. Nothing where `stop` ended it. With a `communicator` all ranks call
/// it and share the batches; one rank that is told to stop ends it for all.
std::optional<MaskedLmScore> evaluate_masked_lm(const MaskedLm& model, const TokenizedSamples& samples,
                                                const PretrainSettings& settings, const std::atomic<int>* stop = nullptr,
                                                Communicator* communicator = nullptr);

/// The steps that settings ask for on these samples. UsageError for more than 1e9.
TrainingSteps pretrain_steps(const PretrainSettings& settings, const TokenizedSamples& samples);

/// The tokens of the first epoch's largest batch.
std::int64_t largest_batch_tokens(const TokenizedSamples& train, const PretrainSettings& settings);

/// Takes forward and backward, and the optimizer's memory, of the first epoch's largest batch, so that too little memory shows before a run has
/// begun, and changes nothing but gradients. Throws OutOfMemoryError, which says what batch fits. `place` is this rank's: of the batch, and
/// where it is sharded of the optimizer's memory, it is the rank's part. It isn't a collective call. Where ranks will keep a part of the master each,
/// nothing is tried: until the run lets it go, the master lies where a step has its room (estimate_memory counts that).
void rehearse(MaskedLm& model, const TokenizedSamples& train, const PretrainSettings& settings, const Place& place = {});

/// Packs what one rank computes of step `step`'s batch: `mine` masked under (seed, step), and rounded up. The batches' rows are the part's, and
/// their tokens are left as they are.
void pack_part(const MaskedLm& model, const TokenizedSamples& train, const RankPart& mine, const PretrainSettings& settings,
               std::int64_t step, WithoutChoice without, StepBatches& batches);

/// Packs step `step`'s batch as pretrain() sees it: `members` masked under (seed, step), and rounded up. With a `communicator` all ranks call
/// it, for their parts of the batch.
void pack_step(const MaskedLm& model, const TokenizedSamples& train, std::span<const std::int32_t> members,
               const PretrainSettings& settings, std::int64_t step, StepBatches& batches, Communicator* communicator = nullptr);

}  // namespace lathe
