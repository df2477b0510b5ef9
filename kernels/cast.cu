// Casts in CUDA: four elements at a time, 16 bytes on the fp32 side and 8 on the other, so that neighbouring lanes touch neighbouring memory
// on both. 6 bytes an element.
#include "lathe/kernels/cast.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/row.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

inline constexpr int kCastThreads = 256;
inline constexpr int kCastPieces = 4;

template <class To, class From, int kWidth>
__global__ void __launch_bounds__(kCastThreads) cast_kernel(const __grid_constant__ Cast<To, From> args) {
  constexpr std::int64_t kStride = std::int64_t{kCastThreads} * kWidth;
  const std::int64_t first = blockIdx.x * kCastPieces * kStride + threadIdx.x * kWidth;
  StoredPiece<From, kWidth> pieces[kCastPieces];
#pragma unroll
  for (int p = 0; p < kCastPieces; ++p) {
    pieces[p] = {};
    if (first + p * kStride + kWidth <= args.count) pieces[p] = load_piece<kWidth, Reuse::once>(args.x + first + p * kStride);
  }
#pragma unroll
  for (int p = 0; p < kCastPieces; ++p) {
    const std::int64_t i = first + p * kStride;
    if (i + kWidth <= args.count) {
      float values[kWidth];
      to_float(pieces[p], values);
      store_piece(args.y + i, to_stored<To>(values));
    } else {
      for (std::int64_t k = i; k < args.count; ++k) args.y[k] = from_float<To>(to_float(args.x[k]));
    }
  }
}

}  // namespace

template <class To, class From>
void cast(CudaStream stream, const Cast<To, From>& args) {
  const device::Range range("cast");
  const auto run = [&]<int kWidth>() {
    launch(cast_kernel<To, From, kWidth>,
           {.grid = blocks_for(args.count, std::int64_t{kCastPieces} * kCastThreads * kWidth), .block = kCastThreads}, stream,
           args);
  };
  if (aligned_to_16(args.y, args.x)) {
    run.template operator()<4>();
  } else {
    run.template operator()<1>();
  }
}

template void cast(CudaStream, const Cast<Bf16, float>&);
template void cast(CudaStream, const Cast<float, Bf16>&);

}  // namespace lathe
