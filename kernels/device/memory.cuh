#pragma once
// Loads and stores of several elements at once. Kernels move anything wider than 4 bytes through these: one instruction on the
// device, and one access to the emulation, which sees what a compiler makes of the source.
#include <cstdint>

#include "lathe/kernels/device/language.cuh"

namespace lathe {

/// N elements that travel together, aligned to their size: 2, 4, 8 or 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  static_assert(sizeof(T) * N == 2 || sizeof(T) * N == 4 || sizeof(T) * N == 8 || sizeof(T) * N == 16);
  T value[N];

  __host__ __device__ T& operator[](int i) { return value[i]; }
  __host__ __device__ const T& operator[](int i) const { return value[i]; }
};

namespace device {

/// How long loaded data will be of use. once: it needn't stay in the first-level cache (a stream of activations); again: other threads
/// or other rows read it (a parameter).
enum class Reuse : std::uint8_t { once, again };

/// Elements of T in the 16 bytes that one access moves.
template <class T>
inline constexpr int kWidest = static_cast<int>(16 / sizeof(T));

/// value[0..N) of global or shared memory, which must be aligned to N * sizeof(T) bytes. Not through the read-only cache, so that the
/// memory may be overwritten by the same kernel.
template <int N, Reuse kReuse = Reuse::again, class T>
__device__ __forceinline__ Vector<T, N> load(const T* from) {
  Vector<T, N> result;
#ifdef LATHE_EMULATED
  emulation::load(&result, from, sizeof(result));
#else
  if constexpr (kReuse == Reuse::once && sizeof(result) == 16) {
    auto& words = reinterpret_cast<uint4&>(result);
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "l"(__cvta_generic_to_global(from))
                 : "memory");
  } else {
    result = *reinterpret_cast<const Vector<T, N>*>(from);
  }
#endif
  return result;
}

/// Puts value[0..N) there; aligned as for load.
template <int N, class T>
__device__ __forceinline__ void store(T* to, const Vector<T, N>& values) {
#ifdef LATHE_EMULATED
  emulation::store(to, &values, sizeof(values));
#else
  *reinterpret_cast<Vector<T, N>*>(to) = values;
#endif
}

/// store() to global memory. The compiler makes four instructions of some 16-byte stores behind branches; never of these.
template <int N, class T>
__device__ __forceinline__ void store_global(T* to, const Vector<T, N>& values) {
#ifndef LATHE_EMULATED
  if constexpr (sizeof(values) == 16) {
    const auto& words = reinterpret_cast<const uint4&>(values);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(words.x), "r"(words.y),
                 "r"(words.z), "r"(words.w)
                 : "memory");
    return;
  }
#endif
  store(to, values);
}

}  // namespace device
}  // namespace lathe
