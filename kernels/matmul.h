#pragma once
// Matrix products. The one family that a library computes: oneDNN or Eigen on the CPU, cuBLASLt on CUDA.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

enum class Transpose : std::uint8_t { no, yes };

/// c (written or added to) = op(a) op(b) + bias, row-major. Shapes: op(a) [M, K], op(b) [K, N], c [M, N], bias [N] or null (only
/// where c is written). a is stored [M, K] or, transposed, [K, M], with row stride lda; b likewise; strides are in elements. c
/// aliases nothing. M, N and K may be 0 (K = 0 gives bias, or zero). Deterministic for one library, device, shape and number of
/// threads. Throws std::invalid_argument where sizes and strides are none, before anything is touched.
/// C, the type of c and bias, is T, or Accumulator<T>: a weight's gradient goes from bf16 operands straight into fp32 memory
/// (docs/decisions/0007-products-on-cuda.md).
/// On the CPU fp64 is always Eigen's. oneDNN picks its instruction set itself, so that a stream which asks for less than the
/// machine's best gets Eigen, compiled for what it asks for. On CUDA T is fp32 or bf16, and sums are fp32 (docs/kernels/matmul.md).
template <class T, class C = T>
struct Matmul {
  C* c;
  const T* a;
  const T* b;
  const C* bias;
  Use use;
  Transpose transpose_a, transpose_b;
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc;
  std::byte* workspace;  ///< matmul_workspace(stream, args) bytes, aligned to 64; null where that is 0
};

/// Bytes of workspace for this product; reads the shapes and options alone, not the pointers (but whether bias is null). Prepares
/// and keeps the plan where the stream has plans.
template <class T>
std::int64_t matmul_workspace(CpuStream stream, const Matmul<T>& args);
template <class T>
void matmul(CpuStream stream, const Matmul<T>& args);

/// On CUDA the stream needs plans, the workspace is as large for every product, and what is prepared is for operands aligned to 16 bytes;
/// for others it is prepared at the first call. A plan is a choice that the host makes: it launches nothing, and allocates no
/// device memory.
template <class T, class C>
std::int64_t matmul_workspace(CudaStream stream, const Matmul<T, C>& args);
/// Throws CudaError (kernels/device/error.h) where the library has no way to compute it.
template <class T, class C>
void matmul(CudaStream stream, const Matmul<T, C>& args);

/// Prepared products on the CPU by shape. One a device; not to be used by two threads at once. Which library it prepares for is a choice of
/// the build.
class MatmulPlans {
 public:
  MatmulPlans();
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;
  MatmulPlans(MatmulPlans&&) = delete;
  MatmulPlans& operator=(MatmulPlans&&) = delete;

  /// "oneDNN 2.6.3" or "Eigen 3.4.0": what computes fp32 products.
  static const char* library();

  class Implementation;
  Implementation& implementation() { return *implementation_; }

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace lathe
