#pragma once
// A stream says where a kernel runs; its type picks the backend by overload.
#include <cstdint>

#ifndef LATHE_EMULATED
struct CUstream_st;  // CUDA's own name
#endif

namespace [[gnu::visibility("default")]] lathe {

class MatmulPlans;
class CudaMatmulPlans;

/// Instruction sets that the CPU kernels are compiled for, named after the x86-64 micro-architecture levels: v3 has AVX2 and FMA,
/// v4 AVX-512 (F, BW, CD, DQ, VL).
enum class CpuTarget : std::uint8_t { v3, v4 };

/// What becomes of what a stream is told to do. In a rehearsal of sizes nothing of it is done: arguments are checked and workspaces have their size, and
/// pointers point at nothing (Device::rehearsal).
enum class Work : std::uint8_t { done, rehearsed };

/// Runs a kernel on the calling thread and `threads - 1` others, and returns when it is done.
struct CpuStream {
  int threads = 1;
  CpuTarget target = CpuTarget::v3;
  /// Prepared matrix products, reused from call to call; borrowed. Without it each product is prepared anew.
  MatmulPlans* plans = nullptr;
  Work work = Work::done;
};

#ifdef LATHE_EMULATED
namespace emulation {
class Stream;
}
/// What a cudaStream_t is: CUDA's own type, or the emulation's.
using CudaStreamHandle = emulation::Stream*;
// What is compiled for the emulation names another type, so that it is never linked with what is compiled for a GPU.
inline namespace emulated {
#else
/// What a cudaStream_t is: CUDA's own type, or the emulation's.
using CudaStreamHandle = CUstream_st*;
#endif

/// Enqueues a kernel on a CUDA stream of the current device and returns at once. What the kernel reads and writes is device memory, and
/// stays until it has run.
struct CudaStream {
  CudaStreamHandle handle = nullptr;
  /// Which algorithm computes which matrix product (kernels/matmul_cuda_plans.h); borrowed. Products need it.
  CudaMatmulPlans* plans = nullptr;
  Work work = Work::done;
};

#ifdef LATHE_EMULATED
}  // namespace emulated
#endif

}  // namespace lathe
