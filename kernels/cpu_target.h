#pragma once
// Which instruction set the CPU kernels use on this machine.
#include <string_view>

#include "lathe/kernels/stream.h"

namespace [[gnu::visibility("default")]] lathe {

/// The best target that this processor and operating system can run. Throws std::runtime_error where not even v3 (AVX2, FMA,
/// F16C, BMI2) is there, so that nothing ever ends in SIGILL.
CpuTarget best_cpu_target();

/// "x86-64-v3 (AVX2)" or "x86-64-v4 (AVX-512)".
std::string_view name(CpuTarget target);

}  // namespace lathe
