#pragma once
// The few types that every kernel contract shares.
#include <cstddef>
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

/// Element types of tensors. bf16 joins with the CUDA kernels.
enum class DType : std::uint8_t { f32, f64, i32 };

/// Bytes of one element.
constexpr std::int64_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

/// The type in which a kernel for elements of T sums and keeps statistics: fp32 for fp32 (and for bf16, later), fp64 for fp64.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

/// What a backward kernel does with one gradient that it can compute: nothing, overwrite the destination, or add to it.
enum class Use : std::uint8_t { skip, write, add };

}  // namespace lathe
