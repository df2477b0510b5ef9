#pragma once
#include <cstdint>

#include <lathe/kernels/stream.h>

namespace consumer {

/// y[0..count) = factor * x[0..count).
struct Scale {
  float* y;
  const float* x;
  std::int64_t count;
  float factor;
};
void scale(lathe::CudaStream stream, const Scale& args);

}  // namespace consumer
