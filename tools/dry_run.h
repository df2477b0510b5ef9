#pragma once
// What a run would take, found out by taking a few of its steps.
#include <cstdint>
#include <string>
#include <string_view>

#include "lathe/training/classifier.h"
#include "lathe/training/finetune.h"
#include "lathe/training/pretrain.h"

namespace lathe {

struct RunEstimate {
  std::int64_t parameters = 0;
  TrainingSteps steps;
  std::int64_t largest_batch_tokens = 0;
  bool on_gpu = false;
  std::int64_t arena_bytes = 0;       ///< weights, gradients and AdamW's two moments
  std::int64_t activation_bytes = 0;  ///< what a step of the largest batch needs beside them
  std::int64_t process_bytes =
      0;  ///< the most that this process held: the data, the program, and unless they are a GPU's the above
  std::int64_t measured_steps = 0;
  double step_seconds = 0.0;  ///< mean of the measured steps, scaled to the run's mean batch
  double tokens_per_second = 0.0;
  double evaluation_seconds = 0.0;  ///< of the dev split, once
  double seconds = 0.0;             ///< of all steps and evaluations
};

/// Takes a step of the largest batch, which sets the memory, real steps of the run for two or three seconds, and evaluates a few batches of
/// `dev` (where given). Learning rate and decay are zero: `classifier` stays as it is. Writes no file.
/// With a `communicator` all ranks call it, and what is measured is their work together; memory is this rank's.
RunEstimate estimate_run(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                         const FinetuneSettings& settings, Communicator* communicator = nullptr);

/// The same for pre-training.
RunEstimate estimate_run(MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                         const PretrainSettings& settings, Communicator* communicator = nullptr);

/// The estimate in lines for people; `batch` is what a step takes, "32 texts".
std::string format_estimate(const RunEstimate& estimate, std::string_view batch);

}  // namespace lathe
