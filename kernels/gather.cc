// Gathering the labelled rows on the CPU.
#include "lathe/kernels/gather.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_rows.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

template <class T>
void compute(CpuStream stream, const GatherForward<T>& a) {
#pragma omp parallel for num_threads(stream.threads) schedule(static) if (a.rows * a.channels >= kParallelElements)
  for (std::int64_t r = 0; r < a.rows; ++r) put(Use::write, a.y + r * a.channels, a.x + a.row_token[r] * a.channels, a.channels);
}

template <class T>
void compute(CpuStream stream, const GatherBackward<T>& a) {
  if (a.use == Use::skip) return;
#pragma omp parallel for num_threads(stream.threads) schedule(static) if (a.tokens * a.channels >= kParallelElements)
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    const std::int64_t r = a.token_row[t];
    if (r >= 0) {
      put(a.use, a.d_x + t * a.channels, a.d_y + r * a.channels, a.channels);
    } else if (a.use == Use::write) {
      clear(a.d_x + t * a.channels, a.channels);
    }
  }
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const GatherForward<float>&);
template void run(CpuStream, const GatherForward<double>&);
template void run(CpuStream, const GatherBackward<float>&);
template void run(CpuStream, const GatherBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
