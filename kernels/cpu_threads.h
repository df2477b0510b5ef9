#pragma once
// Sharing a kernel's loop among threads. Internal to the CPU kernels (cpu_dispatch.h).
//
// A loop for one thread runs without OpenMP: a team of one would cost an allocation and forget the team of the others. Which thread
// takes what never decides a result.
#include <omp.h>

#include <cstdint>

#include "lathe/kernels/cpu_rows.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Threads for a memory-bound loop over so many elements.
inline int threads_for(CpuStream stream, std::int64_t elements) { return elements >= kParallelElements ? stream.threads : 1; }

/// body(Range) for equal runs of 0 .. count, one a thread.
template <class Body>
void share_ranges(int threads, std::int64_t count, const Body& body) {
  if (count <= 0) return;
  if (threads <= 1 || count <= 1) {
    body(Range{0, count});
    return;
  }
#pragma omp parallel num_threads(threads)
  body(part_rows(count, omp_get_num_threads(), omp_get_thread_num()));
}

/// body(column, columns) for the tiles of a row of so many columns.
template <class Body>
void share_tiles(int threads, std::int64_t columns, const Body& body) {
  share_ranges(threads, (columns + kTile - 1) / kTile, [&](Range tiles) {
    for (std::int64_t tile = tiles.first; tile < tiles.end; ++tile) body(tile * kTile, tile_columns(columns, tile * kTile));
  });
}

/// body(i) for 0 .. count, dealt out in turn, `chunk` at a time: for items whose cost differs.
template <class Body>
void share_dealt(int threads, std::int64_t count, std::int64_t chunk, const Body& body) {
  if (threads <= 1 || count <= chunk) {
    for (std::int64_t i = 0; i < count; ++i) body(i);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static, chunk)
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
