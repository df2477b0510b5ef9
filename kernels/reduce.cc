// Sums on the CPU.
#include "lathe/kernels/reduce.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

template <class T>
void compute(CpuStream stream, const ColumnSum<T>& a) {
  if (a.use == Use::skip) return;
  const std::int64_t parts = row_parts(a.tokens);
  T* const sums = reinterpret_cast<T*>(a.workspace);
  const int threads = threads_for(stream, a.tokens * a.channels);
  share_ranges(threads, parts, [&](Range range) {
    for (std::int64_t p = range.first; p < range.end; ++p) {
      T* const sum = sums + p * a.channels;
      clear(sum, a.channels);
      const Range rows = part_rows(a.tokens, parts, p);
      for (std::int64_t t = rows.first; t < rows.end; ++t) put(Use::add, sum, a.x + t * a.channels, a.channels);
    }
  });
  share_tiles(threads, a.channels,
              [&](std::int64_t c, std::int64_t count) { sum_parts(a.use, a.y, sums, parts, a.channels, c, count); });
}

template <class T>
void compute(CpuStream /*stream*/, const Sum<T>& a) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < a.count; ++i) sum += a.x[i];
  *a.y = static_cast<T>(sum);
}

template <class T>
void compute(CpuStream stream, const Add<T>& a) {
  share_ranges(threads_for(stream, a.count), a.count, [&](Range range) {
    for (std::int64_t i = range.first; i < range.end; ++i) a.y[i] = a.a[i] + a.b[i];
  });
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const ColumnSum<float>&);
template void run(CpuStream, const ColumnSum<double>&);
template void run(CpuStream, const Sum<float>&);
template void run(CpuStream, const Sum<double>&);
template void run(CpuStream, const Add<float>&);
template void run(CpuStream, const Add<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
