#pragma once
// What a run will need of its device's memory, found out before it begins: its sizes are rehearsed (Device::rehearsal), and nothing is computed.
#include <cstdint>
#include <string>

#include "lathe/training/finetune.h"
#include "lathe/training/pretrain.h"

namespace [[gnu::visibility("default")]] lathe {

/// Bytes of a device's memory, as Device::memory() counts them.
struct MemoryEstimate {
  /// Weights and gradients, and beside bf16 the fp32 master, unless ranks keep a part of it each.
  std::int64_t weights = 0;
  /// AdamW's moments; where ranks keep a part each, this rank's, and its part of the master.
  std::int64_t optimizer = 0;
  std::int64_t step = 0;    ///< beside them: the largest step's activations and workspaces, and batches that graphs hold
  std::int64_t tokens = 0;  ///< that a step computes with at once, at most
  std::int64_t total() const noexcept { return weights + optimizer + step; }
};

/// Rehearses the sizes of the batches that `settings` will make of `train`, and of the largest batch of `dev` (where given) that is evaluated. Of
/// fine-tuning all sizes that its first 100,000 steps have; of pre-training those of its first 256 steps, whose masked words are drawn, and what is
/// largest after them by tokens. `place` is the rank whose parts of the batches and, where it is sharded, of the optimizer's state are counted.
MemoryEstimate estimate_memory(const Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                               const FinetuneSettings& settings, const Place& place = {});
MemoryEstimate estimate_memory(const MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                               const PretrainSettings& settings, const Place& place = {});

/// Bytes that a run may have of a device: what is free, and what its model has already.
std::int64_t memory_for_run(const Device& device);

/// Throws OutOfMemoryError where the model's device has no memory for `estimate`, which is of the same call: what is needed, what is free, and
/// which settings would do.
void expect_memory(const MemoryEstimate& estimate, const Classifier& classifier, const LabelledSamples& train,
                   const LabelledSamples* dev, const FinetuneSettings& settings, const Place& place = {});
void expect_memory(const MemoryEstimate& estimate, const MaskedLm& model, const TokenizedSamples& train,
                   const TokenizedSamples* dev, const PretrainSettings& settings, const Place& place = {});

}  // namespace lathe
