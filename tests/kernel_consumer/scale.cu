#include "scale.h"

#include <lathe/kernels/device/launch.cuh>
#include <lathe/kernels/device/memory.cuh>

namespace consumer {
namespace {

using namespace lathe::device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

constexpr int kThreads = 256;
constexpr int kWidth = 4;

__global__ void __launch_bounds__(kThreads) scale_kernel(const __grid_constant__ Scale args) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (i + kWidth <= args.count) {
    auto values = load<kWidth, Reuse::once>(args.x + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values[j] *= args.factor;
    store(args.y + i, values);
  } else {
    for (std::int64_t j = i; j < args.count; ++j) args.y[j] = args.factor * args.x[j];
  }
}

}  // namespace

void scale(lathe::CudaStream stream, const Scale& args) {
  lathe::launch(scale_kernel, {.grid = lathe::blocks_for(args.count, kThreads * kWidth), .block = kThreads}, stream, args);
}

}  // namespace consumer
