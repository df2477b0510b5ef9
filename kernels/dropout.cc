// Element-wise dropout on the CPU.
#include "lathe/kernels/dropout.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_philox.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// to[t,c] (by `use`) = from[t,c] through the dropout; in place where `to` is `from`.
template <class T>
void drop(CpuStream stream, Use use, T* to, const T* from, const Dropout& dropout, std::int64_t tokens, std::int64_t channels) {
  if (use == Use::skip) return;
  share_ranges(threads_for(stream, tokens * channels), tokens, [&](Range range) {
    for (std::int64_t t = range.first; t < range.end; ++t) {
      T* const y = to + t * channels;
      const T* const x = from + t * channels;
      if (dropout.threshold == 0) {
        put(use, y, x, channels);
        continue;
      }
      alignas(64) T dropped[kTile];
      for (std::int64_t c = 0; c < channels; c += kTile) {
        const std::int64_t count = tile_columns(channels, c);
        dropout_multipliers(dropout, t, c, dropped);
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) dropped[i] *= x[c + i];
        put(use, y + c, dropped, count);
      }
    }
  });
}

template <class T>
void compute(CpuStream stream, const DropoutForward<T>& a) {
  drop(stream, Use::write, a.y, a.x, a.dropout, a.tokens, a.channels);
}
template <class T>
void compute(CpuStream stream, const DropoutBackward<T>& a) {
  drop(stream, a.use, a.d_x, a.d_y, a.dropout, a.tokens, a.channels);
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const DropoutForward<float>&);
template void run(CpuStream, const DropoutForward<double>&);
template void run(CpuStream, const DropoutBackward<float>&);
template void run(CpuStream, const DropoutBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
