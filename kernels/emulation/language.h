#pragma once
// The part of CUDA's language and runtime that kernel files use, for a host compiler: a .cu file compiled as C++ after this header runs
// in the emulation (docs/emulation.md). Only such files include it, so that the macros and the names at global scope stay theirs.
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>

#include "lathe/kernels/emulation/collective.h"
#include "lathe/kernels/emulation/launch.h"
#include "lathe/kernels/emulation/memory_access.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/vector_types.h"

// NOLINTBEGIN(bugprone-reserved-identifier,cppcoreguidelines-macro-usage,readability-identifier-naming): CUDA's own names
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time on a host thread: its static shared memory is that thread's own.
#define __shared__ static thread_local

#define threadIdx (::lathe::emulation::thread_index())
#define blockIdx (::lathe::emulation::block_index())
#define blockDim (::lathe::emulation::block_dimensions())
#define gridDim (::lathe::emulation::grid_dimensions())

using namespace lathe::emulation::cuda;  // NOLINT(google-build-using-namespace): what CUDA has at global scope

/// A barrier of the block; what threads wrote before it, all see after it.
__forceinline__ void __syncthreads(std::source_location where = std::source_location::current()) {
  lathe::emulation::sync_block(where);
}

/// A barrier of the lanes of `mask`, with the same promise for them.
__forceinline__ void __syncwarp(unsigned mask = 0xFFFFFFFFU, std::source_location where = std::source_location::current()) {
  lathe::emulation::sync_warp(mask, where);
}

/// Nothing here is delayed or reordered; what other threads may rely on is decided by barriers alone.
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                              std::source_location where = std::source_location::current()) {
  return lathe::emulation::shuffle(mask, value, {lathe::emulation::Shuffle::index, lane, width, where});
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                                  std::source_location where = std::source_location::current()) {
  return lathe::emulation::shuffle(mask, value, {lathe::emulation::Shuffle::exclusive_or, lane_mask, width, where});
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 std::source_location where = std::source_location::current()) {
  return lathe::emulation::shuffle(mask, value, {lathe::emulation::Shuffle::up, static_cast<int>(delta), width, where});
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                   std::source_location where = std::source_location::current()) {
  return lathe::emulation::shuffle(mask, value, {lathe::emulation::Shuffle::down, static_cast<int>(delta), width, where});
}
__forceinline__ unsigned __ballot_sync(unsigned mask, bool predicate,
                                       std::source_location where = std::source_location::current()) {
  return lathe::emulation::ballot(mask, predicate, where);
}
__forceinline__ bool __any_sync(unsigned mask, bool predicate, std::source_location where = std::source_location::current()) {
  return lathe::emulation::ballot(mask, predicate, where) != 0;
}
__forceinline__ bool __all_sync(unsigned mask, bool predicate, std::source_location where = std::source_location::current()) {
  return lathe::emulation::ballot(mask, predicate, where) == mask;
}

// For the types that CUDA has them for; long is none of them, on any system.
template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);

template <OneOf<int, unsigned, unsigned long long, float, double> T>
__forceinline__ T atomicAdd(T* address, std::type_identity_t<T> value) {
  return lathe::emulation::atomic(address, [value](T old) { return static_cast<T>(old + value); });
}
template <OneOf<int, unsigned, long long, unsigned long long> T>
__forceinline__ T atomicMax(T* address, std::type_identity_t<T> value) {
  return lathe::emulation::atomic(address, [value](T old) { return old < value ? value : old; });
}
template <OneOf<int, unsigned, long long, unsigned long long> T>
__forceinline__ T atomicMin(T* address, std::type_identity_t<T> value) {
  return lathe::emulation::atomic(address, [value](T old) { return value < old ? value : old; });
}
template <OneOf<int, unsigned, unsigned long long, float> T>
__forceinline__ T atomicExch(T* address, std::type_identity_t<T> value) {
  return lathe::emulation::atomic(address, [value](T) { return value; });
}
template <OneOf<int, unsigned, unsigned long long> T>
__forceinline__ T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return lathe::emulation::atomic(address, [compare, value](T old) { return old == compare ? value : old; });
}

inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0F / x; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(std::uint64_t{x} * y >> 32U); }
// NOLINTEND(bugprone-reserved-identifier,cppcoreguidelines-macro-usage,readability-identifier-naming)

template <class T>
constexpr T min(T a, std::type_identity_t<T> b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, std::type_identity_t<T> b) {
  return a < b ? b : a;
}
