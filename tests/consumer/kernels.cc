#include <lathe/kernels/cpu_target.h>
#include <lathe/kernels/matmul.h>
#include <lathe/kernels/reduce.h>

int main() {
  const lathe::CpuStream stream{.threads = 1, .target = lathe::best_cpu_target()};
  const double x[] = {1.0, 2.0, 3.5};
  double y = 0.0;
  lathe::sum(stream, lathe::Sum<double>{.y = &y, .x = x, .count = 3});
  return y == 6.5 && lathe::MatmulPlans::library() != nullptr ? 0 : 1;
}
