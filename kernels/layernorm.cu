// LayerNorm in CUDA.
//
// Forward: a warp owns a row of up to 1,024 columns, 32 of them in each lane's registers, so that the row is read once and its statistics
// are two butterflies without a barrier; longer rows are shared by 2, 4 or 8 warps. A block takes up to 32 rows and keeps bias, gamma and
// beta in shared memory. Bytes an element: read x and residual, write z and y, 4 sizes of T with everything, 2 for a plain LayerNorm.
// Backward: device/norm_backward.cuh; read d_y and z, write d_x and d_residual, 4 sizes of T, 3 with one gradient.
#include "lathe/kernels/layernorm.h"

#include "lathe/kernels/device/alignment.h"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/norm_backward.cuh"
#include "lathe/kernels/device/normalisation.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/shared.cuh"

namespace lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

template <class T, class Shape>
__global__ void __launch_bounds__(kNormThreads, (kNormBlocks<T, Shape>))
    layernorm_forward_kernel(const __grid_constant__ LayerNormForward<T> args, int rows) {
  __shared__ NormScratch<Shape> scratch;
  const auto channels = static_cast<int>(args.channels);
  T* const gamma = dynamic_shared<T>();
  T* const beta = gamma + channels;
  T* const bias = beta + channels;
  stage_parameters<Shape::kWidth>(gamma, args.gamma, channels);
  stage_parameters<Shape::kWidth>(beta, args.beta, channels);
  if (args.bias != nullptr) stage_parameters<Shape::kWidth>(bias, args.bias, channels);
  __syncthreads();

  const ElementDropout dropout(args.dropout);
  const float per_channel = 1.0F / static_cast<float>(channels);
  const auto epsilon = static_cast<float>(args.epsilon);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * rows;
  const std::int64_t end = min(begin + rows, args.tokens);
  // The trips are the same for all teams, which may meet at barriers: a team without a row computes with zeros and stores nothing.
  for (std::int64_t first = begin; first < end; first += NormScratch<Shape>::kTeams) {
    const std::int64_t t = first + team_number<Shape>();
    const bool present = t < end;
    const int columns = present ? channels : 0;
    const std::int64_t row = t * args.channels;
    const StoredRow<T, Shape> x = load_row<Shape, Reuse::once>(args.x + row, columns);
    const StoredRow<T, Shape> residual =
        load_row<Shape, Reuse::once>(args.residual + row, args.residual != nullptr ? columns : 0);
    std::uint32_t kept = 0;
    if (dropout.active()) kept = kept_columns<Shape>(dropout, dropout.row(present ? t : first));

    Row<Shape> z = to_float(x);
    if (args.bias != nullptr) add(z, to_float(load_row<Shape>(bias, columns)));
    if (dropout.active()) multiply(z, kept, dropout.scale());
    if (args.residual != nullptr) add(z, to_float(residual));
    if (args.z != nullptr) store_row(args.z + row, z, columns);

    const Statistics statistics = row_statistics(z, columns, per_channel, epsilon, scratch);
    if (present && first_column<Shape>() == 0) {
      args.mean[t] = statistics.mean;
      args.rstd[t] = statistics.rstd;
    }
    normalise(z, statistics, gamma, beta, columns);
    store_row(args.y + row, z, columns);
  }
}

}  // namespace

template <class T>
void layernorm_forward(CudaStream stream, const LayerNormForward<T>& args) {
  const device::Range range("layernorm_forward");
  const std::int64_t rows = norm_rows(args.tokens);
  const bool wide = rows_aligned_to_16<T>(args.channels, args.y, args.z, args.x, args.residual, args.bias, args.gamma, args.beta);
  with_row_shape<T>("layernorm_forward", args.channels, wide, [&]<class Shape>() {
    launch(layernorm_forward_kernel<T, Shape>,
           {.grid = blocks_for(args.tokens, rows),
            .block = kNormThreads,
            .shared_bytes = static_cast<std::size_t>((args.bias != nullptr ? 3 : 2) * args.channels) * sizeof(T)},
           stream, args, static_cast<int>(rows));
  });
}

template <class T>
void layernorm_backward(CudaStream stream, const LayerNormBackward<T>& args) {
  const device::Range range("layernorm_backward");
  norm_backward<DropoutPlace::before>("layernorm_backward", stream, args);
}

template void layernorm_forward(CudaStream, const LayerNormForward<float>&);
template void layernorm_forward(CudaStream, const LayerNormForward<Bf16>&);
template void layernorm_backward(CudaStream, const LayerNormBackward<float>&);
template void layernorm_backward(CudaStream, const LayerNormBackward<Bf16>&);

}  // namespace lathe
