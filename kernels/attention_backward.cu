// Attention in CUDA, backward (docs/kernels/attention-backward.md explains it from the beginning). Three steps, each with its kernels:
//
// 1. Statistics, here: delta = d_out . out of each query and head, beside the logarithm of its sum in powers of two.
// 2. Products: d_q, d_k and d_v, by the tensor cores (attention_backward_tensor.cu) or without them (attention_backward_plain.cu).
// 3. After the tensor cores, where sequences have several tiles of keys: d_q from its sums over each (attention_backward_sum.cu).
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/attention_backward_steps.cuh"
#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/math.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/warp.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

constexpr int kStatisticsThreads = 256;
constexpr int kStatisticsQueries = 128;
constexpr int kStatisticsLanes = 8;  // of a row

template <class T, int kWidth>
__global__ void __launch_bounds__(kStatisticsThreads)
    attention_statistics_kernel(const __grid_constant__ AttentionBackward<T> args, float* statistics) {
  __shared__ float delta[kStatisticsQueries];
  const auto head = static_cast<int>(blockIdx.x % static_cast<unsigned>(args.heads));
  const std::int64_t first = std::int64_t{blockIdx.x / static_cast<unsigned>(args.heads)} * kStatisticsQueries;
  const int queries =
      static_cast<int>(max(min(args.cu_q[args.sequences] - first, std::int64_t{kStatisticsQueries}), std::int64_t{0}));
  const auto head_size = static_cast<int>(args.head_size);
  const int lane = static_cast<int>(threadIdx.x) % kStatisticsLanes;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) / kStatisticsLanes; row < kStatisticsQueries;
       row += kStatisticsThreads / kStatisticsLanes) {
    const std::int64_t from = ((first + row) * args.heads + head) * head_size;
    float sum = 0.0F;
    for (int column = lane * kWidth; row < queries && column < head_size; column += kStatisticsLanes * kWidth) {
      float a[kWidth];
      float b[kWidth];
      to_float(load<kWidth, Reuse::once>(args.d_out + from + column), a);
      to_float(load<kWidth, Reuse::once>(args.out + from + column), b);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum = fmaf(a[i], b[i], sum);
    }
#pragma unroll
    for (int distance = 1; distance < kStatisticsLanes; distance *= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (lane == 0) delta[row] = sum;
  }
  __syncthreads();
  const auto query = static_cast<int>(threadIdx.x);
  if (query >= queries) return;
  const std::int64_t place = head * args.queries + first + query;
  store(statistics + 2 * place, Vector<float, 2>{args.lse[place] * kLog2E, delta[query]});
}

template <class T, int kWidth>
void launch_statistics(CudaStream stream, const AttentionBackward<T>& args, float* statistics) {
  launch(attention_statistics_kernel<T, kWidth>,
         {.grid = blocks_for(args.queries, kStatisticsQueries) * static_cast<unsigned>(args.heads), .block = kStatisticsThreads},
         stream, args, statistics);
}

template <class T>
AttentionScratch scratch_of(const AttentionBackward<T>& args) {
  const std::int64_t statistics = attention_statistics_bytes<T>(args.queries, args.heads);
  const std::int64_t bytes =
      attention_backward_workspace<T>(args.queries, args.heads, args.head_size, args.key_tiles.rows, args.splits);
  return {.statistics = reinterpret_cast<float*>(args.workspace),
          .sums = bytes > statistics ? reinterpret_cast<float*>(args.workspace + statistics) : nullptr};
}

/// Whether rows of q, k, v, d_out, out and of the destinations begin at multiples of 16 bytes.
template <class T>
bool is_aligned(const AttentionBackward<T>& args) {
  const auto whole = [](const T* rows, std::int64_t stride) { return aligned_to_16(rows) && stride % kWidest<T> == 0; };
  const auto used = [&](Use use, const T* rows, std::int64_t stride) { return use == Use::skip || whole(rows, stride); };
  return args.head_size % kWidest<T> == 0 && aligned_to_16(args.d_out, args.out) && whole(args.q, args.q_stride) &&
         whole(args.k, args.k_stride) && whole(args.v, args.v_stride) && used(args.use_q, args.d_q, args.d_q_stride) &&
         used(args.use_k, args.d_k, args.d_k_stride) && used(args.use_v, args.d_v, args.d_v_stride);
}

template <class T>
void check(const AttentionBackward<T>& args) {
  if (args.head_size < 1 || args.head_size > kMaxHeadSize) {
    throw std::invalid_argument("attention_backward: heads of " + std::to_string(args.head_size) + " columns, 1 to " +
                                std::to_string(kMaxHeadSize) + " can be computed");
  }
  if (args.key_tiles.rows < 32 || args.key_tiles.rows % 32 != 0) {
    throw std::invalid_argument("attention_backward: tiles of " + std::to_string(args.key_tiles.rows) +
                                " keys, CUDA takes multiples of 32");
  }
}

}  // namespace

template <class T>
void attention_backward(CudaStream stream, const AttentionBackward<T>& args) {
  const device::Range range("attention_backward");
  if (args.use_q == Use::skip && args.use_k == Use::skip && args.use_v == Use::skip) return;
  check(args);
  const bool aligned = is_aligned(args);
  const AttentionScratch scratch = scratch_of(args);
  if (aligned) {
    launch_statistics<T, kWidest<T>>(stream, args, scratch.statistics);
  } else {
    launch_statistics<T, 1>(stream, args, scratch.statistics);
  }
  if constexpr (std::is_same_v<T, Bf16>) {
    if (aligned && attention_tensor_products(stream, args, scratch)) {
      if (args.splits > 1 && args.use_q != Use::skip) attention_sum_tiles(stream, args, scratch.sums);
      return;
    }
  }
  attention_plain_products(stream, args, scratch.statistics);
}

template void attention_backward(CudaStream, const AttentionBackward<float>&);
template void attention_backward(CudaStream, const AttentionBackward<Bf16>&);

}  // namespace lathe
