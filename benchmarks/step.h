#pragma once
// Whole training steps, as `lathe finetune` and `lathe pretrain` take them, of a BERT with random weights on made-up tokens.
#include <atomic>
#include <cstdint>
#include <vector>

#include "benchmarks/lengths.h"
#include "benchmarks/step_operations.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/graph.h"

namespace lathe::bench {

struct StepRequest {
  StepTask task = StepTask::mlm;
  StepModel model;
  LengthDistribution lengths;  ///< up to 512, and up to `tokens`
  std::int64_t tokens = 0;     ///< of a step: for MLM at most, for classification on average, by as many sequences in each
  double dropout = 0.1;
  DType dtype = DType::f32;
  Replay replay = Replay::graphs;
  std::int64_t warmup = 0;  ///< steps before those that are measured, at least 1
  std::int64_t steps = 0;   ///< that are measured
  double seconds = 0.0;     ///< after which no further step is measured, but for the first three
};

/// What one step was and took. Times are between marks on the device's timeline; all are 0 on an emulated device, whose times mean nothing.
struct MeasuredStep {
  std::int64_t sequences = 0, tokens = 0, rows = 0;  ///< real ones
  std::int64_t bucket_tokens = 0;                    ///< that were computed
  std::int64_t operations = 0;                       ///< step_operations()
  std::int64_t captures = 0;                         ///< graphs that were new
  double seconds = 0.0;                              ///< from the end of the step before to the end of this
  double data = 0.0;                                 ///< of it: packing, on a GPU waiting for it
  double capture = 0.0;                              ///< capturing a new graph
  double upload = 0.0;                               ///< the batch on its way to the device
  double compute = 0.0;                              ///< forward and backward
  double update = 0.0;                               ///< norm, clipping, AdamW
  double packing = 0.0;                              ///< by the host's clock, beside what a GPU does
};

struct StepMeasurement {
  std::vector<MeasuredStep> steps;
  std::int64_t warmup = 0;
  std::int64_t parameters = 0;
  std::int64_t peak_bytes = 0;  ///< the most that the device's tensors took: weights, gradients, moments and what a step needs
};

/// Trains on `device`, which must be new for peak_bytes to be this run's, with AdamW, clipping and the learning rate's schedule. `stop`, where
/// given, ends it after the step during which it becomes non-zero. Throws what training does, OutOfMemoryError among it.
StepMeasurement measure_step(const DeviceRef& device, const StepRequest& request, const std::atomic<int>* stop = nullptr);

}  // namespace lathe::bench
