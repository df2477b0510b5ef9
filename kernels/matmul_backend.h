#pragma once
// Who computes which product: matmul.cc checks the arguments and treats empty products; the build's fp32 backend (oneDNN or
// Eigen) computes the rest of fp32, Eigen all of fp64. Internal to kernels/.
#include <cstdint>

#include "lathe/kernels/matmul.h"

namespace lathe {

/// The build's choice for fp32: matmul_onednn_plans.cc or matmul_eigen_plans.cc. M, N and K are at least 1, use is not skip.
std::int64_t fp32_matmul_workspace(CpuStream stream, const Matmul<float>& args);
void fp32_matmul(CpuStream stream, const Matmul<float>& args);

/// Eigen's products, with its packing buffers in the workspace. M, N and K are at least 1, use is not skip.
template <class T>
std::int64_t eigen_matmul_workspace(CpuStream stream, const Matmul<T>& args);
template <class T>
void eigen_matmul(CpuStream stream, const Matmul<T>& args);

/// How a product is shared between threads and blocked for the caches: functions of shape and thread count alone. c is cut into a
/// grid of panels, one a thread, each [panel_m, panel_n] but for the last; within one, `block_k` of the depth at a time, a block
/// [block_m, block_k] of op(a) and a block [block_k, block_n] of op(b) are packed.
struct MatmulPanels {
  std::int64_t count_m, count_n;
  std::int64_t panel_m, panel_n;
  std::int64_t block_m, block_n, block_k;
  std::int64_t pack_a_bytes, pack_b_bytes;  ///< a panel, multiples of 64
};
MatmulPanels matmul_panels(int threads, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t element_bytes);

/// What the code that is compiled for an instruction set is given (cpu_dispatch.h).
template <class T>
struct EigenMatmul {
  Matmul<T> product;
  MatmulPanels panels;
};

}  // namespace lathe
