#pragma once
// NCCL's functions: its own, or the emulation's under the same names. Internal to runtime/.
#ifdef LATHE_EMULATED
#include "lathe/runtime/nccl_twin.h"
namespace lathe {
using namespace emulation::nccl;  // NOLINT(google-build-using-namespace): what NCCL has at global scope
}
#else
#include <nccl.h>
#endif
