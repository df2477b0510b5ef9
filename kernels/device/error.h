#pragma once
// What is thrown where CUDA refuses a call.
#include <stdexcept>
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// A call to CUDA or one of its libraries failed: "runtime/cuda_device.cc:41: cudaErrorInvalidValue (1): invalid argument".
class CudaError : public std::runtime_error {
 public:
  CudaError(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  /// The value of cudaError_t (or of the library's own status).
  int status() const noexcept { return status_; }

 private:
  int status_;
};

}  // namespace lathe
