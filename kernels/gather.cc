// Gathering the labelled rows on the CPU.
#include "lathe/kernels/gather.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

template <class T>
void compute(CpuStream stream, const GatherForward<T>& a) {
  share_ranges(threads_for(stream, a.rows * a.channels), a.rows, [&](Range range) {
    for (std::int64_t r = range.first; r < range.end; ++r)
      put(Use::write, a.y + r * a.channels, a.x + a.row_token[r] * a.channels, a.channels);
  });
}

template <class T>
void compute(CpuStream stream, const GatherBackward<T>& a) {
  if (a.use == Use::skip) return;
  share_ranges(threads_for(stream, a.tokens * a.channels), a.tokens, [&](Range range) {
    for (std::int64_t t = range.first; t < range.end; ++t) {
      const std::int64_t r = a.token_row[t];
      if (r >= 0) {
        put(a.use, a.d_x + t * a.channels, a.d_y + r * a.channels, a.channels);
      } else if (a.use == Use::write) {
        clear(a.d_x + t * a.channels, a.channels);
      }
    }
  });
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
