#pragma once
// CUDA's runtime for host code: CUDA's own, or the emulation's under the same names.
#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
namespace lathe {
using namespace emulation::cuda;  // NOLINT(google-build-using-namespace): what CUDA has at global scope
}
#else
#include <cuda_runtime_api.h>
#endif
