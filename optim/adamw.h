#pragma once
// AdamW over a model's flat arenas, with clipping by the global norm.
#include <cstdint>
#include <optional>

#include "lathe/kernels/optimizer.h"
#include "lathe/runtime/graph.h"
#include "lathe/runtime/parameters.h"

namespace [[gnu::visibility("default")]] lathe {

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  ///< of parameters with Decay::yes
  double max_norm = 1.0;       ///< gradients are scaled down to this global norm; 0: never
  BiasCorrection correction = BiasCorrection::corrected;
};

/// Keeps m and v for every parameter of an arena, which must outlive it; where the model computes in bf16 it updates the fp32 master and
/// writes what the model reads in the same pass. A step is skipped where the gradients' norm is not finite: weights, moments and the
/// optimizer's own t then stay as they are. All of it lies on the arena's device.
class AdamWOptimizer {
 public:
  AdamWOptimizer(const ParameterArena& arena, const AdamWSettings& settings, Replay replay = Replay::off);

  /// One update with the arena's gradients. Waits for nothing: what varies from step to step goes to the device as an upload does.
  void step(double learning_rate);
  /// What the last step did: norm before clipping, scale, skips. Read where it is needed: on a GPU it waits for the device.
  OptimizerStep last() const;

 private:
  /// The kernels alone, which read what varies from the device: what a graph captures.
  void update() const;

  const ParameterArena& arena_;
  AdamWSettings settings_;
  OptimizerStep next_;  // what the host sets of it
  Tensor m_;
  Tensor v_;
  Tensor block_sums_;
  Tensor table_;   // an ArenaBlock a block
  Tensor groups_;  // AdamWGroup
  Tensor state_;   // an OptimizerStep
  Replay replay_;
  std::optional<Graph> graph_;  // of update()
};

}  // namespace lathe
