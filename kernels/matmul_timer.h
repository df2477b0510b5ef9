#pragma once
// How long a library's algorithm takes for a product on the device. Internal: no installed header needs it.
#include <cstddef>

#include "lathe/kernels/matmul_cuda_plans.h"

namespace lathe {

/// Times on the stream's device: operands of its own, full of normally distributed numbers, since numbers that switch few transistors run
/// faster; before each run `cache_bytes` of other memory are written, so that the second-level cache is cold; the median of some runs, each
/// between two events. Holds memory for the last problem that it was asked for. Throws CudaError where memory is short.
MatmulTimer time_on_device(CudaStreamHandle stream, MatmulLibrary& library, std::size_t cache_bytes);

/// With four times the second-level cache of the current device.
MatmulTimer time_on_device(CudaStreamHandle stream, MatmulLibrary& library);

}  // namespace lathe
