#pragma once
// Asynchronous copies from global to shared memory (cp.async, sm_80 and later). A thread's copies land when it has waited for their
// group; other threads see them after a barrier that follows.
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/shared.cuh"

namespace lathe::device {

/// Starts to copy kBytes bytes (4, 8 or 16), to and from addresses that are multiples of it. Where `present` is false nothing is read, and
/// zeroes are written.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool present = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#ifdef LATHE_EMULATED
  emulation::copy_async(shared, global, kBytes, present ? kBytes : 0);
#else
  const int read = present ? kBytes : 0;
  if constexpr (kBytes == 16) {  // past the first-level cache: nobody reads it there
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(read)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global), "n"(kBytes),
                 "r"(read)
                 : "memory");
  }
#endif
}

/// Ends a group: the thread's copies since the last one.
__device__ __forceinline__ void cp_async_commit() {
#ifdef LATHE_EMULATED
  emulation::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most kPending of the thread's groups, the latest, are on their way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
#ifdef LATHE_EMULATED
  emulation::copy_async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace lathe::device
