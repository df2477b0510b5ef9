// Attention's gradients without tensor cores: fp32, any head size, any alignment. Simple, and exact in its order; not fast.
//
// Tiles of 16 x 16 scores, a thread a score, once in a kernel that owns queries, for d_q, and once in one that owns keys, for d_k and d_v.
#include <cstddef>
#include <cstdint>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/attention_backward_steps.cuh"
#include "lathe/kernels/device/attention_dropout.cuh"
#include "lathe/kernels/device/attention_sequence.cuh"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/shared.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

/// Scores of a tile are kPlainTile x kPlainTile, one a thread.
constexpr int kPlainTile = 16;
constexpr int kPlainThreads = kPlainTile * kPlainTile;
/// Columns of a row of gradients that a thread has at most.
constexpr int kPlainColumns = static_cast<int>(kMaxHeadSize) / kPlainTile;

/// Rows of a tile's four matrices in fp32, an odd number of words apart, so that sixteen of them are in different banks; and what comes of them.
struct PlainMemory {
  float* begin = dynamic_shared<float>();
  int head_size, stride;

  __device__ __forceinline__ explicit PlainMemory(int of_head_size) : head_size(of_head_size), stride(of_head_size | 1) {}
  static std::size_t bytes(std::int64_t head_size) {
    return static_cast<std::size_t>(4 * kPlainTile * (head_size | 1) + 2 * kPlainTile * kPlainTile) * sizeof(float);
  }
  __device__ __forceinline__ float* q() const { return begin; }
  __device__ __forceinline__ float* d_out() const { return q() + kPlainTile * stride; }
  __device__ __forceinline__ float* k() const { return d_out() + kPlainTile * stride; }
  __device__ __forceinline__ float* v() const { return k() + kPlainTile * stride; }
  /// Probabilities, 0 where dropped, and gradients of scores before their scale, by query and key.
  __device__ __forceinline__ float* p(int query, int key) const { return v() + kPlainTile * stride + query * kPlainTile + key; }
  __device__ __forceinline__ float* ds(int query, int key) const { return p(query, key) + kPlainTile * kPlainTile; }

  /// Rows from `present` on become zeroes.
  template <class T>
  __device__ __forceinline__ void fill(float* tile, const T* from, std::int64_t row_stride, int present) const {
    for (int i = static_cast<int>(threadIdx.x); i < kPlainTile * head_size; i += kPlainThreads) {
      const int row = i / head_size;
      const int column = i % head_size;
      tile[row * stride + column] = row < present ? to_float(from[row * row_stride + column]) : 0.0F;
    }
  }
};

/// Whose rows a block owns.
enum class Side : std::uint8_t { queries, keys };

/// A block's work: kPlainTile rows of a tile in the side's list, and a head.
struct PlainWork {
  int sequence;
  int head;
  SequenceRows rows;
  int first, end;

  template <class T>
  __device__ __forceinline__ PlainWork(const AttentionBackward<T>& args, Side side) {
    const AttentionTiles& list = side == Side::queries ? args.query_tiles : args.key_tiles;
    const auto heads = static_cast<unsigned>(args.heads);
    const unsigned per_tile = (static_cast<unsigned>(list.rows) + kPlainTile - 1) / kPlainTile;
    const unsigned unit = blockIdx.x / heads;
    head = static_cast<int>(blockIdx.x - unit * heads);
    sequence = list.sequence[unit / per_tile];
    if (sequence < 0) return;
    rows = sequence_rows(args.cu_q, args.cu_k, sequence);
    const int tile_first = list.first[unit / per_tile];
    first = tile_first + static_cast<int>(unit % per_tile) * kPlainTile;
    end = min(first + kPlainTile, tile_first + static_cast<int>(list.rows));
    end = min(end, side == Side::queries ? rows.queries : rows.keys);
  }
  __device__ __forceinline__ bool empty() const { return sequence < 0 || first >= end; }
};

/// Fills `memory` with the rows of a tile of queries, or of keys. The caller synchronises.
template <class T>
__device__ __forceinline__ void fill_queries(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                             int first) {
  const std::int64_t row = std::int64_t{work.rows.first_query} + first;
  const std::int64_t column = work.head * args.head_size;
  const std::int64_t out_stride = args.heads * args.head_size;
  memory.fill(memory.q(), args.q + row * args.q_stride + column, args.q_stride, work.rows.queries - first);
  memory.fill(memory.d_out(), args.d_out + row * out_stride + column, out_stride, work.rows.queries - first);
}
template <class T>
__device__ __forceinline__ void fill_keys(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                          int first) {
  const std::int64_t row = std::int64_t{work.rows.first_key} + first;
  const std::int64_t column = work.head * args.head_size;
  memory.fill(memory.k(), args.k + row * args.k_stride + column, args.k_stride, work.rows.keys - first);
  memory.fill(memory.v(), args.v + row * args.v_stride + column, args.v_stride, work.rows.keys - first);
}

/// p and ds of the tile in `memory`, one of each a thread.
template <class T>
__device__ __forceinline__ void score(const AttentionBackward<T>& args, const PlainMemory& memory, const PlainWork& work,
                                      const ProbabilityDropout& dropout, const float* statistics, int first_query,
                                      int first_key) {
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  const int column = static_cast<int>(threadIdx.x) % kPlainTile;
  const int query = first_query + row;
  const int key = first_key + column;
  float s = 0.0F;
  float d_p = 0.0F;
  for (int c = 0; c < memory.head_size; ++c) {
    s = fmaf(memory.q()[row * memory.stride + c], memory.k()[column * memory.stride + c], s);
    d_p = fmaf(memory.d_out()[row * memory.stride + c], memory.v()[column * memory.stride + c], d_p);
  }
  float lse = INFINITY;
  float delta = 0.0F;
  if (query < work.rows.queries && key < visible_keys(args.mask, work.rows, query)) {
    const std::int64_t place = work.head * args.queries + work.rows.first_query + query;
    lse = args.lse[place];
    delta = statistics[2 * place + 1];
  }
  const float p = lse == INFINITY ? 0.0F : expf(fmaf(s, static_cast<float>(args.scale), -lse));
  const bool keeps = args.dropout.threshold == 0 || dropout.kept(query, key);
  *memory.p(row, column) = keeps ? p : 0.0F;
  *memory.ds(row, column) = p * ((keeps ? d_p * dropout.scale() : 0.0F) - delta);
}

/// Puts a thread's columns of a row of gradients there.
template <class T>
__device__ __forceinline__ void put_columns(T* row, Use use, const float (&values)[kPlainColumns], int head_size, float scale) {
  if (use == Use::skip) return;
#pragma unroll
  for (int n = 0; n < kPlainColumns; ++n) {
    const int column = static_cast<int>(threadIdx.x) % kPlainTile + n * kPlainTile;
    if (column >= head_size) continue;
    const float before = use == Use::add ? to_float(row[column]) : 0.0F;
    row[column] = from_float<T>(fmaf(values[n], scale, before));
  }
}

/// sums[n] += sum over i of factor(i) * tile[i, the thread's column n].
template <class Factors>
__device__ __forceinline__ void accumulate(float (&sums)[kPlainColumns], const PlainMemory& memory, const float* tile,
                                           const Factors& factor) {
  const float* const from = tile + threadIdx.x % kPlainTile;
#pragma unroll 1
  for (int i = 0; i < kPlainTile; ++i) {
    const float of_row = factor(i);
#pragma unroll
    for (int n = 0; n < kPlainColumns; ++n) {
      if (static_cast<int>(threadIdx.x) % kPlainTile + n * kPlainTile < memory.head_size)
        sums[n] = fmaf(of_row, from[i * memory.stride + n * kPlainTile], sums[n]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_plain_queries_kernel(const __grid_constant__ AttentionBackward<T> args, const float* statistics) {
  const PlainWork work(args, Side::queries);
  if (work.empty()) return;
  const PlainMemory memory(static_cast<int>(args.head_size));
  const ProbabilityDropout dropout = dropout_of(args, work.sequence, work.head);
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  float d_q[kPlainColumns] = {};
  fill_queries(args, memory, work, work.first);
  const int keys = visible_keys(args.mask, work.rows, work.end - 1);
  for (int first = 0; first < keys; first += kPlainTile) {
    fill_keys(args, memory, work, first);
    __syncthreads();
    score(args, memory, work, dropout, statistics, work.first, first);
    __syncthreads();
    accumulate(d_q, memory, memory.k(), [&](int key) { return *memory.ds(row, key); });
    __syncthreads();
  }
  if (work.first + row >= work.end) return;
  const std::int64_t to = std::int64_t{work.rows.first_query} + work.first + row;
  put_columns(args.d_q + to * args.d_q_stride + work.head * args.head_size, args.use_q, d_q, memory.head_size,
              static_cast<float>(args.scale));
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_plain_keys_kernel(const __grid_constant__ AttentionBackward<T> args, const float* statistics) {
  const PlainWork work(args, Side::keys);
  if (work.empty()) return;
  const PlainMemory memory(static_cast<int>(args.head_size));
  const ProbabilityDropout dropout = dropout_of(args, work.sequence, work.head);
  const int row = static_cast<int>(threadIdx.x) / kPlainTile;
  float d_k[kPlainColumns] = {};
  float d_v[kPlainColumns] = {};
  fill_keys(args, memory, work, work.first);
  for (int first = first_viewer(args.mask, work.rows, work.first); first < work.rows.queries; first += kPlainTile) {
    fill_queries(args, memory, work, first);
    __syncthreads();
    score(args, memory, work, dropout, statistics, first, work.first);
    __syncthreads();
    accumulate(d_k, memory, memory.q(), [&](int query) { return *memory.ds(query, row); });
    accumulate(d_v, memory, memory.d_out(), [&](int query) { return *memory.p(query, row); });
    __syncthreads();
  }
  if (work.first + row >= work.end) return;
  const std::int64_t to = std::int64_t{work.rows.first_key} + work.first + row;
  const std::int64_t column = work.head * args.head_size;
  put_columns(args.d_k + to * args.d_k_stride + column, args.use_k, d_k, memory.head_size, static_cast<float>(args.scale));
  put_columns(args.d_v + to * args.d_v_stride + column, args.use_v, d_v, memory.head_size, dropout.scale());
}

}  // namespace

template <class T>
void attention_plain_products(CudaStream stream, const AttentionBackward<T>& args, const float* statistics) {
  const auto blocks = [&](const AttentionTiles& list) {
    return static_cast<unsigned>(list.count * ((list.rows + kPlainTile - 1) / kPlainTile) * args.heads);
  };
  const std::size_t bytes = PlainMemory::bytes(args.head_size);
  if (args.use_q != Use::skip) {
    launch(attention_plain_queries_kernel<T>, {.grid = blocks(args.query_tiles), .block = kPlainThreads, .shared_bytes = bytes},
           stream, args, statistics);
  }
  if (args.use_k != Use::skip || args.use_v != Use::skip) {
    launch(attention_plain_keys_kernel<T>, {.grid = blocks(args.key_tiles), .block = kPlainThreads, .shared_bytes = bytes},
           stream, args, statistics);
  }
}

template void attention_plain_products(CudaStream, const AttentionBackward<float>&, const float*);
template void attention_plain_products(CudaStream, const AttentionBackward<Bf16>&, const float*);

}  // namespace lathe
