// Sharing and blocking of Eigen's products, compiled for any x86-64.
#include <algorithm>

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/matmul_backend.h"

namespace lathe {
namespace {

/// Below this many multiply-adds a second thread costs more than it brings.
constexpr std::int64_t kSerialWork = std::int64_t{1} << 19;

/// Cache blocks in elements of 4 bytes: a micro-panel of op(b) (48 x block_k) stays in L1 while the block of op(a) passes; that
/// block stays in L2.
constexpr std::int64_t kBlockM = 512;
constexpr std::int64_t kBlockN = 768;
constexpr std::int64_t kBlockK = 256;

/// Panels end at multiples of Eigen's register tile: 4 rows of c, three vectors of columns.
constexpr std::int64_t kTileM = 4;
constexpr std::int64_t kTileN = 48;

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t multiple) { return ceil_divide(a, multiple) * multiple; }

/// The longest of the parts that `size` is cut into at multiples of `tile`.
constexpr std::int64_t part(std::int64_t size, std::int64_t parts, std::int64_t tile) {
  return std::min(size, round_up(ceil_divide(size, parts), tile));
}

/// `size` in equal blocks of at most `most`, so that no thin block is left at the end.
constexpr std::int64_t block(std::int64_t size, std::int64_t most, std::int64_t tile) {
  return part(size, ceil_divide(size, most), tile);
}

}  // namespace

MatmulPanels matmul_panels(int threads, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t element_bytes) {
  MatmulPanels panels{};
  const std::int64_t workers = m * n * k < kSerialWork ? 1 : threads;
  // The grid with the least work for its busiest thread: its multiply-adds, and the packing of its rows and columns, an element
  // of which costs about as much as 16 multiply-adds.
  std::int64_t least = -1;
  for (std::int64_t count_m = 1; count_m <= workers; ++count_m) {
    const std::int64_t panel_m = part(m, count_m, kTileM);
    const std::int64_t panel_n = part(n, workers / count_m, kTileN);
    const std::int64_t cost = panel_m * panel_n + 16 * (panel_m + panel_n);
    if (least < 0 || cost < least) {
      least = cost;
      panels.panel_m = panel_m;
      panels.panel_n = panel_n;
    }
  }
  panels.count_m = ceil_divide(m, panels.panel_m);
  panels.count_n = ceil_divide(n, panels.panel_n);
  panels.block_m = block(panels.panel_m, kBlockM * 4 / element_bytes, kTileM);
  panels.block_n = block(panels.panel_n, kBlockN * 4 / element_bytes, kTileN);
  panels.block_k = block(k, kBlockK, 8);
  panels.pack_a_bytes = round_up(panels.block_m * panels.block_k * element_bytes, 64);
  panels.pack_b_bytes = round_up(panels.block_n * panels.block_k * element_bytes, 64);
  return panels;
}

template <class T>
std::int64_t eigen_matmul_workspace(CpuStream stream, const Matmul<T>& args) {
  const MatmulPanels panels = matmul_panels(stream.threads, args.m, args.n, args.k, sizeof(T));
  return panels.count_m * panels.count_n * (panels.pack_a_bytes + panels.pack_b_bytes);
}
template std::int64_t eigen_matmul_workspace(CpuStream, const Matmul<float>&);
template std::int64_t eigen_matmul_workspace(CpuStream, const Matmul<double>&);

template <class T>
void eigen_matmul(CpuStream stream, const Matmul<T>& args) {
  run_on_target(stream, EigenMatmul<T>{args, matmul_panels(stream.threads, args.m, args.n, args.k, sizeof(T))});
}
template void eigen_matmul(CpuStream, const Matmul<float>&);
template void eigen_matmul(CpuStream, const Matmul<double>&);

}  // namespace lathe
