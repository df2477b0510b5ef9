#pragma once
// The one way in which kernels are started.
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <utility>

#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/stream.h"

namespace lathe {

/// How many blocks of how many threads, and the bytes of dynamic shared memory (device/shared.cuh) of each block.
struct LaunchShape {
  dim3 grid = 1;
  dim3 block = 1;
  std::size_t shared_bytes = 0;
};

/// The grid's dimension for `count` pieces of work of `per_block` each.
constexpr unsigned blocks_for(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

/// Shared memory that a block has without asking.
inline constexpr std::size_t kSharedBytesByDefault = 48U << 10U;
/// Shared memory that a block of sm_80 or later can ask for (163 KB on an A100; 227 on Hopper).
inline constexpr std::size_t kSharedBytesAtMost = 163U << 10U;

/// Enqueues `kernel` with the arguments, converted to the kernel's parameters and copied. Throws CudaError where CUDA refuses it.
/// An empty grid is nothing to do, and neither is a rehearsal.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, CudaStream stream, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0 || stream.work == Work::rehearsed) return;
#ifdef LATHE_EMULATED
  emulation::launch(kernel, {.grid = shape.grid, .block = shape.block, .shared_bytes = shape.shared_bytes}, stream.handle,
                    Parameters(std::forward<Arguments>(arguments))...);
#else
  if (shape.shared_bytes > kSharedBytesByDefault) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream.handle;
  check(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...));
#endif
}

/// Enqueues zeros for `bytes` bytes at `to`. Throws CudaError where CUDA refuses it.
inline void fill_zero(CudaStream stream, void* to, std::int64_t bytes) {
  if (stream.work == Work::done) check(cudaMemsetAsync(to, 0, static_cast<std::size_t>(bytes), stream.handle));
}

}  // namespace lathe
