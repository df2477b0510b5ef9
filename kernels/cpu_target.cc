#include "lathe/kernels/cpu_target.h"

#include <cpuid.h>

#include <stdexcept>

namespace lathe {
namespace {

/// clang 14's own test doesn't know it. Of the operating system it needs what AVX2 needs.
bool has_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & static_cast<unsigned>(bit_F16C)) != 0;
}

}  // namespace

CpuTarget best_cpu_target() {
  // The compiler's own test asks CPUID, and XGETBV for whether the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && has_f16c();
  if (!v3) throw std::runtime_error("this processor has no AVX2 and FMA (x86-64-v3), which Lathe's kernels need");
  return v4 ? CpuTarget::v4 : CpuTarget::v3;
}

std::string_view name(CpuTarget target) { return target == CpuTarget::v4 ? "x86-64-v4 (AVX-512)" : "x86-64-v3 (AVX2)"; }

}  // namespace lathe
