#pragma once
// Shared memory: the dynamic one, and addresses within either.
#include <cstdint>

#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

/// The block's dynamic shared memory, of LaunchShape::shared_bytes, aligned to 128 bytes. The same for every T.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef LATHE_EMULATED
  return static_cast<T*>(emulation::dynamic_shared());
#else
  extern __shared__ __align__(128) unsigned char lathe_dynamic_shared[];
  return reinterpret_cast<T*>(lathe_dynamic_shared);
#endif
}

#ifndef LATHE_EMULATED
/// The address as instructions on shared memory take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

}  // namespace lathe::device
