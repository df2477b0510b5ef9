#pragma once
// What an optimizer does to flat arenas: squared norms by block, the clip scale, AdamW in one pass.
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// Elements of an arena block. Every tensor of an arena starts at a multiple of it, so that a block belongs to one tensor.
inline constexpr std::int64_t kArenaBlock = 1024;

/// To whom an arena block belongs.
struct ArenaBlock {
  std::int32_t tensor;  ///< number of the tensor in arena order
  std::int32_t group;   ///< parameter group: learning rate factor and weight decay
};

/// Settings of a parameter group.
struct AdamWGroup {
  float learning_rate_factor = 1.0F;
  float weight_decay = 0.0F;
};

/// What varies from step to step: one struct in device memory, so that captured graphs replay. The host sets what stands before norm;
/// clip_scale() sets the rest.
struct OptimizerStep {
  float learning_rate = 0.0F;
  float max_norm = 0.0F;         ///< 0: no clipping
  std::int32_t step = 0;         ///< number of this step
  float norm = 0.0F;             ///< global L2 norm of the gradients, before clipping
  float scale = 1.0F;            ///< what gradients are multiplied by
  std::int32_t updates = 0;      ///< the optimizer's own t: updates made, this one included
  std::int32_t skips = 0;        ///< steps skipped because the norm was not finite
  std::int32_t first_skip = -1;  ///< number of the first skipped step, -1 for none
  std::int32_t skip = 0;         ///< 1 where this step is skipped
};

/// block_sums[i] = sum of squares of gradients[i * 1024 ..+ 1024), in a fixed order. Deterministic, whatever the number of
/// threads.
template <class T>
struct SquaredNorms {
  T* block_sums;
  const T* gradients;
  std::int64_t blocks;
};

/// norm = sqrt(sum of block_sums in a fixed order, in fp64); scale = min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_;
/// a norm that is not finite sets skip = 1 and counts it, otherwise updates grows by one.
template <class T>
struct ClipScale {
  OptimizerStep* step;
  const T* block_sums;
  std::int64_t blocks;
};

/// AdamW (Loshchilov and Hutter, 2019) over `blocks` arena blocks. With g = gradients * step->scale, rate = learning_rate *
/// factor:
///   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
///   corrected: w = w (1 - rate decay) - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon), t = step->updates;
///   uncorrected (Google's BERT): w = w - rate (m / (sqrt(v) + epsilon) + decay w).
/// Nothing is touched where step->skip is set. Where the model computes in bf16, weights are the fp32 master, and `working` is what it reads:
/// the nearest bf16 of each new weight, written in the same pass.
enum class BiasCorrection : std::uint8_t { corrected, uncorrected };
template <class T>
struct AdamW {
  T* weights;
  T* m;
  T* v;
  Bf16* working = nullptr;  ///< [blocks * 1024], or null
  const T* gradients;
  const ArenaBlock* table;  ///< [blocks]
  const AdamWGroup* groups;
  const OptimizerStep* step;
  double beta1, beta2, epsilon;
  BiasCorrection correction;
  std::int64_t blocks;
};

template <class T>
void squared_norms(CpuStream stream, const SquaredNorms<T>& args);
template <class T>
void squared_norms(CudaStream stream, const SquaredNorms<T>& args);
template <class T>
void clip_scale(CpuStream stream, const ClipScale<T>& args);
template <class T>
void clip_scale(CudaStream stream, const ClipScale<T>& args);
template <class T>
void adamw(CpuStream stream, const AdamW<T>& args);
template <class T>
void adamw(CudaStream stream, const AdamW<T>& args);

}  // namespace lathe
