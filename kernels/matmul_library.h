#pragma once
// What CUDA's matrix products need of a library: cuBLASLt (matmul_cublaslt.cc), or the emulation's (matmul_emulated.cc); the build has one.
// Internal to kernels/.
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lathe/kernels/matmul_problem.h"
#include "lathe/kernels/stream.h"

namespace lathe {

/// A library's way to compute a problem. Its bits mean something to the library and version that they came from alone; there they may be
/// kept and used again.
using MatmulAlgorithm = std::array<std::uint64_t, 8>;

class MatmulLibrary {
 public:
  MatmulLibrary() = default;
  virtual ~MatmulLibrary() = default;
  MatmulLibrary(const MatmulLibrary&) = delete;
  MatmulLibrary& operator=(const MatmulLibrary&) = delete;
  MatmulLibrary(MatmulLibrary&&) = delete;
  MatmulLibrary& operator=(MatmulLibrary&&) = delete;

  /// "cuBLASLt 13.1.0 on NVIDIA H200": algorithms mean the same where this is the same.
  virtual std::string name() const = 0;
  /// Bytes of workspace that any of its algorithms may use.
  virtual std::int64_t workspace_bytes() const = 0;
  /// Algorithms for the problem, the one that the library expects to be fastest first; some, not all. Throws CudaError where there is none.
  virtual std::vector<MatmulAlgorithm> candidates(const MatmulProblem& problem) = 0;
  /// Whether the algorithm, which may come from another process, computes the problem on this device.
  virtual bool accepts(const MatmulProblem& problem, const MatmulAlgorithm& algorithm) = 0;
  /// Throws CudaError where it can't be launched.
  virtual void enqueue(CudaStreamHandle stream, const MatmulProblem& problem, const MatmulAlgorithm& algorithm,
                       const MatmulOperands& operands) = 0;
};

/// The build's library, for the current device. Throws CudaError where there is no device, or none that the library supports.
std::unique_ptr<MatmulLibrary> make_matmul_library();

}  // namespace lathe
