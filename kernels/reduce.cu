// Sums in CUDA. Column sums: a block owns a part of the rows and a tile of columns, its warps deal the rows among them; 1 size of T an
// element. Adding: 3 sizes of T. The sum of reported numbers is one block's, in fp64.
#include "lathe/kernels/reduce.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/column_sums.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/part_sums.cuh"
#include "lathe/kernels/device/range.h"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnWarps* kWarp) column_sum_kernel(const __grid_constant__ ColumnSum<T> args, int parts) {
  __shared__ WarpSums<kWidth> shared;
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.y) * kTileColumns<kWidth>;
  const std::int64_t column = tile + threadIdx.x % kWarp * kWidth;
  const std::int64_t begin = args.tokens * blockIdx.x / parts;
  const std::int64_t end = args.tokens * (blockIdx.x + 1) / parts;
  float sum[kWidth] = {};
  if (column < args.channels) {
    add_rows(sum, begin + threadIdx.x / kWarp, end, kColumnWarps,
             [&](std::int64_t t) { return args.x + t * args.channels + column; });
  }
  float* const to = reinterpret_cast<float*>(args.workspace) + blockIdx.x * args.channels + tile;
  sum_warps(sum, shared, [&](int c, const auto& total) {
    if (tile + c < args.channels) store_global(to + c, total);
  });
}

inline constexpr int kSumThreads = 256;

template <class T>
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const __grid_constant__ Sum<T> args) {
  __shared__ double warps[kSumThreads / kWarp];
  double sum = 0.0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < args.count; i += kSumThreads) sum += static_cast<double>(to_float(args.x[i]));
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kSumThreads / kWarp; ++w) sum += warps[w];
  *args.y = from_float<T>(static_cast<float>(sum));
}

inline constexpr int kAddThreads = 256;
inline constexpr int kAddPieces = 4;

template <class T, int kWidth>
__global__ void __launch_bounds__(kAddThreads) add_kernel(const __grid_constant__ Add<T> args) {
  constexpr std::int64_t kStride = std::int64_t{kAddThreads} * kWidth;
  const std::int64_t first = blockIdx.x * kAddPieces * kStride + threadIdx.x * kWidth;
  StoredPiece<T, kWidth> a[kAddPieces];
  StoredPiece<T, kWidth> b[kAddPieces];
#pragma unroll
  for (int p = 0; p < kAddPieces; ++p) {
    const std::int64_t i = first + p * kStride;
    a[p] = {};
    b[p] = {};
    if (i + kWidth <= args.count) {
      a[p] = load_piece<kWidth, Reuse::once>(args.a + i);
      b[p] = load_piece<kWidth, Reuse::once>(args.b + i);
    }
  }
#pragma unroll
  for (int p = 0; p < kAddPieces; ++p) {
    const std::int64_t i = first + p * kStride;
    float sum[kWidth];
    float more[kWidth];
    to_float(a[p], sum);
    to_float(b[p], more);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum[k] += more[k];
    if (i + kWidth <= args.count) {
      store_piece(args.y + i, to_stored<T>(sum));
    } else {
      for (std::int64_t k = i; k < args.count; ++k) args.y[k] = from_float<T>(to_float(args.a[k]) + to_float(args.b[k]));
    }
  }
}

}  // namespace

template <class T>
void column_sum(CudaStream stream, const ColumnSum<T>& args) {
  const device::Range range("column_sum");
  if (args.use == Use::skip) return;
  const std::int64_t parts = row_parts(args.tokens);
  const auto run = [&]<int kWidth>() {
    launch(column_sum_kernel<T, kWidth>,
           {.grid = dim3(static_cast<unsigned>(parts), blocks_for(args.channels, kTileColumns<kWidth>)),
            .block = kColumnWarps * kWarp},
           stream, args, static_cast<int>(parts));
  };
  if (rows_aligned_to_16<T>(args.channels, args.x)) {
    run.template operator()<kWidest<T>>();
  } else {
    run.template operator()<1>();
  }
  sum_parts<1>(stream, {.partials = reinterpret_cast<const float*>(args.workspace),
                        .parts = parts,
                        .channels = args.channels,
                        .sums = {{args.y, args.use}}});
}

template <class T>
void sum(CudaStream stream, const Sum<T>& args) {
  const device::Range range("sum");
  launch(sum_kernel<T>, {.grid = 1, .block = kSumThreads}, stream, args);
}

template <class T>
void add(CudaStream stream, const Add<T>& args) {
  const device::Range range("add");
  const auto run = [&]<int kWidth>() {
    launch(add_kernel<T, kWidth>,
           {.grid = blocks_for(args.count, std::int64_t{kAddPieces} * kAddThreads * kWidth), .block = kAddThreads}, stream, args);
  };
  if (aligned_to_16(args.y, args.a, args.b)) {
    run.template operator()<kWidest<T>>();
  } else {
    run.template operator()<1>();
  }
}

template void column_sum(CudaStream, const ColumnSum<float>&);
template void column_sum(CudaStream, const ColumnSum<Bf16>&);
template void sum(CudaStream, const Sum<float>&);
template void sum(CudaStream, const Sum<Bf16>&);
template void add(CudaStream, const Add<float>&);
template void add(CudaStream, const Add<Bf16>&);

}  // namespace lathe
