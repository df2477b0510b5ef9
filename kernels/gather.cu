// Gathering rows in CUDA: a warp copies a row in 16-byte pieces, four of them on their way at a time. Forward and backward are one kernel: the
// row that is copied is looked up, and absent rows are zeros. Bytes an element, in sizes of T: forward 2 over R rows; backward 1 over T rows
// for the zeros and 1 over R.
#include "lathe/kernels/gather.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/row.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

inline constexpr int kGatherWarps = 8;

/// to[r,:] = from[index[r],:], or 0 where index[r] < 0; added where kUse says so.
template <class T>
struct RowCopies {
  T* to;
  const T* from;
  const std::int32_t* index;
  std::int64_t rows, channels;
};

template <class T, int kWidth, Use kUse>
__global__ void __launch_bounds__(kGatherWarps* kWarp) copy_rows_kernel(const __grid_constant__ RowCopies<T> args) {
  constexpr int kPieces = 4;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kGatherWarps + threadIdx.x / kWarp;
  if (row >= args.rows) return;
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t source = from_first_lane(lane == 0 ? args.index[row] : 0);
  if (kUse == Use::add && source < 0) return;
  const T* const from = args.from + source * args.channels;
  T* const to = args.to + row * args.channels;
  for (std::int64_t first = lane * kWidth; first < args.channels; first += kPieces * kWarp * kWidth) {
    StoredPiece<T, kWidth> pieces[kPieces];
    StoredPiece<T, kWidth> before[kPieces];
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const std::int64_t column = first + p * kWarp * kWidth;
      pieces[p] = {};
      before[p] = {};
      if (column < args.channels && source >= 0) pieces[p] = load_piece<kWidth, Reuse::once>(from + column);
      if (kUse == Use::add && column < args.channels) before[p] = load_piece<kWidth, Reuse::once>(to + column);
    }
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const std::int64_t column = first + p * kWarp * kWidth;
      if constexpr (kUse == Use::add) {
        float sum[kWidth];
        float more[kWidth];
        to_float(before[p], sum);
        to_float(pieces[p], more);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] += more[i];
        pieces[p] = to_stored<T>(sum);
      }
      if (column < args.channels) store_piece(to + column, pieces[p]);
    }
  }
}

template <Use kUse, class T>
void copy_rows(CudaStream stream, const RowCopies<T>& args) {
  const auto run = [&]<int kWidth>() {
    launch(copy_rows_kernel<T, kWidth, kUse>, {.grid = blocks_for(args.rows, kGatherWarps), .block = kGatherWarps * kWarp},
           stream, args);
  };
  if (rows_aligned_to_16<T>(args.channels, args.to, args.from)) {
    run.template operator()<kWidest<T>>();
  } else {
    run.template operator()<1>();
  }
}

}  // namespace

template <class T>
void gather_forward(CudaStream stream, const GatherForward<T>& args) {
  const device::Range range("gather_forward");
  copy_rows<Use::write>(
      stream, RowCopies<T>{.to = args.y, .from = args.x, .index = args.row_token, .rows = args.rows, .channels = args.channels});
}

template <class T>
void gather_backward(CudaStream stream, const GatherBackward<T>& args) {
  const device::Range range("gather_backward");
  const RowCopies<T> copies = {
      .to = args.d_x, .from = args.d_y, .index = args.token_row, .rows = args.tokens, .channels = args.channels};
  if (args.use == Use::write) copy_rows<Use::write>(stream, copies);
  if (args.use == Use::add) copy_rows<Use::add>(stream, copies);
}

template void gather_forward(CudaStream, const GatherForward<float>&);
template void gather_forward(CudaStream, const GatherForward<Bf16>&);
template void gather_backward(CudaStream, const GatherBackward<float>&);
template void gather_backward(CudaStream, const GatherBackward<Bf16>&);

}  // namespace lathe
