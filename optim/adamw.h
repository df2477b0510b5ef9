#pragma once
// AdamW over a model's flat arenas, with clipping by the global norm.
#include <array>
#include <cstdint>

#include "lathe/kernels/optimizer.h"
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

/// Keeps m and v for every parameter of an arena, which must outlive it. A step is skipped where the gradients' norm is not finite: weights,
/// moments and the optimizer's own t then stay as they are.
class AdamWOptimizer {
 public:
  AdamWOptimizer(const ParameterArena& arena, const AdamWSettings& settings);

  /// One update with the arena's gradients.
  void step(double learning_rate);
  /// What the last step did: norm before clipping, scale, skips. Read where it is needed: on a GPU it waits for the device.
  OptimizerStep last() const;

 private:
  const ParameterArena& arena_;
  AdamWSettings settings_;
  std::array<AdamWGroup, 2> groups_;
  Tensor m_;
  Tensor v_;
  Tensor block_sums_;
  Tensor state_;  // an OptimizerStep
};

}  // namespace lathe
