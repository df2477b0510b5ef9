// Products by cuBLASLt 12 or later.
#include "lathe/kernels/matmul_cublaslt.h"

#include <cuda_runtime_api.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lathe/kernels/device/check.h"
#include "lathe/kernels/matmul_library.h"

namespace lathe {
namespace {

/// How many algorithms the heuristic is asked for. It ranks them, so that those behind are hardly ever worth their time.
constexpr int kCandidates = 16;

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(MatmulAlgorithm));
static_assert(std::is_trivially_copyable_v<cublasLtMatmulAlgo_t>);

std::string version() {
  const std::size_t number = cublasLtGetVersion();
  return "cuBLASLt " + std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
         std::to_string(number % 100);
}

/// "cuBLASLt 13.1.0 could not compute the matrix product ...: CUBLAS_STATUS_NOT_SUPPORTED (15)".
void check_status(cublasStatus_t status, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  throw CudaError(static_cast<int>(status),
                  version() + " could not " + what + ": " + cublasLtGetStatusName(status) + " (" + std::to_string(status) + ")");
}

cudaDataType_t data_type(MatmulElement element) { return element == MatmulElement::f32 ? CUDA_R_32F : CUDA_R_16BF; }

cublasOperation_t operation(Transpose transpose) { return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N; }

std::uint64_t extent(std::int64_t size) { return static_cast<std::uint64_t>(size); }

}  // namespace

template <class Value>
void CublasLtDescription::set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  check(cublasLtMatmulDescSetAttribute(&product_, attribute, &value, sizeof(value)));
}

CublasLtDescription::CublasLtDescription(const MatmulProblem& p, const void* bias, const char* what) : problem_(p), what_(what) {
  // Sums are fp32, of bf16 exactly and of fp32 in fp32: TF32 would have to be asked for.
  check(cublasLtMatmulDescInit(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_a));
  set(CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_b));
  if (p.has_bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(p.result));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  check(cublasLtMatrixLayoutInit(&a_, data_type(p.factors), extent(p.rows_a()), extent(p.columns_a()), p.lda));
  check(cublasLtMatrixLayoutInit(&b_, data_type(p.factors), extent(p.rows_b()), extent(p.columns_b()), p.ldb));
  check(cublasLtMatrixLayoutInit(&d_, data_type(p.result), extent(p.m), extent(p.n), p.ldd));
}

void CublasLtDescription::check(cublasStatus_t status) const {
  if (status != CUBLAS_STATUS_SUCCESS) check_status(status, std::string(what_) + " the " + to_string(problem_));
}

CublasLtPreference::CublasLtPreference(const MatmulProblem& p, const CublasLtDescription& description) {
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    description.check(cublasLtMatmulPreferenceSetAttribute(&preference_, attribute, &value, sizeof(value)));
  };
  description.check(cublasLtMatmulPreferenceInit(&preference_));
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kCublasLtWorkspace));
  // A sum that is cut into parts keeps them in fp32, not in D's bf16.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(p.alignment_a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(p.alignment_b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(p.alignment_d));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(p.alignment_d));
}

namespace {

/// A bias's address as aligned as the problem says, for questions that don't read it: cuBLASLt takes the alignment from there.
const void* some_bias(const MatmulProblem& p) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of nothing
  return reinterpret_cast<const void*>(std::uintptr_t{1} << 20U | static_cast<std::uintptr_t>(p.alignment_bias));
}

struct CloseHandle {
  void operator()(cublasLtContext* handle) const { static_cast<void>(cublasLtDestroy(handle)); }
};

class CublasLt final : public MatmulLibrary {
 public:
  CublasLt() {
    int device = 0;
    lathe::check(cudaGetDevice(&device));
    cudaDeviceProp properties{};
    lathe::check(cudaGetDeviceProperties(&properties, device));
    name_ = version() + " on " + properties.name;
    cublasLtHandle_t handle = nullptr;
    check_status(cublasLtCreate(&handle), std::string("start on ") + properties.name);
    handle_.reset(handle);
  }

  std::string name() const override { return name_; }

  std::int64_t workspace_bytes() const override { return kCublasLtWorkspace; }

  std::vector<MatmulAlgorithm> candidates(const MatmulProblem& p) override {
    CublasLtDescription description(p, some_bias(p), "find an algorithm for");
    CublasLtPreference preference(p, description);
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    description.check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), description.product(), description.a(), description.b(),
                                                     description.d(), description.d(), preference.get(), kCandidates,
                                                     found.data(), &count));
    std::vector<MatmulAlgorithm> algorithms;
    for (const cublasLtMatmulHeuristicResult_t& result : std::span(found).first(static_cast<std::size_t>(count))) {
      if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(std::bit_cast<MatmulAlgorithm>(result.algo));
    }
    if (algorithms.empty()) description.check(CUBLAS_STATUS_NOT_SUPPORTED);
    return algorithms;
  }

  bool accepts(const MatmulProblem& p, const MatmulAlgorithm& algorithm) override {
    CublasLtDescription description(p, some_bias(p), "check an algorithm for");
    const auto algo = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle_.get(), description.product(), description.a(), description.b(), description.d(),
                                   description.d(), &algo, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= static_cast<std::size_t>(kCublasLtWorkspace);
  }

  void enqueue(CudaStreamHandle stream, const MatmulProblem& p, const MatmulAlgorithm& algorithm,
               const MatmulOperands& operands) override {
    CublasLtDescription description(p, operands.bias, "compute");
    const auto algo = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
    const float alpha = 1.0F;
    const float beta = p.adds ? 1.0F : 0.0F;
    description.check(cublasLtMatmul(handle_.get(), description.product(), &alpha, operands.a, description.a(), operands.b,
                                     description.b(), &beta, operands.d, description.d(), operands.d, description.d(), &algo,
                                     operands.workspace, static_cast<std::size_t>(operands.workspace_bytes), stream));
  }

 private:
  std::string name_;
  std::unique_ptr<cublasLtContext, CloseHandle> handle_;
};

}  // namespace

std::unique_ptr<MatmulLibrary> make_matmul_library() { return std::make_unique<CublasLt>(); }

}  // namespace lathe
