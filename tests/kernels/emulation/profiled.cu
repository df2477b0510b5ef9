#include "tests/kernels/emulation/profiled.h"

#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/cp_async.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/ldmatrix.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/mma.cuh"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/tile.cuh"

namespace lathe::test {
namespace {

using device::SharedTile;
using device::Swizzle;

__global__ void strided_kernel(float* y, const float* x) {
  const float value = x[8 * threadIdx.x];  // LINE strided_read
  y[threadIdx.x] = value;                  // LINE strided_write
}

__global__ void shifted_kernel(float* y, const float* x) {
  const float value = x[threadIdx.x + 1];  // LINE shifted_read
  y[threadIdx.x] = value;                  // LINE shifted_write
}

template <int kWidth>
__global__ void transpose_kernel(float* y, const float* x) {
  __shared__ float tile[32][kWidth];
  for (unsigned row = threadIdx.y; row < 32; row += 8) {
    const float value = x[32 * row + threadIdx.x];
    tile[row][threadIdx.x] = value;  // LINE transpose_write
  }
  __syncthreads();
  for (unsigned row = threadIdx.y; row < 32; row += 8) {
    const float value = tile[threadIdx.x][row];  // LINE transpose_read
    y[32 * row + threadIdx.x] = value;
  }
}

template <class T>
__global__ void wide_kernel(T* y, const T* x) {
  constexpr int kWide = device::kWidest<T>;
  const unsigned i = kWide * threadIdx.x;
  float value[kWide];
  device::to_float(device::load<kWide>(x + i), value);  // LINE wide_read
  for (float& each : value) each = 2 * each + 1;
  device::store(y + i, device::from_float<T>(value));  // LINE wide_write
}

__global__ void counted_kernel(float* y) {
  atomicAdd(&y[0], 1.0F);                        // LINE counted_atomic
  for (int i = 0; i < 3; ++i) __syncthreads();   // LINE counted_barrier
  if (threadIdx.x % 2 == 1) y[threadIdx.x] = 1;  // LINE counted_half
}

template <Swizzle kSwizzle>
__global__ void tile_kernel(std::uint32_t* y, const Bf16* x) {
  const SharedTile<Bf16, 32, 64, kSwizzle> tile{device::dynamic_shared<Bf16>()};
  const int lane = static_cast<int>(threadIdx.x);
  for (int piece = 0; piece < 8; ++piece)
    device::cp_async<16>(tile.at(lane, 8 * piece), x + 64 * lane + 8 * piece);  // LINE tile_copy
  device::cp_async_commit();
  device::cp_async_wait<0>();
  __syncwarp();
  for (int piece = 0; piece < 4; ++piece) {
    std::uint32_t words[4];
    device::ldmatrix(words, tile.at(lane, 8 * piece));  // LINE tile_ldmatrix
    for (int i = 0; i < 4; ++i) y[(4 * piece + i) * 32 + lane] = words[i];
  }
}

__global__ void ldmatrix_kernel(std::uint32_t* plain, std::uint32_t* transposed, const Bf16* m) {
  __shared__ __align__(16) Bf16 rows[32][8];
  device::store(&rows[threadIdx.x][0], device::load<8>(m + 8 * threadIdx.x));
  __syncwarp();
  std::uint32_t words[4];
  device::ldmatrix(words, rows[threadIdx.x]);
  for (unsigned i = 0; i < 4; ++i) plain[4 * threadIdx.x + i] = words[i];
  device::ldmatrix_transposed(words, rows[threadIdx.x]);
  for (unsigned i = 0; i < 4; ++i) transposed[4 * threadIdx.x + i] = words[i];
  // Of fewer matrices, the first ones.
  std::uint32_t two[2];
  std::uint32_t one[1];
  device::ldmatrix(two, rows[threadIdx.x]);
  device::ldmatrix(one, rows[threadIdx.x]);
  for (unsigned i = 0; i < 2; ++i) plain[128 + 2 * threadIdx.x + i] = two[i];
  plain[192 + threadIdx.x] = one[0];
  device::ldmatrix_transposed(two, rows[threadIdx.x]);
  device::ldmatrix_transposed(one, rows[threadIdx.x]);
  for (unsigned i = 0; i < 2; ++i) transposed[128 + 2 * threadIdx.x + i] = two[i];
  transposed[192 + threadIdx.x] = one[0];
}

/// The words of a fragment of kCount elements, element i of which `element` gives.
template <int kWords, class Element>
__device__ void gather(std::uint32_t (&words)[kWords], Element element) {
  for (int w = 0; w < kWords; ++w) words[w] = static_cast<std::uint32_t>(element(2 * w + 1).bits) << 16U | element(2 * w).bits;
}

__global__ void mma_kernel(float* d, const Bf16* a, const Bf16* b) {
  using Layout = device::Fragment16816;
  const int lane = static_cast<int>(threadIdx.x);
  std::uint32_t left[4];
  std::uint32_t right[2];
  float sum[4];
  gather(left, [&](int i) { return a[16 * Layout::a_row(lane, i) + Layout::a_column(lane, i)]; });
  gather(right, [&](int i) { return b[8 * Layout::b_row(lane, i) + Layout::b_column(lane, i)]; });
  for (int i = 0; i < 4; ++i) sum[i] = d[8 * Layout::d_row(lane, i) + Layout::d_column(lane, i)];
  device::mma_16816(sum, left, right);  // LINE mma
  for (int i = 0; i < 4; ++i) d[8 * Layout::d_row(lane, i) + Layout::d_column(lane, i)] = sum[i];
}

// A block of four warps makes 64 x 64 of the product, a warp 16 rows of it.
__global__ void gemm_kernel(float* c, const Bf16* a, const Bf16* bt, std::int64_t n) {
  using Tile = SharedTile<Bf16, 64, 64, Swizzle::bytes_128>;
  using Layout = device::Fragment16816;
  const Tile left{device::dynamic_shared<Bf16>()};
  const Tile right{left.data + 64 * 64};
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t row = std::int64_t{blockIdx.y} * 64;
  const std::int64_t column = std::int64_t{blockIdx.x} * 64;
  float sum[8][4] = {};
  for (std::int64_t k = 0; k < n; k += 64) {
    for (int piece = static_cast<int>(threadIdx.x); piece < 64 * 8; piece += 128) {
      device::cp_async<16>(left.at(piece / 8, piece % 8 * 8), a + (row + piece / 8) * n + k + piece % 8 * 8);
      device::cp_async<16>(right.at(piece / 8, piece % 8 * 8), bt + (column + piece / 8) * n + k + piece % 8 * 8);
    }
    device::cp_async_commit();
    device::cp_async_wait<0>();
    __syncthreads();
    for (int step = 0; step < 64; step += 16) {
      std::uint32_t fragment[4];
      device::ldmatrix(fragment, left.at(16 * warp + lane % 16, step + lane / 16 * 8));
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        std::uint32_t both[4];  // of columns 16 pair .. 16 pair + 16
        device::ldmatrix(both, right.at(16 * pair + lane % 8 + lane / 16 * 8, step + lane / 8 % 2 * 8));
        device::mma_16816(sum[2 * pair], fragment, {both[0], both[1]});
        device::mma_16816(sum[2 * pair + 1], fragment, {both[2], both[3]});
      }
    }
    __syncthreads();
  }
  for (int tile = 0; tile < 8; ++tile) {
    for (int i = 0; i < 4; ++i) {
      c[(row + 16 * warp + Layout::d_row(lane, i)) * n + column + 8 * tile + Layout::d_column(lane, i)] = sum[tile][i];
    }
  }
}

}  // namespace

void run_strided(CudaStream stream, float* y, const float* x) { launch(strided_kernel, {.block = 128}, stream, y, x); }
void run_shifted(CudaStream stream, float* y, const float* x) { launch(shifted_kernel, {.block = 128}, stream, y, x); }
void run_transpose(CudaStream stream, float* y, const float* x) {
  launch(transpose_kernel<32>, {.block = {32, 8}}, stream, y, x);
}
void run_padded_transpose(CudaStream stream, float* y, const float* x) {
  launch(transpose_kernel<33>, {.block = {32, 8}}, stream, y, x);
}
void run_float4(CudaStream stream, float* y, const float* x) { launch(wide_kernel<float>, {.block = 256}, stream, y, x); }
void run_bf16x8(CudaStream stream, Bf16* y, const Bf16* x) { launch(wide_kernel<Bf16>, {.block = 128}, stream, y, x); }
void run_counted(CudaStream stream, float* y) { launch(counted_kernel, {.block = 64}, stream, y); }
void run_tile(CudaStream stream, Banks banks, std::uint32_t* y, const Bf16* x) {
  const LaunchShape shape{.block = 32, .shared_bytes = 4096};
  if (banks == Banks::swizzled) {
    launch(tile_kernel<Swizzle::bytes_128>, shape, stream, y, x);
  } else {
    launch(tile_kernel<Swizzle::none>, shape, stream, y, x);
  }
}
void run_ldmatrix(CudaStream stream, std::uint32_t* words, std::uint32_t* transposed, const Bf16* m) {
  launch(ldmatrix_kernel, {.block = 32}, stream, words, transposed, m);
}
void run_mma(CudaStream stream, float* d, const Bf16* a, const Bf16* b) { launch(mma_kernel, {.block = 32}, stream, d, a, b); }
void run_gemm(CudaStream stream, float* c, const Bf16* a, const Bf16* bt, std::int64_t n) {
  const unsigned blocks = blocks_for(n, 64);
  launch(gemm_kernel, {.grid = {blocks, blocks}, .block = 128, .shared_bytes = 2 * 64 * 64 * sizeof(Bf16)}, stream, c, a, bt, n);
}

}  // namespace lathe::test
