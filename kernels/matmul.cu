// Matrix products on CUDA: checks and empty products here, the rest by the plans' library. What is written here beside is the sum over
// nothing (K = 0), which no library computes: a batch without labelled rows has weight gradients of it. c is written once, with the bias read
// from cache: 4 bytes an element in fp32, 2 in bf16. An element a thread: this is too rare to be worth wider accesses.
#include "lathe/kernels/matmul.h"

#include <cstdint>
#include <stdexcept>

#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/matmul_check.h"
#include "lathe/kernels/matmul_cuda_plans.h"

// Exported as in the headers: what is instantiated here doesn't take its visibility from the declaration.
namespace [[gnu::visibility("default")]] lathe {
namespace {

constexpr int kThreads = 256;

template <class C>
struct EmptySum {
  C* c;
  const C* bias;
  std::int64_t m, n, ldc;
};

template <class C>
__global__ void __launch_bounds__(kThreads) empty_sum_kernel(const __grid_constant__ EmptySum<C> args) {
  const std::int64_t element = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (element >= args.m * args.n) return;
  const std::int64_t row = element / args.n;
  const std::int64_t column = element - row * args.n;
  args.c[row * args.ldc + column] = args.bias == nullptr ? C(0.0F) : args.bias[column];
}

template <class T, class C>
void check(CudaStream stream, const Matmul<T, C>& args) {
  if (stream.plans == nullptr) throw std::invalid_argument("matmul: a CUDA stream without plans");
  check_matmul(args);
}

}  // namespace

template <class T, class C>
std::int64_t matmul_workspace(CudaStream stream, const Matmul<T, C>& args) {
  check(stream, args);
  if (!is_product(args)) return 0;
  MatmulProblem problem = column_major(args);
  problem.alignment_a = problem.alignment_b = problem.alignment_d = problem.alignment_bias = kMatmulAlignment;
  stream.plans->prepare(problem);
  return stream.plans->library().workspace_bytes();
}
template std::int64_t matmul_workspace(CudaStream, const Matmul<float>&);
template std::int64_t matmul_workspace(CudaStream, const Matmul<Bf16>&);
template std::int64_t matmul_workspace(CudaStream, const Matmul<Bf16, float>&);

template <class T, class C>
void matmul(CudaStream stream, const Matmul<T, C>& args) {
  const device::Range range("matmul");
  check(stream, args);
  if (is_product(args)) {
    if (args.workspace == nullptr) throw std::invalid_argument("matmul: no workspace");
    if (stream.work == Work::rehearsed) return;
    stream.plans->enqueue(stream.handle, column_major(args),
                          column_major_operands(args, stream.plans->library().workspace_bytes()));
  } else if (args.use == Use::write) {
    launch(empty_sum_kernel<C>, {.grid = blocks_for(args.m * args.n, kThreads), .block = kThreads}, stream,
           EmptySum<C>{.c = args.c, .bias = args.bias, .m = args.m, .n = args.n, .ldc = args.ldc});
  }
}
template void matmul(CudaStream, const Matmul<float>&);
template void matmul(CudaStream, const Matmul<Bf16>&);
template void matmul(CudaStream, const Matmul<Bf16, float>&);

}  // namespace lathe
