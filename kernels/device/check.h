#pragma once
// A call to CUDA that fails throws. Needs what declares the calls; error.h, which declares the exception, does not.
#include <source_location>

#include "lathe/kernels/device/error.h"
#include "lathe/kernels/device/runtime_api.h"

namespace lathe {

/// Throws CudaError with a message made of its arguments.
[[noreturn]] void throw_cuda_error(int status, const char* name, const char* text, std::source_location where);

/// Throws CudaError, naming the caller's line, unless `status` is success. Clears what cudaGetLastError() remembers.
inline void check(cudaError_t status, std::source_location where = std::source_location::current()) {
  if (status == cudaSuccess) [[likely]]
    return;
  static_cast<void>(cudaGetLastError());
  throw_cuda_error(static_cast<int>(status), cudaGetErrorName(status), cudaGetErrorString(status), where);
}

}  // namespace lathe
