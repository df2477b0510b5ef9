#pragma once
// A product's problem as cuBLASLt's descriptors have it. They live on the stack, in cuBLASLt's own opaque structs, which own nothing: they are filled
// in for each call, without an allocation. Needs no GPU. Internal to kernels/; needs cuBLASLt's header.
#include <cublasLt.h>

#include <cstdint>

#include "lathe/kernels/matmul_library.h"

namespace lathe {

/// What its fastest algorithms ask for on Hopper, in bytes.
constexpr std::int64_t kCublasLtWorkspace = std::int64_t{32} << 20U;

/// What cublasLtMatmul is told but for addresses (the bias's is one of its attributes) and beta.
class CublasLtDescription {
 public:
  /// `what` is being done with the problem, for messages: "compute". Throws CudaError.
  CublasLtDescription(const MatmulProblem& problem, const void* bias, const char* what);

  cublasLtMatmulDesc_t product() { return &product_; }
  cublasLtMatrixLayout_t a() { return &a_; }
  cublasLtMatrixLayout_t b() { return &b_; }
  cublasLtMatrixLayout_t d() { return &d_; }

  /// Throws CudaError, "cuBLASLt 13.1.0 could not compute the matrix product ...: CUBLAS_STATUS_NOT_SUPPORTED (15)", unless it is success.
  void check(cublasStatus_t status) const;

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value);

  const MatmulProblem& problem_;
  const char* what_;
  cublasLtMatmulDescOpaque_t product_{};
  cublasLtMatrixLayoutOpaque_t a_{}, b_{}, d_{};
};

/// What an algorithm may use, and count on.
class CublasLtPreference {
 public:
  CublasLtPreference(const MatmulProblem& problem, const CublasLtDescription& description);
  cublasLtMatmulPreference_t get() { return &preference_; }

 private:
  cublasLtMatmulPreferenceOpaque_t preference_{};
};

}  // namespace lathe
