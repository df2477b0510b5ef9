#include "tests/kernels/emulation/planted.h"

#include "lathe/kernels/device/launch.cuh"

namespace lathe::test {
namespace {

__global__ void double_kernel(float* y, const float* x, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] = 2 * x[i];
}

}  // namespace

void run_double(CudaStream stream, float* y, const float* x, std::int64_t count) {
  launch(double_kernel, {.grid = blocks_for(count, 64), .block = 64}, stream, y, x, count);
}

}  // namespace lathe::test
