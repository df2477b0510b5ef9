#pragma once
// Kernels with one fault each, and beside each its sound twin. A function enqueues one launch; `planted` says which of the two.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace lathe::test {

enum class Planted : std::uint8_t { sound, fault };

/// y[i] = 2 x[i], i < count, in blocks of 64 threads.
void run_double(CudaStream stream, float* y, const float* x, std::int64_t count);
/// y[i] += 1.
void run_add_one(CudaStream stream, float* y, std::int64_t count);
/// y[i] *= factor, a scalar among the arguments.
void run_scale(CudaStream stream, float* y, std::int64_t count, float factor);

// Barriers and warps: y has an element for each thread.
void run_barrier_missed(CudaStream stream, Planted planted, float* y);
void run_barrier_diverged(CudaStream stream, Planted planted, float* y);
void run_lane_absent(CudaStream stream, Planted planted, float* y);
void run_lane_waits(CudaStream stream, Planted planted, float* y);
void run_lane_outside_mask(CudaStream stream, Planted planted, float* y);
void run_shuffles_diverged(CudaStream stream, Planted planted, float* y);

// Races.
void run_race_shared(CudaStream stream, Planted planted, float* y);
void run_race_shared_write_after_read(CudaStream stream, Planted planted, float* y);
void run_race_shared_warp(CudaStream stream, Planted planted, float* y);
void run_race_half_warps(CudaStream stream, Planted planted, float* y);
void run_race_global(CudaStream stream, Planted planted, float* y);
void run_race_global_write_after_read(CudaStream stream, Planted planted, float* y);
void run_race_between_blocks(CudaStream stream, Planted planted, float* y);
void run_race_between_blocks_write_after_read(CudaStream stream, Planted planted, float* y);
void run_race_atomic(CudaStream stream, Planted planted, float* y);
void run_race_bf16(CudaStream stream, Planted planted, Bf16* y);

// Memory.
void run_unwritten_static(CudaStream stream, Planted planted, float* y);
void run_unwritten_dynamic(CudaStream stream, Planted planted, float* y);
void run_unwritten_block(CudaStream stream, Planted planted, float* y);
void run_beyond_static(CudaStream stream, Planted planted, float* y);
void run_beyond_dynamic(CudaStream stream, Planted planted, float* y);
void run_misaligned(CudaStream stream, Planted planted, float* y);
void run_local_of_another(CudaStream stream, Planted planted, float* y);
void run_async_not_waited(CudaStream stream, Planted planted, float* y, const float* x);
void run_async_no_barrier(CudaStream stream, Planted planted, float* y, const float* x);

// Launches.
struct Extent {
  unsigned x, y, z;
};
void run_shape(CudaStream stream, Extent grid, Extent block, std::size_t shared_bytes);
void run_static_shared_too_large(CudaStream stream, Planted planted, float* y);
void run_large_arguments(CudaStream stream, Planted planted, float* y);

// Sound kernels that a strict judge might take for wrong; each gives y what its name says.
void run_half_warp_sums(CudaStream stream, float* y);  ///< y[32]: sums of lane numbers within halves, by partial masks
void run_vote_counts(CudaStream stream, float* y);     ///< y[64]: how many lanes of the half have an odd number
void run_early_exit(CudaStream stream, float* y);      ///< y[128]: warps 0 and 1 write 1, the others nothing
void run_block_index(CudaStream stream, float* y);  ///< y[2 * 3 * 4 * 2]: blocks of 2 x 3 x 4 threads, 2 blocks: the linear index
void run_thousand_sum(CudaStream stream, float* y);  ///< y[1024]: the sum of 0..1023 everywhere, by a tree in shared memory
void run_atomic_sums(CudaStream stream, float* y, std::int32_t* counts);  ///< y[1], counts[3]: 4 blocks of 64
void run_overlapping_masks(CudaStream stream, float* y);  ///< y[32]: a half meets by itself while the other waits for all

}  // namespace lathe::test
