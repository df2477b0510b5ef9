lathe_test(kernels_products CUDA
  SOURCES kernels/matmul_test.cc kernels/cross_entropy_test.cc kernels/embedding_test.cc kernels/optimizer_test.cc
  LINKS lathe::kernels OpenMP::OpenMP_CXX)

# What CUDA's products consist of beside a device. A library without CUDA has none of it, so that the test compiles it itself.
set(matmul_plan_sources)
if(NOT LATHE_CUDA_BACKEND)
  set(matmul_plan_sources matmul_cuda_plans.cc matmul_problem.cc matmul_table.cc)
endif()
if(NOT LATHE_CUDA STREQUAL "EMULATED")
  list(APPEND matmul_plan_sources matmul_literal.cc)
endif()
list(TRANSFORM matmul_plan_sources PREPEND ${PROJECT_SOURCE_DIR}/kernels/)
lathe_test(kernels_matmul_plans
  SOURCES kernels/matmul_problem_test.cc kernels/matmul_plans_test.cc ${matmul_plan_sources}
  LINKS lathe::kernels fmt::fmt nlohmann_json::nlohmann_json)

if(LATHE_CUDA STREQUAL "EMULATED")
  lathe_test(kernels_matmul_emulated SOURCES kernels/matmul_emulated_test.cc LINKS lathe::kernels)
elseif(LATHE_CUDA_BACKEND)
  # cuBLASLt itself: that it links, and what it says without a GPU.
  lathe_test(kernels_cublaslt SOURCES kernels/cublaslt_test.cc LINKS lathe::kernels)
endif()
