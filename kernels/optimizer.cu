// Squared norms, the clip scale and AdamW over flat fp32 arenas in CUDA.
//
// Norms: a warp owns an arena block, 32 elements a lane, all of whose loads are under way at once; 4 bytes an element. The clip scale: one
// block of threads adds the blocks' sums in fp64.
// AdamW: one launch, a block of threads for each arena block, four elements a thread, whose four loads are under way while the first thread
// reads the step, the table and the group and raises the betas to the t-th power for all of them. Bytes an element: read g, w, m, v, write w,
// m, v, 28; 30 with the bf16 working copy (gradients are fp32: bf16 products are accumulated into the arena in fp32). Square root and
// division are IEEE's: with 28 bytes an element to wait for they cost nothing.
#include "lathe/kernels/optimizer.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/warp.cuh"

namespace [[gnu::visibility("default")]] lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

constexpr int kNormThreads = 256;
constexpr int kClipThreads = 1024;
constexpr int kAdamWThreads = 256;
constexpr int kOfThread = static_cast<int>(kArenaBlock) / kAdamWThreads;

/// Elements that a thread moves at once: four, or one where an arena isn't aligned to 16 bytes.
template <int kWidth>
__global__ void __launch_bounds__(kNormThreads) squared_norms_kernel(const __grid_constant__ SquaredNorms<float> args) {
  constexpr int kPieces = static_cast<int>(kArenaBlock) / kWarp / kWidth;
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * (kNormThreads / kWarp) + threadIdx.x / kWarp;
  if (block >= args.blocks) return;
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const float* const gradients = args.gradients + block * kArenaBlock;
  Vector<float, kWidth> g[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) g[p] = load<kWidth, Reuse::once>(gradients + (p * kWarp + lane) * kWidth);
  float sums[4] = {};
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float& sum = sums[(p * kWidth + i) % 4];
      sum = fmaf(g[p][i], g[p][i], sum);
    }
  }
  const float sum = warp_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (lane == 0) args.block_sums[block] = sum;
}

/// One block: thread i adds the sums i, i + 1,024 and so on, then the threads' sums are added in a tree.
__global__ void __launch_bounds__(kClipThreads) clip_scale_kernel(const __grid_constant__ ClipScale<float> args) {
  __shared__ double scratch[kClipThreads];
  const auto thread = static_cast<int>(threadIdx.x);
  double sum = 0.0;
#pragma unroll 16
  for (std::int64_t block = thread; block < args.blocks; block += kClipThreads)
    sum += static_cast<double>(args.block_sums[block]);
  scratch[thread] = sum;
  for (int half = kClipThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) scratch[thread] += scratch[thread + half];
  }
  if (thread != 0) return;

  OptimizerStep& step = *args.step;
  const double norm = sqrt(scratch[0]);
  const auto rounded = static_cast<float>(norm);
  step.norm = rounded;
  const bool finite = rounded - rounded == 0.0F;
  step.skip = finite ? 0 : 1;
  if (!finite) {
    step.scale = 0.0F;
    if (step.first_skip < 0) step.first_skip = step.step;
    ++step.skips;
    return;
  }
  ++step.updates;
  const double factor = static_cast<double>(step.max_norm) / (norm + 1e-6);
  step.scale = step.max_norm > 0.0F && factor < 1.0 ? static_cast<float>(factor) : 1.0F;
}

/// base^exponent by squaring: within 1e-14 of its value for the exponents that a training reaches, and so is 1 - base^exponent within that
/// of 1.
__device__ double power(double base, std::int32_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result *= base;
    base *= base;
  }
  return result;
}

/// The betas, rounded once.
struct Moments {
  float beta1, rest1, beta2, rest2, epsilon;
};

/// What is the same for an arena block.
struct BlockTerms {
  float scale;
  float keep;         ///< 1 - rate * decay
  float rate;         ///< rate / (1 - beta1^t)
  float correction2;  ///< 1 / sqrt(1 - beta2^t)
  bool skip;
};

__device__ __forceinline__ BlockTerms read_terms(const AdamW<float>& args, std::int64_t block) {
  // All that is read, before anything waits for it.
  const std::int32_t updates = args.step->updates;
  const float learning_rate = args.step->learning_rate;
  const float scale = args.step->scale;
  const bool skip = args.step->skip != 0;
  const AdamWGroup& group = args.groups[args.table[block].group];
  const double rate = static_cast<double>(learning_rate) * static_cast<double>(group.learning_rate_factor);
  const auto keep = static_cast<float>(1.0 - rate * static_cast<double>(group.weight_decay));
  double correction1 = 1.0;
  double correction2 = 1.0;
  if (args.correction == BiasCorrection::corrected) {
    correction1 = 1.0 / (1.0 - power(args.beta1, updates));
    correction2 = 1.0 / sqrt(1.0 - power(args.beta2, updates));
  }
  return {.scale = scale,
          .keep = keep,
          .rate = static_cast<float>(rate * correction1),
          .correction2 = static_cast<float>(correction2),
          .skip = skip};
}

template <int kWidth>
__global__ void __launch_bounds__(kAdamWThreads) adamw_kernel(const __grid_constant__ AdamW<float> args, const Moments moments) {
  constexpr int kPieces = kOfThread / kWidth;
  __shared__ BlockTerms shared_terms;
  const std::int64_t block = blockIdx.x;
  const std::int64_t first = block * kArenaBlock + static_cast<int>(threadIdx.x) * kWidth;
  constexpr int kStride = kAdamWThreads * kWidth;
  Vector<float, kWidth> g[kPieces];
  Vector<float, kWidth> w[kPieces];
  Vector<float, kWidth> m[kPieces];
  Vector<float, kWidth> v[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    g[p] = load<kWidth, Reuse::once>(args.gradients + first + p * kStride);
    w[p] = load<kWidth, Reuse::once>(args.weights + first + p * kStride);
    m[p] = load<kWidth, Reuse::once>(args.m + first + p * kStride);
    v[p] = load<kWidth, Reuse::once>(args.v + first + p * kStride);
  }
  if (threadIdx.x == 0) shared_terms = read_terms(args, block);
  __syncthreads();
  const BlockTerms terms = shared_terms;
  if (terms.skip) return;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    float weights[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float gradient = g[p][i] * terms.scale;
      m[p][i] = fmaf(moments.beta1, m[p][i], moments.rest1 * gradient);
      v[p][i] = fmaf(moments.beta2, v[p][i], moments.rest2 * gradient * gradient);
      const float step = terms.rate * m[p][i] / fmaf(terms.correction2, sqrtf(v[p][i]), moments.epsilon);
      weights[i] = fmaf(terms.keep, w[p][i], -step);
      w[p][i] = weights[i];
    }
    const std::int64_t at = first + p * kStride;
    store(args.weights + at, w[p]);
    store(args.m + at, m[p]);
    store(args.v + at, v[p]);
    if (args.working != nullptr) store(args.working + at, from_float<Bf16>(weights));
  }
}

/// Whether vectors of four bf16 may be written there; null is.
bool aligned_to_8(const Bf16* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 8 == 0; }

}  // namespace

template <>
void squared_norms(CudaStream stream, const SquaredNorms<float>& args) {
  const device::Range range("squared_norms");
  const LaunchShape shape{.grid = blocks_for(args.blocks, kNormThreads / kWarp), .block = kNormThreads};
  launch(aligned_to_16(args.gradients) ? squared_norms_kernel<4> : squared_norms_kernel<1>, shape, stream, args);
}

template <>
void clip_scale(CudaStream stream, const ClipScale<float>& args) {
  const device::Range range("clip_scale");
  launch(clip_scale_kernel, {.grid = 1, .block = kClipThreads}, stream, args);
}

template <>
void adamw(CudaStream stream, const AdamW<float>& args) {
  const device::Range range("adamw");
  const Moments moments{.beta1 = static_cast<float>(args.beta1),
                        .rest1 = static_cast<float>(1.0 - args.beta1),
                        .beta2 = static_cast<float>(args.beta2),
                        .rest2 = static_cast<float>(1.0 - args.beta2),
                        .epsilon = static_cast<float>(args.epsilon)};
  const LaunchShape shape{.grid = static_cast<unsigned>(args.blocks), .block = kAdamWThreads};
  const bool wide = aligned_to_16(args.weights, args.m, args.v, args.gradients) && aligned_to_8(args.working);
  launch(wide ? adamw_kernel<4> : adamw_kernel<1>, shape, stream, args, moments);
}

}  // namespace lathe
