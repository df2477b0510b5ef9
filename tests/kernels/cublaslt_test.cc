// cuBLASLt itself: that it takes our descriptions, for which it needs no GPU; where there is none, what it says to the rest; where there is one,
// that it has an algorithm for every kind of problem. (matmul_test.cc has the numbers.)
#include "lathe/kernels/matmul_cublaslt.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/device/error.h"
#include "lathe/kernels/matmul_timer.h"

namespace lathe::test {
namespace {

template <class Value>
Value attribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name) {
  Value value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatmulDescGetAttribute(product, name, &value, sizeof(value), &written), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof(value));
  return value;
}

template <class Value>
Value attribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name) {
  Value value{};
  std::size_t written = 0;
  EXPECT_EQ(cublasLtMatmulPreferenceGetAttribute(preference, name, &value, sizeof(value), &written), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(written, sizeof(value));
  return value;
}

struct Layout {
  std::uint32_t type;
  std::uint64_t rows, columns;
  std::int64_t stride;
  std::int32_t order;

  bool operator==(const Layout&) const = default;
};

Layout read(cublasLtMatrixLayout_t matrix) {
  Layout layout{};
  std::size_t written = 0;
  const auto get = [&](cublasLtMatrixLayoutAttribute_t name, auto& value) {
    EXPECT_EQ(cublasLtMatrixLayoutGetAttribute(matrix, name, &value, sizeof(value), &written), CUBLAS_STATUS_SUCCESS);
  };
  get(CUBLASLT_MATRIX_LAYOUT_TYPE, layout.type);
  get(CUBLASLT_MATRIX_LAYOUT_ROWS, layout.rows);
  get(CUBLASLT_MATRIX_LAYOUT_COLS, layout.columns);
  get(CUBLASLT_MATRIX_LAYOUT_LD, layout.stride);
  get(CUBLASLT_MATRIX_LAYOUT_ORDER, layout.order);
  return layout;
}

TEST(Cublaslt, ReadsBackWhatItWasTold) {
  const MatmulProblem problem{.factors = MatmulElement::bf16,
                              .result = MatmulElement::f32,
                              .transpose_a = Transpose::yes,
                              .transpose_b = Transpose::no,
                              .has_bias = true,
                              .adds = false,
                              .m = 3,
                              .n = 2,
                              .k = 5,
                              .lda = 30,
                              .ldb = 20,
                              .ldd = 40,
                              .alignment_a = 2,
                              .alignment_b = 8,
                              .alignment_d = 4,
                              .alignment_bias = 16};
  const float bias = 0;
  CublasLtDescription told(problem, &bias, "describe");
  EXPECT_EQ(read(told.a()), (Layout{CUDA_R_16BF, 5, 3, 30, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(read(told.b()), (Layout{CUDA_R_16BF, 5, 2, 20, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(read(told.d()), (Layout{CUDA_R_32F, 3, 2, 40, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(attribute<std::int32_t>(told.product(), CUBLASLT_MATMUL_DESC_COMPUTE_TYPE), CUBLAS_COMPUTE_32F);
  EXPECT_EQ(attribute<std::int32_t>(told.product(), CUBLASLT_MATMUL_DESC_SCALE_TYPE), CUDA_R_32F);
  EXPECT_EQ(attribute<std::int32_t>(told.product(), CUBLASLT_MATMUL_DESC_TRANSA), CUBLAS_OP_T);
  EXPECT_EQ(attribute<std::int32_t>(told.product(), CUBLASLT_MATMUL_DESC_TRANSB), CUBLAS_OP_N);
  EXPECT_EQ(attribute<std::uint32_t>(told.product(), CUBLASLT_MATMUL_DESC_EPILOGUE), CUBLASLT_EPILOGUE_BIAS);
  EXPECT_EQ(attribute<const void*>(told.product(), CUBLASLT_MATMUL_DESC_BIAS_POINTER), &bias);
  EXPECT_EQ(attribute<std::int32_t>(told.product(), CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE), CUDA_R_32F);

  CublasLtPreference preference(problem, told);
  EXPECT_EQ(attribute<std::uint64_t>(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES), 32U << 20U);
  EXPECT_EQ(attribute<std::uint32_t>(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK),
            CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  EXPECT_EQ(attribute<std::uint32_t>(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES), 2U);
  EXPECT_EQ(attribute<std::uint32_t>(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES), 8U);
  EXPECT_EQ(attribute<std::uint32_t>(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES), 4U);
  EXPECT_EQ(attribute<std::uint32_t>(preference.get(), CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES), 4U);

  MatmulProblem plain = problem;
  plain.has_bias = false;
  plain.transpose_a = Transpose::no;
  plain.transpose_b = Transpose::yes;
  plain.result = MatmulElement::bf16;
  CublasLtDescription other(plain, nullptr, "describe");
  EXPECT_EQ(read(other.a()), (Layout{CUDA_R_16BF, 3, 5, 30, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(read(other.b()), (Layout{CUDA_R_16BF, 2, 5, 20, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(read(other.d()), (Layout{CUDA_R_16BF, 3, 2, 40, CUBLASLT_ORDER_COL}));
  EXPECT_EQ(attribute<std::int32_t>(other.product(), CUBLASLT_MATMUL_DESC_TRANSA), CUBLAS_OP_N);
  EXPECT_EQ(attribute<std::int32_t>(other.product(), CUBLASLT_MATMUL_DESC_TRANSB), CUBLAS_OP_T);
  EXPECT_EQ(attribute<std::uint32_t>(other.product(), CUBLASLT_MATMUL_DESC_EPILOGUE), CUBLASLT_EPILOGUE_DEFAULT);
}

TEST(Cublaslt, NamesTheProblemAndItsStatusWhereItRefuses) {
  const MatmulProblem problem{.factors = MatmulElement::bf16,
                              .result = MatmulElement::f32,
                              .transpose_a = Transpose::yes,
                              .transpose_b = Transpose::no,
                              .has_bias = false,
                              .adds = true,
                              .m = 3,
                              .n = 2,
                              .k = 5,
                              .lda = 5,
                              .ldb = 5,
                              .ldd = 3,
                              .alignment_a = 16,
                              .alignment_b = 16,
                              .alignment_d = 16,
                              .alignment_bias = 16};
  const CublasLtDescription description(problem, nullptr, "compute");
  try {
    description.check(CUBLAS_STATUS_NOT_SUPPORTED);
    FAIL();
  } catch (const CudaError& error) {
    EXPECT_EQ(error.status(), 15);
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("cuBLASLt ")) << message;
    EXPECT_TRUE(
        message.ends_with(" could not compute the matrix product [2, 5] x [5, 3], b transposed, bf16 to f32, added: "
                          "CUBLAS_STATUS_NOT_SUPPORTED (15)"))
        << message;
  }
}

void expect_to_say_that_there_is_no_device() {
  try {
    const std::unique_ptr<MatmulLibrary> library = make_matmul_library();
    FAIL() << "a library for no device: " << library->name();
  } catch (const CudaError& error) {
    EXPECT_NE(error.status(), 0);
    EXPECT_TRUE(std::string(error.what()).starts_with("kernels/matmul_cublaslt.cc:")) << error.what();
    EXPECT_NE(std::string(error.what()).find(": cudaError"), std::string::npos) << error.what();
  }
}

void expect_an_algorithm_for_every_kind_of_problem() {
  CudaMatmulPlans plans(make_matmul_library());
  EXPECT_TRUE(plans.library().name().starts_with("cuBLASLt ")) << plans.library().name();
  for (const auto& [factors, result] :
       {std::pair{MatmulElement::f32, MatmulElement::f32}, std::pair{MatmulElement::bf16, MatmulElement::bf16},
        std::pair{MatmulElement::bf16, MatmulElement::f32}}) {
    for (const Transpose transpose_a : {Transpose::no, Transpose::yes}) {
      for (const Transpose transpose_b : {Transpose::no, Transpose::yes}) {
        for (const int form : {0, 1, 2}) {
          for (const std::int64_t size : {1, 33, 768}) {
            const bool wide = size == 768;
            plans.prepare({.factors = factors,
                           .result = result,
                           .transpose_a = transpose_a,
                           .transpose_b = transpose_b,
                           .has_bias = form == 1,
                           .adds = form == 2,
                           .m = size,
                           .n = size,
                           .k = size,
                           .lda = size,
                           .ldb = size,
                           .ldd = size,
                           .alignment_a = wide ? 16 : static_cast<std::int32_t>(size_of(factors)),
                           .alignment_b = wide ? 16 : static_cast<std::int32_t>(size_of(factors)),
                           .alignment_d = wide ? 16 : static_cast<std::int32_t>(size_of(result)),
                           .alignment_bias = wide ? 16 : static_cast<std::int32_t>(size_of(result))});
          }
        }
      }
    }
  }
  const std::string table = plans.table();
  plans.use_table(table);
  EXPECT_EQ(plans.table(), table);
}

void expect_to_be_timed() {
  CudaMatmulPlans plans(make_matmul_library());
  plans.prepare({.factors = MatmulElement::bf16,
                 .result = MatmulElement::f32,
                 .transpose_a = Transpose::no,
                 .transpose_b = Transpose::yes,
                 .has_bias = false,
                 .adds = true,
                 .m = 1024,
                 .n = 1024,
                 .k = 4096,
                 .lda = 1024,
                 .ldb = 1024,
                 .ldd = 1024,
                 .alignment_a = 16,
                 .alignment_b = 16,
                 .alignment_d = 16,
                 .alignment_bias = 16});
  const std::vector<TunedMatmul> report = plans.tune(time_on_device(nullptr, plans.library()));
  ASSERT_EQ(report.size(), 1U);
  EXPECT_GT(report[0].best_seconds, 0.0);
  EXPECT_LE(report[0].best_seconds, report[0].first_seconds);
}

TEST(Cublaslt, HasAlgorithmsOrSaysThatThereIsNoDevice) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    expect_to_say_that_there_is_no_device();
  } else {
    expect_an_algorithm_for_every_kind_of_problem();
    expect_to_be_timed();
  }
}

}  // namespace
}  // namespace lathe::test
