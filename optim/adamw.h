#pragma once
// AdamW over a model's flat arenas, with clipping by the global norm, by one process or by ranks.
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "lathe/kernels/optimizer.h"
#include "lathe/optim/optimizer_ranks.h"
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

/// Keeps m and v for the parameters of an arena, which must outlive it; where the model computes in bf16 it updates the fp32 master and
/// writes what the model reads in the same pass. A step is skipped where the gradients' norm is not finite: weights, moments and the
/// optimizer's own t then stay as they are. All of it lies on the arena's device.
///
/// **Ranks** that have the same weights take steps together, from gradients that were summed (GradientSum), and have the same weights afterwards.
/// Rank 0's norm, scale and skip are everybody's. Where the state is sharded, a rank has summed gradients of what it owns alone: it has m and v, and
/// beside bf16 the fp32 weights, of no more, updates no more, and gets the others' new weights from them. Norms by block are put together and
/// summed in the blocks' order, so that a step has the same bits, sharded or not.
class AdamWOptimizer {
 public:
  /// Throws LogicError for an arena without gradients, and for one whose master is gone.
  AdamWOptimizer(ParameterArena& arena, const AdamWSettings& settings, Replay replay = Replay::off, OptimizerRanks ranks = {});

  /// One update with the arena's gradients. Waits for nothing on a GPU: what varies from step to step goes to the device as an upload does, and
  /// what ranks do together stands in the communicator's stream. Collective. Gradients are unspecified afterwards where the state is sharded.
  void step(double learning_rate);
  /// What the last step did: norm before clipping, scale, skips. Read where it is needed: on a GPU it waits for the device.
  OptimizerStep last() const;

  /// Makes the arena's master whole on all ranks, for what is saved: in the gradients' memory, until release_master() and the next gradients.
  /// Collective; waits for it. Does nothing where it is whole already: without sharding, and in fp32, where every step leaves it whole.
  void gather_master();
  /// Lets the arena's master go where the optimizer has the rank's part of it. Before the steps, which don't work on gather_master()'s.
  void release_master();

 private:
  // The kernels, which read what varies from the device: what graphs capture.
  void norms() const;
  void clip() const;
  void update() const;
  /// `work`, by a replay where that is wanted.
  void run(std::optional<Graph>& graph, const std::function<void()>& work);
  /// What ranks do between the device's work before and after.
  void together(const std::function<void(Communicator&)>& collectives) const;
  OptimizerStep* state() const;

  ParameterArena& arena_;
  AdamWSettings settings_;
  OptimizerRanks ranks_;
  std::vector<Share> buckets_;  // of the arena, where the state is sharded
  std::vector<Share> owned_;    // pieces of the arena, whose state lies in this order
  bool parts_master_;           // whether the rank's part of the master is here, and not in the arena
  OptimizerStep next_;          // what the host sets of it
  Tensor weights_;              // of what is owned, where parts_master_
  Tensor m_;
  Tensor v_;
  Tensor block_sums_;
  Tensor table_;   // an ArenaBlock a block
  Tensor groups_;  // AdamWGroup
  Tensor state_;   // an OptimizerStep, as f32 for the communicator, which moves it as it is
  Replay replay_;
  std::optional<Graph> first_, second_;  // of what comes before the ranks share the scale, and after
};

}  // namespace lathe
