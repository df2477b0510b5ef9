// Matrix products by Eigen's packed kernels. Compiled for each instruction set under a name of Eigen's namespace of its own
// (CMakeLists.txt), so that the linker cannot merge the two.
#define EIGEN_DONT_PARALLELIZE  // panels are shared out here
#include <Eigen/Core>
#include <type_traits>

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_threads.h"
#include "lathe/kernels/matmul_backend.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Eigen's blocking object with buffers of ours: its own sizes depend on the machine's caches, its own buffers come from malloc.
template <class T>
class Blocking : public Eigen::internal::level3_blocking<T, T> {
 public:
  Blocking(const MatmulPanels& panels, std::byte* workspace) {
    this->m_blockA = reinterpret_cast<T*>(workspace);
    this->m_blockB = reinterpret_cast<T*>(workspace + panels.pack_b_bytes);
    this->m_mc = panels.block_n;
    this->m_nc = panels.block_m;
    this->m_kc = panels.block_k;
  }
};

/// c[rows, columns) of a panel, in Eigen's column-major terms: transposed(c) += transposed(op(b)) transposed(op(a)).
template <int kOrderOfB, int kOrderOfA, class T>
void add_product(const Matmul<T>& p, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                 Blocking<T>& blocking) {
  const T* b = p.b + (kOrderOfB == Eigen::ColMajor ? column : column * p.ldb);
  const T* a = p.a + (kOrderOfA == Eigen::ColMajor ? row * p.lda : row);
  // NOLINTNEXTLINE(readability-suspicious-call-argument): rows of the transposed product are columns of c
  Eigen::internal::general_matrix_matrix_product<std::int64_t, T, kOrderOfB, false, T, kOrderOfA, false, Eigen::ColMajor, 1>::run(
      columns, rows, p.k, b, p.ldb, a, p.lda, p.c + row * p.ldc + column, 1, p.ldc, T{1}, blocking);
}

template <class T>
void initialise(const Matmul<T>& p, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
  for (std::int64_t i = row; i < row + rows; ++i) {
    T* c = p.c + i * p.ldc + column;
    const T* bias = p.bias == nullptr ? nullptr : p.bias + column;
    for (std::int64_t j = 0; j < columns; ++j) c[j] = bias == nullptr ? T{0} : bias[j];
  }
}

template <class T>
void matmul_panel(const EigenMatmul<T>& args, std::int64_t panel) {
  const Matmul<T>& p = args.product;
  const MatmulPanels& panels = args.panels;
  const std::int64_t row = panel / panels.count_n * panels.panel_m;
  const std::int64_t column = panel % panels.count_n * panels.panel_n;
  const std::int64_t rows = p.m - row < panels.panel_m ? p.m - row : panels.panel_m;
  const std::int64_t columns = p.n - column < panels.panel_n ? p.n - column : panels.panel_n;
  Blocking<T> blocking(panels, p.workspace + panel * (panels.pack_a_bytes + panels.pack_b_bytes));

  if (p.use == Use::write) initialise(p, row, rows, column, columns);
  constexpr int kNo = Eigen::ColMajor;
  constexpr int kYes = Eigen::RowMajor;
  if (p.transpose_a == Transpose::no && p.transpose_b == Transpose::no) {
    add_product<kNo, kNo>(p, row, rows, column, columns, blocking);
  } else if (p.transpose_a == Transpose::no) {
    add_product<kYes, kNo>(p, row, rows, column, columns, blocking);
  } else if (p.transpose_b == Transpose::no) {
    add_product<kNo, kYes>(p, row, rows, column, columns, blocking);
  } else {
    add_product<kYes, kYes>(p, row, rows, column, columns, blocking);
  }
}

}  // namespace

template <class Arguments>
void run(CpuStream, const Arguments& args) {
  const std::int64_t count = args.panels.count_m * args.panels.count_n;
  share_dealt(static_cast<int>(count), count, 1, [&](std::int64_t panel) { matmul_panel(args, panel); });
}
template void run(CpuStream, const EigenMatmul<float>&);
template void run(CpuStream, const EigenMatmul<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
