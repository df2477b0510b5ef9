// cuBLASLt itself, behind the interface of matmul_library.h. Where there is no GPU, what it then says; where there is one, that it has an
// algorithm for every kind of problem. (matmul_test.cc has the numbers.)
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/device/error.h"
#include "lathe/kernels/matmul_timer.h"

namespace lathe::test {
namespace {

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
