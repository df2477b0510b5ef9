// Casts on the CPU.
#include "lathe/kernels/cast.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

template <class To, class From>
void compute(CpuStream stream, const Cast<To, From>& args) {
  To* const y = args.y;
  const From* const x = args.x;
  share_ranges(threads_for(stream, args.count), args.count, [&](Range range) {
#pragma omp simd
    for (std::int64_t i = range.first; i < range.end; ++i) y[i] = static_cast<To>(x[i]);
  });
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const Cast<Bf16, float>&);
template void run(CpuStream, const Cast<float, Bf16>&);

}  // namespace lathe::LATHE_CPU_TARGET
