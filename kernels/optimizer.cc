// Squared norms, the clip scale and AdamW over flat arenas: each one pass, at the speed of memory.
#include "lathe/kernels/optimizer.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Blocks below which one thread does it all: some 20 microseconds of work.
constexpr std::int64_t kSerialBlocks = 64;

/// Partial sums of a block: enough to hide the latency of additions with vectors of any width.
constexpr std::int64_t kNormLanes = 64;

template <class T>
void compute(CpuStream stream, const SquaredNorms<T>& args) {
  share_ranges(args.blocks > kSerialBlocks ? stream.threads : 1, args.blocks, [&](Range range) {
    for (std::int64_t block = range.first; block < range.end; ++block) {
      const T* __restrict g = args.gradients + block * kArenaBlock;
      T lanes[kNormLanes] = {};
      for (std::int64_t i = 0; i < kArenaBlock; i += kNormLanes) {
#pragma omp simd
        for (std::int64_t lane = 0; lane < kNormLanes; ++lane) lanes[lane] += g[i + lane] * g[i + lane];
      }
      for (std::int64_t width = kNormLanes / 2; width > 0; width /= 2) {
        for (std::int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
      }
      args.block_sums[block] = lanes[0];
    }
  });
}

template <class T>
void compute(CpuStream, const ClipScale<T>& args) {
  double sum = 0.0;
  for (std::int64_t block = 0; block < args.blocks; ++block) sum += static_cast<double>(args.block_sums[block]);
  OptimizerStep& step = *args.step;
  const double norm = __builtin_sqrt(sum);
  step.norm = static_cast<float>(norm);
  step.skip = __builtin_isfinite(step.norm) ? 0 : 1;
  if (step.skip != 0) {
    step.scale = 0.0F;
    if (step.first_skip < 0) step.first_skip = step.step;
    ++step.skips;
    return;
  }
  ++step.updates;
  const double factor = static_cast<double>(step.max_norm) / (norm + 1e-6);
  step.scale = step.max_norm > 0.0F && factor < 1.0 ? static_cast<float>(factor) : 1.0F;
}

/// The same for all elements of a step.
template <class T>
struct Moments {
  T scale, beta1, rest1, beta2, rest2, epsilon;
  T correction2;  ///< 1 / sqrt(1 - beta2^t)
};

/// Whether the new weights are also written as bf16.
enum class Working : std::uint8_t { absent, written };

/// One block: w = keep w - rate m / (correction2 sqrt(v) + epsilon).
template <Working kWorking, class T>
void adamw_block(T* __restrict w, T* __restrict m, T* __restrict v, Bf16* __restrict working, const T* __restrict gradients,
                 const Moments<T>& c, T keep, T rate) {
#pragma omp simd
  for (std::int64_t i = 0; i < kArenaBlock; ++i) {
    const T g = gradients[i] * c.scale;
    const T m_new = c.beta1 * m[i] + c.rest1 * g;
    const T v_new = c.beta2 * v[i] + c.rest2 * g * g;
    m[i] = m_new;
    v[i] = v_new;
    const T w_new = keep * w[i] - rate * m_new / (c.correction2 * sqrt(v_new) + c.epsilon);
    w[i] = w_new;
    if constexpr (kWorking == Working::written) working[i] = Bf16(w_new);
  }
}

template <Working kWorking, class T>
void update(CpuStream stream, const AdamW<T>& args) {
  const OptimizerStep& step = *args.step;
  if (step.skip != 0) return;
  const bool corrected = args.correction == BiasCorrection::corrected;
  const double t = step.updates;
  const double correction1 = corrected ? 1.0 / (1.0 - __builtin_pow(args.beta1, t)) : 1.0;
  const double correction2 = corrected ? 1.0 / __builtin_sqrt(1.0 - __builtin_pow(args.beta2, t)) : 1.0;
  const Moments<T> moments{.scale = static_cast<T>(step.scale),
                           .beta1 = static_cast<T>(args.beta1),
                           .rest1 = static_cast<T>(1.0 - args.beta1),
                           .beta2 = static_cast<T>(args.beta2),
                           .rest2 = static_cast<T>(1.0 - args.beta2),
                           .epsilon = static_cast<T>(args.epsilon),
                           .correction2 = static_cast<T>(correction2)};
  share_ranges(args.blocks > kSerialBlocks ? stream.threads : 1, args.blocks, [&](Range range) {
    for (std::int64_t block = range.first; block < range.end; ++block) {
      const AdamWGroup& group = args.groups[args.table[block].group];
      const double rate = static_cast<double>(step.learning_rate) * static_cast<double>(group.learning_rate_factor);
      const double keep = 1.0 - rate * static_cast<double>(group.weight_decay);
      const std::int64_t first = block * kArenaBlock;
      Bf16* const working = kWorking == Working::written ? args.working + first : nullptr;
      adamw_block<kWorking>(args.weights + first, args.m + first, args.v + first, working, args.gradients + first, moments,
                            static_cast<T>(keep), static_cast<T>(rate * correction1));
    }
  });
}

template <class T>
void compute(CpuStream stream, const AdamW<T>& args) {
  if (args.working != nullptr) {
    update<Working::written>(stream, args);
  } else {
    update<Working::absent>(stream, args);
  }
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const SquaredNorms<float>&);
template void run(CpuStream, const SquaredNorms<double>&);
template void run(CpuStream, const ClipScale<float>&);
template void run(CpuStream, const ClipScale<double>&);
template void run(CpuStream, const AdamW<float>&);
template void run(CpuStream, const AdamW<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
