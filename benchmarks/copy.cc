#include <omp.h>

#include <cstring>

#include "benchmarks/measure.h"
#include "benchmarks/operands.h"
#ifdef LATHE_HAS_CUDA
#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/runtime_api.h"
#endif

namespace lathe::bench {
namespace {

void copy(CpuStream stream, std::byte* to, const std::byte* from, std::size_t bytes) {
#pragma omp parallel num_threads(stream.threads)
  {
    const auto threads = static_cast<std::size_t>(omp_get_num_threads());
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const std::size_t begin = bytes * thread / threads;
    std::memcpy(to + begin, from + begin, bytes * (thread + 1) / threads - begin);
  }
}

#ifdef LATHE_HAS_CUDA
void copy(CudaStream stream, std::byte* to, const std::byte* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle));
}
#endif

template <class Stream>
Case copy_on(std::int64_t bytes) {
  return {.family = "copy",
          .kernel = "copy",
          .dtype = "bytes",
          .shape = {{"N", bytes}},
          .operands = {matrix<float>("to", Access::write, bytes / 4, 1), matrix<float>("from", Access::read, bytes / 4, 1)},
          .operations = 0,
          .bind = [bytes](Device& device, const Addresses& at) -> Call {
            return [stream = stream_of<Stream>(device), to = at.find("to"), from = at.find("from"), bytes] {
              copy(stream, to, from, static_cast<std::size_t>(bytes));
            };
          }};
}

}  // namespace

Case copy_case(DeviceKind kind, std::int64_t bytes) {
#ifdef LATHE_HAS_CUDA
  if (kind == DeviceKind::cuda) return copy_on<CudaStream>(bytes);
#endif
  static_cast<void>(kind);
  return copy_on<CpuStream>(bytes);
}

}  // namespace lathe::bench
