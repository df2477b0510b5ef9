#pragma once
// Kernels with a fault planted in each, and sound ones of known traffic. Each function enqueues one launch.
#include <cstdint>

#include "lathe/kernels/stream.h"

namespace lathe::test {

/// y[i] = 2 x[i], i < count.
void run_double(CudaStream stream, float* y, const float* x, std::int64_t count);

}  // namespace lathe::test
