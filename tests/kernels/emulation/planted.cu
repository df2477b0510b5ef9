#include "tests/kernels/emulation/planted.h"

#include "lathe/kernels/device/cp_async.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe::test {
namespace {

constexpr int kThreads = 64;
using device::kAllLanes;

__global__ void double_kernel(float* y, const float* x, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] = 2 * x[i];  // LINE double
}

__global__ void add_one_kernel(float* y, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] += 1;  // LINE add_one
}

__global__ void scale_kernel(float* y, std::int64_t count, float factor) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] *= factor;
}

template <bool kFault>
__global__ void barrier_missed_kernel(float* y) {
  if (kFault && threadIdx.x == 40) return;
  __syncthreads();  // LINE barrier_missed
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void barrier_diverged_kernel(float* y) {
  if (kFault && threadIdx.x < 32) {
    __syncthreads();  // LINE barrier_diverged_first
  } else {
    __syncthreads();  // LINE barrier_diverged_second
  }
  y[threadIdx.x] = 1;
}
template <>
__global__ void barrier_diverged_kernel<false>(float* y) {
  if (blockDim.x > 1) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void lane_absent_kernel(float* y) {
  const float mine = static_cast<float>(threadIdx.x);
  if (kFault && threadIdx.x == 37) return;
  y[threadIdx.x] = __shfl_xor_sync(kAllLanes, mine, 1);  // LINE lane_absent
}

template <bool kFault>
__global__ void lane_waits_kernel(float* y) {
  float mine = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 32 < (kFault ? 15 : 16)) mine = __shfl_xor_sync(0xFFFF, mine, 1);  // LINE lane_waits_shuffle
  __syncthreads();                                                                     // LINE lane_waits_barrier
  y[threadIdx.x] = mine;
}

template <bool kFault>
__global__ void lane_outside_mask_kernel(float* y) {
  const float mine = static_cast<float>(threadIdx.x);
  const unsigned lane = threadIdx.x % 32;
  if (lane < 16) y[threadIdx.x] = __shfl_sync(0xFFFF, mine, kFault ? 20 : 3);  // LINE lane_outside_mask
}

template <bool kFault>
__global__ void shuffles_diverged_kernel(float* y) {
  float mine = static_cast<float>(threadIdx.x);
  if (kFault && threadIdx.x % 2 == 0) {
    mine = __shfl_xor_sync(kAllLanes, mine, 1);  // LINE shuffles_diverged_first
  } else {
    mine = __shfl_xor_sync(kAllLanes, mine, 2);  // LINE shuffles_diverged_second
  }
  y[threadIdx.x] = mine;
}
template <>
__global__ void shuffles_diverged_kernel<false>(float* y) {
  y[threadIdx.x] = __shfl_xor_sync(kAllLanes, static_cast<float>(threadIdx.x), 1);
}

template <bool kFault>
__global__ void race_shared_kernel(float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);  // LINE race_shared_write
  if (!kFault) __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 32];  // LINE race_shared_read
}

template <bool kFault>
__global__ void race_shared_write_after_read_kernel(float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 32];  // LINE race_after_read_read
  if (!kFault) __syncthreads();
  tile[threadIdx.x] = 0;  // LINE race_after_read_write
}

template <bool kFault>
__global__ void race_shared_warp_kernel(float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);  // LINE race_warp_write
  if (!kFault) __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];  // LINE race_warp_read
}

// Halves of a warp exchange through shared memory, by masks of their own. All lanes of a half read one place before one lane writes it.
template <bool kFault>
__global__ void race_half_warps_kernel(float* y) {
  __shared__ float tile[kThreads / 16];
  const unsigned half = threadIdx.x / 16;
  const unsigned mask = threadIdx.x % 32 < 16 ? 0xFFFFU : 0xFFFF0000U;
  const unsigned first = threadIdx.x % 16;
  for (unsigned round = 0; round < 16; ++round) {
    if (first == round) tile[half] = static_cast<float>(round);  // LINE race_half_write
    __syncwarp(mask);
    y[threadIdx.x] = tile[half];  // LINE race_half_read
    if (!kFault) __syncwarp(mask);
  }
}

template <bool kFault>
__global__ void race_global_kernel(float* y) {
  y[threadIdx.x] = 1;  // LINE race_global_write
  if (!kFault) __syncthreads();
  const float other = y[threadIdx.x ^ 32];  // LINE race_global_read
  __syncthreads();
  y[threadIdx.x] += other;
}

template <bool kFault>
__global__ void race_global_write_after_read_kernel(float* y) {
  const float other = y[threadIdx.x ^ 32];  // LINE race_global_after_read
  if (!kFault) __syncthreads();
  y[threadIdx.x] = other;  // LINE race_global_after_write
}

template <bool kFault>
__global__ void race_between_blocks_kernel(float* y) {
  __syncthreads();
  if (kFault) {
    y[threadIdx.x] = 1;  // LINE race_blocks
  } else {
    y[blockIdx.x * blockDim.x + threadIdx.x] = 1;
  }
}

template <bool kFault>
__global__ void race_between_blocks_write_after_read_kernel(float* y) {
  const unsigned own = blockIdx.x * blockDim.x + threadIdx.x;
  const float other = y[kFault ? own ^ kThreads : own];  // LINE race_blocks_read
  __syncthreads();
  y[own] = other + 1;  // LINE race_blocks_write
}

template <bool kFault>
__global__ void race_atomic_kernel(float* y) {
  __shared__ float sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, 1.0F);  // LINE race_atomic_add
  if (!kFault) __syncthreads();
  y[threadIdx.x] = sum;  // LINE race_atomic_read
}

// Two threads write the two halves of a word: no race. With the fault, they write one of them.
template <bool kFault>
__global__ void race_bf16_kernel(Bf16* y) {
  y[kFault ? threadIdx.x / 2 * 2 : threadIdx.x] = Bf16(1.0F);  // LINE race_bf16
}

template <bool kFault>
__global__ void unwritten_static_kernel(float* y) {
  __shared__ float tile[kThreads];
  if (!kFault || threadIdx.x != 5) tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];  // LINE unwritten_static
}

template <bool kFault>
__global__ void unwritten_dynamic_kernel(float* y) {
  float* tile = device::dynamic_shared<float>();
  if (!kFault || threadIdx.x != 5) tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];  // LINE unwritten_dynamic
}

// What another block has left in shared memory isn't there.
template <bool kFault>
__global__ void unwritten_block_kernel(float* y) {
  __shared__ float kept;
  if (threadIdx.x == 0 && (!kFault || blockIdx.x == 0)) kept = 1;
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = kept;  // LINE unwritten_block
}

template <bool kFault>
__global__ void beyond_static_kernel(float* y) {
  __shared__ float tile[kThreads];
  float* at = tile;
  tile[threadIdx.x] = 1;
  __syncthreads();
  // Volatile, or the compiler proves the fault and is free to do as it likes.
  volatile unsigned last = kFault ? kThreads * 4 + 4 : 0;
  const unsigned byte = last;
  if (threadIdx.x == 0) y[0] = *reinterpret_cast<volatile float*>(reinterpret_cast<char*>(at) + byte);  // LINE beyond_static
}

template <bool kFault>
__global__ void beyond_dynamic_kernel(float* y) {
  float* tile = device::dynamic_shared<float>();
  tile[threadIdx.x + (kFault ? 1 : 0)] = 1;  // LINE beyond_dynamic
  __syncthreads();
  if (threadIdx.x == 0) y[0] = tile[1];
}

template <bool kFault>
__global__ void misaligned_kernel(float* y) {
  const auto four = device::load<4>(y + (kFault ? 1 : 0));  // LINE misaligned
  if (threadIdx.x == 0) y[8] = four[0];
}

template <bool kFault>
__global__ void local_of_another_kernel(float* y) {
  __shared__ float* address;
  float own[2] = {1, 2};
  volatile float* kept = own;
  if (threadIdx.x == 0) address = own;
  __syncthreads();
  y[threadIdx.x] = kFault ? *address : kept[0];  // LINE local_of_another
  __syncthreads();
}

template <bool kFault>
__global__ void async_not_waited_kernel(float* y, const float* x) {
  float* tile = device::dynamic_shared<float>();
  device::cp_async<16>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);  // LINE async_not_waited_copy
  device::cp_async_commit();
  if (!kFault) device::cp_async_wait<0>();
  y[threadIdx.x] = tile[4 * threadIdx.x];  // LINE async_not_waited_read
}

template <bool kFault>
__global__ void async_no_barrier_kernel(float* y, const float* x) {
  float* tile = device::dynamic_shared<float>();
  tile[4 * threadIdx.x] = 0;
  __syncthreads();
  device::cp_async<16>(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);  // LINE async_no_barrier_copy
  device::cp_async_commit();
  device::cp_async_wait<0>();
  if (!kFault) __syncthreads();
  y[threadIdx.x] = tile[4 * (threadIdx.x ^ 32)];  // LINE async_no_barrier_read
}

__global__ void nothing_kernel() {}

template <int kBytes>
__global__ void static_shared_kernel(float* y) {
  __shared__ char tile[kBytes];
  tile[threadIdx.x] = 1;
  y[threadIdx.x] = tile[threadIdx.x];
}

template <int kBytes>
struct Arguments {
  float* y;
  char more[kBytes - 8];
};
template <int kBytes>
__global__ void arguments_kernel(const __grid_constant__ Arguments<kBytes> args) {
  args.y[threadIdx.x] = 1;
}

__global__ void half_warp_sums_kernel(float* y) {
  const unsigned mask = threadIdx.x < 16 ? 0xFFFFU : 0xFFFF0000U;
  float sum = static_cast<float>(threadIdx.x);
  for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_down_sync(mask, sum, static_cast<unsigned>(distance), 16);
  y[threadIdx.x] = __shfl_sync(mask, sum, 0, 16);
}

__global__ void vote_counts_kernel(float* y) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned mask = lane < 16 ? 0xFFFFU : 0xFFFF0000U;
  const unsigned odd = __ballot_sync(mask, lane % 2 == 1);
  const bool any = __any_sync(kAllLanes, lane == 31);
  const bool all = __all_sync(kAllLanes, lane < 31);
  y[threadIdx.x] = any && !all ? static_cast<float>(__popc(odd)) : -1.0F;
}

__global__ void early_exit_kernel(float* y) {
  if (threadIdx.x >= 64) return;
  y[threadIdx.x] = __shfl_sync(kAllLanes, 1.0F, 0);
}

__global__ void block_index_kernel(float* y) {
  __shared__ float tile[4][3][2];
  tile[threadIdx.z][threadIdx.y][threadIdx.x] = 1;
  __syncthreads();
  const unsigned inside = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned i = (blockIdx.y * gridDim.x + blockIdx.x) * 24 + inside;
  y[i] = static_cast<float>(i) * tile[3 - threadIdx.z][2 - threadIdx.y][1 - threadIdx.x];
}

__global__ void thousand_sum_kernel(float* y) {
  __shared__ float sums[1024];
  sums[threadIdx.x] = static_cast<float>(threadIdx.x);
  for (unsigned half = 512; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  y[threadIdx.x] = sums[0];
}

__global__ void atomic_sums_kernel(float* y, std::int32_t* counts) {
  __shared__ float sum;
  __shared__ std::int32_t count;
  __shared__ std::int32_t of_warp[2];
  if (threadIdx.x == 0) {
    sum = 0;
    count = 0;
  }
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = 0;
  __syncthreads();
  atomicAdd(&sum, 0.5F);
  atomicAdd(&count, 1);
  // Within a warp, __syncwarp orders what was done atomically before what is done plainly.
  atomicAdd(&of_warp[threadIdx.x / 32], 1);
  __syncwarp();
  if (threadIdx.x % 32 == 7) atomicAdd(&counts[1], of_warp[threadIdx.x / 32]);
  __syncthreads();
  if (threadIdx.x == 3) {
    atomicAdd(&y[0], sum);
    atomicAdd(&counts[0], count);
  }
  atomicMax(&counts[2], static_cast<int>(threadIdx.x));
}

__global__ void overlapping_masks_kernel(float* y) {
  float value = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(0xFFFF, value, 1);
  y[threadIdx.x] = __shfl_xor_sync(kAllLanes, value, 16);
}

template <class Kernel>
void start(Kernel* fault, Kernel* sound, Planted planted, const LaunchShape& shape, CudaStream stream, auto... arguments) {
  launch(planted == Planted::fault ? fault : sound, shape, stream, arguments...);
}

}  // namespace

void run_double(CudaStream stream, float* y, const float* x, std::int64_t count) {
  launch(double_kernel, {.grid = blocks_for(count, 64), .block = 64}, stream, y, x, count);
}
void run_add_one(CudaStream stream, float* y, std::int64_t count) {
  launch(add_one_kernel, {.grid = blocks_for(count, 64), .block = 64}, stream, y, count);
}
void run_scale(CudaStream stream, float* y, std::int64_t count, float factor) {
  launch(scale_kernel, {.grid = blocks_for(count, 64), .block = 64}, stream, y, count, factor);
}

void run_barrier_missed(CudaStream stream, Planted planted, float* y) {
  start(barrier_missed_kernel<true>, barrier_missed_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_barrier_diverged(CudaStream stream, Planted planted, float* y) {
  start(barrier_diverged_kernel<true>, barrier_diverged_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_lane_absent(CudaStream stream, Planted planted, float* y) {
  start(lane_absent_kernel<true>, lane_absent_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_lane_waits(CudaStream stream, Planted planted, float* y) {
  start(lane_waits_kernel<true>, lane_waits_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_lane_outside_mask(CudaStream stream, Planted planted, float* y) {
  start(lane_outside_mask_kernel<true>, lane_outside_mask_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_shuffles_diverged(CudaStream stream, Planted planted, float* y) {
  start(shuffles_diverged_kernel<true>, shuffles_diverged_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_shared(CudaStream stream, Planted planted, float* y) {
  start(race_shared_kernel<true>, race_shared_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_shared_write_after_read(CudaStream stream, Planted planted, float* y) {
  start(race_shared_write_after_read_kernel<true>, race_shared_write_after_read_kernel<false>, planted, {.block = kThreads},
        stream, y);
}
void run_race_shared_warp(CudaStream stream, Planted planted, float* y) {
  start(race_shared_warp_kernel<true>, race_shared_warp_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_half_warps(CudaStream stream, Planted planted, float* y) {
  start(race_half_warps_kernel<true>, race_half_warps_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_global(CudaStream stream, Planted planted, float* y) {
  start(race_global_kernel<true>, race_global_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_global_write_after_read(CudaStream stream, Planted planted, float* y) {
  start(race_global_write_after_read_kernel<true>, race_global_write_after_read_kernel<false>, planted, {.block = kThreads},
        stream, y);
}
void run_race_between_blocks(CudaStream stream, Planted planted, float* y) {
  start(race_between_blocks_kernel<true>, race_between_blocks_kernel<false>, planted, {.grid = 2, .block = kThreads}, stream, y);
}
void run_race_between_blocks_write_after_read(CudaStream stream, Planted planted, float* y) {
  start(race_between_blocks_write_after_read_kernel<true>, race_between_blocks_write_after_read_kernel<false>, planted,
        {.grid = 2, .block = kThreads}, stream, y);
}
void run_race_atomic(CudaStream stream, Planted planted, float* y) {
  start(race_atomic_kernel<true>, race_atomic_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_race_bf16(CudaStream stream, Planted planted, Bf16* y) {
  start(race_bf16_kernel<true>, race_bf16_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_unwritten_static(CudaStream stream, Planted planted, float* y) {
  start(unwritten_static_kernel<true>, unwritten_static_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_unwritten_dynamic(CudaStream stream, Planted planted, float* y) {
  start(unwritten_dynamic_kernel<true>, unwritten_dynamic_kernel<false>, planted,
        {.block = kThreads, .shared_bytes = 4 * kThreads}, stream, y);
}
void run_unwritten_block(CudaStream stream, Planted planted, float* y) {
  start(unwritten_block_kernel<true>, unwritten_block_kernel<false>, planted, {.grid = 2, .block = kThreads}, stream, y);
}
void run_beyond_static(CudaStream stream, Planted planted, float* y) {
  start(beyond_static_kernel<true>, beyond_static_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_beyond_dynamic(CudaStream stream, Planted planted, float* y) {
  start(beyond_dynamic_kernel<true>, beyond_dynamic_kernel<false>, planted, {.block = kThreads, .shared_bytes = 4 * kThreads},
        stream, y);
}
void run_misaligned(CudaStream stream, Planted planted, float* y) {
  start(misaligned_kernel<true>, misaligned_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_local_of_another(CudaStream stream, Planted planted, float* y) {
  start(local_of_another_kernel<true>, local_of_another_kernel<false>, planted, {.block = kThreads}, stream, y);
}
void run_async_not_waited(CudaStream stream, Planted planted, float* y, const float* x) {
  start(async_not_waited_kernel<true>, async_not_waited_kernel<false>, planted,
        {.block = kThreads, .shared_bytes = 16 * kThreads}, stream, y, x);
}
void run_async_no_barrier(CudaStream stream, Planted planted, float* y, const float* x) {
  start(async_no_barrier_kernel<true>, async_no_barrier_kernel<false>, planted,
        {.block = kThreads, .shared_bytes = 16 * kThreads}, stream, y, x);
}

void run_shape(CudaStream stream, Extent grid, Extent block, std::size_t shared_bytes) {
  launch(nothing_kernel, {.grid = {grid.x, grid.y, grid.z}, .block = {block.x, block.y, block.z}, .shared_bytes = shared_bytes},
         stream);
}
void run_static_shared_too_large(CudaStream stream, Planted planted, float* y) {
  start(static_shared_kernel<49'153>, static_shared_kernel<49'152>, planted, {.block = kThreads}, stream, y);
}
void run_large_arguments(CudaStream stream, Planted planted, float* y) {
  if (planted == Planted::fault) {
    launch(arguments_kernel<4104>, {.block = kThreads}, stream, Arguments<4104>{.y = y, .more = {}});
  } else {
    launch(arguments_kernel<4096>, {.block = kThreads}, stream, Arguments<4096>{.y = y, .more = {}});
  }
}

void run_half_warp_sums(CudaStream stream, float* y) { launch(half_warp_sums_kernel, {.block = 32}, stream, y); }
void run_vote_counts(CudaStream stream, float* y) { launch(vote_counts_kernel, {.block = 64}, stream, y); }
void run_early_exit(CudaStream stream, float* y) { launch(early_exit_kernel, {.block = 128}, stream, y); }
void run_block_index(CudaStream stream, float* y) { launch(block_index_kernel, {.grid = {1, 2}, .block = {2, 3, 4}}, stream, y); }
void run_thousand_sum(CudaStream stream, float* y) { launch(thousand_sum_kernel, {.block = 1024}, stream, y); }
void run_atomic_sums(CudaStream stream, float* y, std::int32_t* counts) {
  launch(atomic_sums_kernel, {.grid = 4, .block = 64}, stream, y, counts);
}
void run_overlapping_masks(CudaStream stream, float* y) { launch(overlapping_masks_kernel, {.block = 32}, stream, y); }

}  // namespace lathe::test
