#pragma once
// The last step of sums over rows: the parts' partial sums, added in a fixed order.
#include <cstdint>

#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/warp.cuh"
#include "lathe/kernels/types.h"

namespace lathe::device {

/// Where a sum goes.
struct PartSum {
  float* to;
  Use use;
};

/// kSums rows of `channels` partial sums a part: partials [parts, kSums, channels]. Those of a sum that is skipped are not read.
template <int kSums>
struct PartSums {
  const float* partials;
  std::int64_t parts;
  std::int64_t channels;
  PartSum sums[kSums];
};

/// Runs that the parts are cut into, one a warp.
inline constexpr int kPartRuns = 16;

/// A block adds 32 columns of one sum: each warp a run of parts in order, then the runs in order. That is 16 additions one after another,
/// and as many again, where one thread would make 256.
template <int kSums>
__global__ void __launch_bounds__(kPartRuns* kWarp) sum_parts_kernel(const __grid_constant__ PartSums<kSums> args) {
  const PartSum sum = args.sums[blockIdx.y];
  if (sum.use == Use::skip) return;
  __shared__ float runs[kPartRuns][kWarp];
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const auto run = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kWarp + lane;
  const std::int64_t stride = kSums * args.channels;
  float total = 0.0F;
  if (column < args.channels) {
    const float* const partials = args.partials + blockIdx.y * args.channels + column;
    const auto parts = static_cast<int>(args.parts);
    const int end = parts * (run + 1) / kPartRuns;
#pragma unroll 8
    for (int p = parts * run / kPartRuns; p < end; ++p) total += partials[p * stride];
  }
  runs[run][lane] = total;
  __syncthreads();
  if (run != 0 || column >= args.channels) return;
#pragma unroll
  for (int r = 1; r < kPartRuns; ++r) total += runs[r][lane];
  sum.to[column] = sum.use == Use::add ? sum.to[column] + total : total;
}

/// Enqueues the additions; nothing where every sum is skipped.
template <int kSums>
void sum_parts(CudaStream stream, const PartSums<kSums>& args) {
  bool wanted = false;
  for (const PartSum& sum : args.sums) wanted = wanted || sum.use != Use::skip;
  if (!wanted) return;
  launch(sum_parts_kernel<kSums>, {.grid = dim3(blocks_for(args.channels, kWarp), kSums), .block = kPartRuns * kWarp}, stream,
         args);
}

}  // namespace lathe::device
