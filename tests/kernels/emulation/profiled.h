#pragma once
// Kernels whose traffic is known, and products by the tensor cores. A function enqueues one launch.
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace lathe::test {

void run_strided(CudaStream stream, float* y, const float* x);           ///< y[i] = x[8 i], i < 128, 4 warps
void run_shifted(CudaStream stream, float* y, const float* x);           ///< y[i] = x[i + 1], i < 128
void run_transpose(CudaStream stream, float* y, const float* x);         ///< 32 x 32 through a tile of 32 x 32
void run_padded_transpose(CudaStream stream, float* y, const float* x);  ///< through a tile of 32 x 33
void run_float4(CudaStream stream, float* y, const float* x);            ///< y[i] = 2 x[i] + 1, i < 1,024, four at once
void run_bf16x8(CudaStream stream, Bf16* y, const Bf16* x);              ///< y[i] = 2 x[i] + 1, i < 1,024, eight at once
void run_counted(CudaStream stream, float* y);  ///< 64 threads: an atomic each, three barriers, and every other one writes

enum class Banks : std::uint8_t { swizzled, conflicting };
/// One warp copies a tile [32, 64] of bf16 by cp.async, a row of eight pieces by eight copies of lane = row, and reads it back with four
/// ldmatrix.x4: y[32 * 4 * 4] words.
void run_tile(CudaStream stream, Banks banks, std::uint32_t* y, const Bf16* x);

/// words[32 * 4]: what lane l gets of the 32 x 8 matrix m, x4.
void run_ldmatrix(CudaStream stream, std::uint32_t* words, std::uint32_t* transposed, const Bf16* m);
/// d [16, 8] += a [16, 16] b [16, 8], all row by row.
void run_mma(CudaStream stream, float* d, const Bf16* a, const Bf16* b);
/// c [n, n] = a [n, n] bt [n, n]^T, n a multiple of 128.
void run_gemm(CudaStream stream, float* c, const Bf16* a, const Bf16* bt, std::int64_t n);

}  // namespace lathe::test
