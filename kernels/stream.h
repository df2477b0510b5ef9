#pragma once
// A stream says where a kernel runs; its type picks the backend by overload.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {

class MatmulPlans;

/// Instruction sets that the CPU kernels are compiled for, named after the x86-64 micro-architecture levels: v3 has AVX2 and FMA,
/// v4 AVX-512 (F, BW, CD, DQ, VL).
enum class CpuTarget : std::uint8_t { v3, v4 };

/// Runs a kernel on the calling thread and `threads - 1` others, and returns when it is done.
struct CpuStream {
  int threads = 1;
  CpuTarget target = CpuTarget::v3;
  /// Prepared matrix products, reused from call to call; borrowed. Without it each product is prepared anew.
  MatmulPlans* plans = nullptr;
};

}  // namespace lathe
