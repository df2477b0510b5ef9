#pragma once
// Between the element types: working copies of weights, activations for a loss in fp32.
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// y[i] = x[i] as To: fp32 to bf16 rounds to nearest, ties to even, and NaN stays NaN; bf16 to fp32 is exact. y and x are different
/// memory. Deterministic. To and From are float and Bf16, or Bf16 and float.
template <class To, class From>
struct Cast {
  To* y;
  const From* x;
  std::int64_t count;
};

template <class To, class From>
void cast(CpuStream stream, const Cast<To, From>& args);
template <class To, class From>
void cast(CudaStream stream, const Cast<To, From>& args);

}  // namespace lathe
