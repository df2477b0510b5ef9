// Element-wise dropout in CUDA: a warp owns a row and takes eight columns a lane at a time, which is what one Philox call decides. Bytes an
// element: read and write, 2 sizes of T; adding reads the destination too, 3.
#include "lathe/kernels/dropout.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/row.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

inline constexpr int kDropoutWarps = 8;

/// d_x (by `use`) = d_y through the dropout, a chunk of the row after another.
template <class T, class Shape>
__global__ void __launch_bounds__(kDropoutWarps* kWarp) dropout_kernel(const __grid_constant__ DropoutBackward<T> args) {
  constexpr int kChunk = Shape::kStride * Shape::kPieces;
  const std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kDropoutWarps + threadIdx.x / kWarp;
  if (t >= args.tokens) return;
  const ElementDropout dropout(args.dropout);
  const ElementDropout::Row place = dropout.row(t);
  const T* const from = args.d_y + t * args.channels;
  T* const to = args.d_x + t * args.channels;
  for (std::int64_t offset = 0; offset < args.channels; offset += kChunk) {
    const auto columns = static_cast<int>(min(args.channels - offset, std::int64_t{kChunk}));
    const StoredRow<T, Shape> stored = load_row<Shape, Reuse::once>(from + offset, columns);
    std::uint32_t kept = 0;
    if (dropout.active()) kept = kept_columns<Shape>(dropout, place, offset);
    Row<Shape> values = to_float(stored);
    if (dropout.active()) multiply(values, kept, dropout.scale());
    put_row(args.use, to + offset, values, columns);
  }
}

}  // namespace

template <class T>
void dropout_backward(CudaStream stream, const DropoutBackward<T>& args) {
  const device::Range range("dropout_backward");
  if (args.use == Use::skip) return;
  const auto run = [&]<int kWidth>() {
    launch(dropout_kernel<T, RowShape<1, kWidth, 8 / kWidth>>,
           {.grid = blocks_for(args.tokens, kDropoutWarps), .block = kDropoutWarps * kWarp}, stream, args);
  };
  if (rows_aligned_to_16<T>(args.channels, args.d_x, args.d_y)) {
    run.template operator()<kWidest<T>>();
  } else {
    run.template operator()<1>();
  }
}

template <class T>
void dropout_forward(CudaStream stream, const DropoutForward<T>& args) {
  const device::Range range("dropout_forward");
  dropout_backward(stream, DropoutBackward<T>{.d_x = args.y,
                                              .use = Use::write,
                                              .d_y = args.x,
                                              .dropout = args.dropout,
                                              .tokens = args.tokens,
                                              .channels = args.channels});
}

template void dropout_forward(CudaStream, const DropoutForward<float>&);
template void dropout_forward(CudaStream, const DropoutForward<Bf16>&);
template void dropout_backward(CudaStream, const DropoutBackward<float>&);
template void dropout_backward(CudaStream, const DropoutBackward<Bf16>&);

}  // namespace lathe
