// Activations in CUDA.
//
// A thread owns 16 bytes of columns and walks down rows, a few at a time, so that the bias is loaded once for many rows and stays in registers,
// and four loads are under way. A row's columns go to neighbouring threads; short rows share a block, long ones are cut into tiles. Bytes an
// element: read x, write y, 2 sizes of T; backward reads d_y and x and writes d_x, 3 sizes of T. Backward's bias gradient costs no pass of its
// own: a block owns a part of the rows (row_parts), each thread adds up what it has in registers, the block's rows are added in shared memory,
// which leaves one row of partial sums a part, and a second launch adds the parts.
//
// The functions take 5 to 35 instructions an element, of which two are of the special function unit; docs/kernels/activation.md sets them
// against the bytes.
#include "lathe/kernels/activation.h"

#include <algorithm>

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/math.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/part_sums.cuh"
#include "lathe/kernels/device/range.h"

namespace [[gnu::visibility("default")]] lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 512;

/// Rows that a thread loads before it computes the first: four loads under way.
constexpr int kForwardAtOnce = 4;
constexpr int kBackwardAtOnce = 2;

/// Rows of a block in forward: the bias costs a 64th of what x and y do.
constexpr int kForwardRows = 32;

/// 2 sqrt(2 / pi): gelu_tanh is x sigmoid(2 u), since (1 + tanh u) / 2 = sigmoid(2 u), and 2 u = kGelu x (1 + kCubic x^2).
constexpr float kGelu = 1.59576912F;
constexpr float kCubic = 0.044715F;

/// The activation for results of type T.
template <Activation kActivation, class T>
__device__ __forceinline__ float value(float x) {
  if constexpr (kActivation == Activation::gelu_erf) {  // x Phi(x) = max(x, 0) - |x| Phi(-|x|)
    if constexpr (sizeof(T) == sizeof(Bf16)) {
      const float distance = min_or_nan(fabsf(x), kNormalLimit);
      return fmaf(-distance, normal_tail_for_bf16(distance), max_or_nan(x, 0.0F));
    }
    const NormalTail tail = normal_tail(x);
    return fmaf(-tail.distance, tail.probability, max_or_nan(x, 0.0F));
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    const float e = fast_exp2(x * fmaf(x * x, -kGelu * kCubic * kLog2E, -kGelu * kLog2E));
    return x * fast_reciprocal(1.0F + e);
  }
  if constexpr (kActivation == Activation::relu) return max_or_nan(x, 0.0F);
  if constexpr (kActivation == Activation::tanh) return tanhf(x);
  if constexpr (kActivation == Activation::sigmoid) return sigmoid(x);
  if constexpr (kActivation == Activation::silu) return x * sigmoid(x);
}

/// Its derivative, to fp32's precision whatever T is: bias gradients are sums in fp32.
template <Activation kActivation>
__device__ __forceinline__ float slope(float x) {
  if constexpr (kActivation == Activation::gelu_erf) {
    // The slope at -|x|; that at |x| is what is missing from 1.
    const NormalTail tail = normal_tail(x);
    const float at_left = fmaf(-tail.distance, tail.density, tail.probability);
    return x < 0.0F ? at_left : 1.0F - at_left;
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    const float square = x * x;
    const float twice_u = kGelu * x * fmaf(square, kCubic, 1.0F);
    const Logistic s = logistic(x, fast_exp2(-kLog2E * fabsf(twice_u)));
    return fmaf(x * s.slope, kGelu * fmaf(square, 3.0F * kCubic, 1.0F), s.value);
  }
  if constexpr (kActivation == Activation::relu) return x > 0.0F ? 1.0F : (x <= 0.0F ? 0.0F : x);  // 0 at 0; NaN comes through
  if constexpr (kActivation == Activation::tanh) return 4.0F * logistic(2.0F * x).slope;  // 1 - tanh(x)^2, where 1 - y^2 cancels
  if constexpr (kActivation == Activation::sigmoid) return logistic(x).slope;
  if constexpr (kActivation == Activation::silu) {
    const Logistic s = logistic(x);
    return fmaf(x, s.slope, s.value);
  }
}

/// How a block of threads lies over [T, F]: `columns` threads side by side, each with a vector of columns, for `rows` rows at a time.
struct Tiling {
  int columns;
  int rows;
  int tiles;  ///< of `columns` vectors, that a row is cut into

  unsigned threads() const { return static_cast<unsigned>((columns * rows + kWarp - 1) / kWarp * kWarp); }
};

Tiling tiling(std::int64_t vectors, int threads) {
  const std::int64_t tiles = (vectors + threads - 1) / threads;
  const auto columns = static_cast<int>((vectors + tiles - 1) / tiles);
  return {.columns = columns, .rows = threads / columns, .tiles = static_cast<int>(tiles)};
}

/// Where a thread stands in its block's tile. Some threads have no place: those left over, and those beyond the last column.
template <int kWidth>
struct Place {
  int row;              ///< of the rows that the block takes at a time
  std::int64_t column;  ///< first of kWidth
  bool inside;

  __device__ __forceinline__ Place(const Tiling& tiling, int tile, std::int64_t channels)
      : row(static_cast<int>(threadIdx.x) / tiling.columns),
        column((static_cast<std::int64_t>(tile) * tiling.columns + static_cast<int>(threadIdx.x) % tiling.columns) * kWidth),
        inside(row < tiling.rows && column < channels) {}
};

/// bias[column ..+ kWidth), or zeros.
template <int kWidth, class T>
__device__ __forceinline__ void load_bias(const T* bias, std::int64_t column, float (&to)[kWidth]) {
  Vector<T, kWidth> loaded = {};
  if (bias != nullptr) loaded = load<kWidth>(bias + column);
  to_float(loaded, to);
}

template <Activation kActivation, class T, int kWidth>
__global__ void __launch_bounds__(kForwardThreads)
    activation_forward_kernel(const __grid_constant__ ActivationForward<T> args, const Tiling tiling, const int block_rows) {
  const auto tiles = static_cast<unsigned>(tiling.tiles);
  const Place<kWidth> place(tiling, static_cast<int>(blockIdx.x % tiles), args.channels);
  if (!place.inside) return;
  float bias[kWidth];
  load_bias(args.bias, place.column, bias);

  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x / tiles) * block_rows;
  const std::int64_t end = min(begin + block_rows, args.tokens);
  const std::int64_t stride = tiling.rows * args.channels;
  std::int64_t at = (begin + place.row) * args.channels + place.column;
#pragma unroll 1
  for (std::int64_t t = begin + place.row; t < end; t += kForwardAtOnce * tiling.rows, at += kForwardAtOnce * stride) {
    Vector<T, kWidth> x[kForwardAtOnce];
#pragma unroll
    for (int i = 0; i < kForwardAtOnce; ++i) {
      if (t + i * tiling.rows < end) x[i] = load<kWidth, Reuse::once>(args.x + at + i * stride);
    }
#pragma unroll
    for (int i = 0; i < kForwardAtOnce; ++i) {
      if (t + i * tiling.rows >= end) break;
      float y[kWidth];
      to_float(x[i], y);
#pragma unroll
      for (int c = 0; c < kWidth; ++c) y[c] = value<kActivation, T>(y[c] + bias[c]);
      store(args.y + at + i * stride, from_float<T>(y));
    }
  }
}

/// Adds up what the threads of a tile's columns have, in a fixed order; row 0 of the tile gets the sums. All threads of the block take part.
template <int kWidth>
__device__ __forceinline__ void sum_over_rows(const Tiling& tiling, const Place<kWidth>& place, float (&sums)[kWidth]) {
  __shared__ float scratch[kWidth][kBackwardThreads];
  for (int rows = tiling.rows; rows > 1;) {
    const int half = (rows + 1) / 2;
    if (place.row >= half && place.row < rows) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) scratch[c][threadIdx.x] = sums[c];
    }
    __syncthreads();
    if (place.row < rows - half) {
#pragma unroll
      for (int c = 0; c < kWidth; ++c) sums[c] += scratch[c][static_cast<int>(threadIdx.x) + half * tiling.columns];
    }
    rows = half;
  }
}

template <Activation kActivation, class T, int kWidth>
__global__ void __launch_bounds__(kBackwardThreads, 2)
    activation_backward_kernel(const __grid_constant__ ActivationBackward<T> args, const Tiling tiling, const unsigned parts,
                               float* const partials) {
  const auto tiles = static_cast<unsigned>(tiling.tiles);
  const unsigned part = blockIdx.x / tiles;
  const Place<kWidth> place(tiling, static_cast<int>(blockIdx.x % tiles), args.channels);
  float sums[kWidth] = {};
  if (place.inside) {
    float bias[kWidth];
    load_bias(args.bias, place.column, bias);
    const std::int64_t begin = args.tokens * part / parts;
    const std::int64_t end = args.tokens * (part + 1) / parts;
    const std::int64_t stride = tiling.rows * args.channels;
    std::int64_t at = (begin + place.row) * args.channels + place.column;
#pragma unroll 1
    for (std::int64_t t = begin + place.row; t < end; t += kBackwardAtOnce * tiling.rows, at += kBackwardAtOnce * stride) {
      Vector<T, kWidth> x[kBackwardAtOnce];
      Vector<T, kWidth> d_y[kBackwardAtOnce];
#pragma unroll
      for (int i = 0; i < kBackwardAtOnce; ++i) {
        if (t + i * tiling.rows < end) {
          x[i] = load<kWidth, Reuse::once>(args.x + at + i * stride);
          d_y[i] = load<kWidth, Reuse::once>(args.d_y + at + i * stride);
        }
      }
#pragma unroll
      for (int i = 0; i < kBackwardAtOnce; ++i) {
        if (t + i * tiling.rows >= end) break;
        float argument[kWidth];
        float gradient[kWidth];
        to_float(x[i], argument);
        to_float(d_y[i], gradient);
#pragma unroll
        for (int c = 0; c < kWidth; ++c) {
          gradient[c] *= slope<kActivation>(argument[c] + bias[c]);
          sums[c] += gradient[c];
        }
        T* const d_x = args.d_x + at + i * stride;
        if (args.use_x == Use::add) {
          float before[kWidth];
          to_float(load<kWidth, Reuse::once>(d_x), before);
#pragma unroll
          for (int c = 0; c < kWidth; ++c) gradient[c] += before[c];
        }
        if (args.use_x != Use::skip) store(d_x, from_float<T>(gradient));
      }
    }
  }
  if (partials == nullptr) return;
  sum_over_rows(tiling, place, sums);
  if (!place.inside || place.row != 0) return;
  constexpr int kPiece = kWidth < 4 ? kWidth : 4;
#pragma unroll
  for (int c = 0; c < kWidth; c += kPiece) {
    Vector<float, kPiece> piece;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) piece[i] = sums[c + i];
    store(partials + part * args.channels + place.column + c, piece);
  }
}

template <Activation kActivation, int kWidth, class T>
void run(CudaStream stream, const ActivationForward<T>& args) {
  const Tiling lay = tiling(args.channels / kWidth, kForwardThreads);
  const int rows = std::max(kForwardRows, kForwardAtOnce * lay.rows);
  launch(activation_forward_kernel<kActivation, T, kWidth>,
         {.grid = blocks_for(args.tokens, rows) * static_cast<unsigned>(lay.tiles), .block = lay.threads()}, stream, args, lay,
         rows);
}

template <Activation kActivation, int kWidth, class T>
void run(CudaStream stream, const ActivationBackward<T>& args) {
  const Tiling lay = tiling(args.channels / kWidth, kBackwardThreads);
  const auto parts = static_cast<unsigned>(row_parts(args.tokens));
  float* const partials =
      args.use_bias == Use::skip || args.d_bias == nullptr ? nullptr : reinterpret_cast<float*>(args.workspace);
  launch(activation_backward_kernel<kActivation, T, kWidth>,
         {.grid = parts * static_cast<unsigned>(lay.tiles), .block = lay.threads()}, stream, args, lay, parts, partials);
  if (partials != nullptr) {
    sum_parts(stream, PartSums<1>{.partials = partials,
                                  .parts = parts,
                                  .channels = args.channels,
                                  .sums = {{.to = args.d_bias, .use = args.use_bias}}});
  }
}

/// Calls run<activation, width>(stream, args) with 16-byte vectors where `wide`.
template <class T, template <class> class Arguments>
void with_kernel(CudaStream stream, const Arguments<T>& args, bool wide) {
  if (args.channels == 0) return;
  const auto with = [&]<Activation kActivation>() {
    if (wide) {
      run<kActivation, kWidest<T>>(stream, args);
    } else {
      run<kActivation, 1>(stream, args);
    }
  };
  switch (args.activation) {
    case Activation::gelu_erf:
      return with.template operator()<Activation::gelu_erf>();
    case Activation::gelu_tanh:
      return with.template operator()<Activation::gelu_tanh>();
    case Activation::relu:
      return with.template operator()<Activation::relu>();
    case Activation::tanh:
      return with.template operator()<Activation::tanh>();
    case Activation::sigmoid:
      return with.template operator()<Activation::sigmoid>();
    case Activation::silu:
      return with.template operator()<Activation::silu>();
  }
}

}  // namespace

template <class T>
void activation_forward(CudaStream stream, const ActivationForward<T>& args) {
  const device::Range range("activation_forward");
  with_kernel(stream, args, rows_aligned_to_16<T>(args.channels, args.y, args.x, args.bias));
}

template <class T>
void activation_backward(CudaStream stream, const ActivationBackward<T>& args) {
  const device::Range range("activation_backward");
  with_kernel(stream, args, rows_aligned_to_16<T>(args.channels, args.d_x, args.d_y, args.x, args.bias));
}

template void activation_forward(CudaStream, const ActivationForward<float>&);
template void activation_forward(CudaStream, const ActivationForward<Bf16>&);
template void activation_backward(CudaStream, const ActivationBackward<float>&);
template void activation_backward(CudaStream, const ActivationBackward<Bf16>&);

}  // namespace lathe
