#pragma once
// What the host is at, by name, for Nsight Systems (NVTX). Without a profiler a range costs a test of a pointer; in builds without CUDA, and
// emulated, nothing.
#if defined(LATHE_HAS_CUDA) && !defined(LATHE_EMULATED)
#include <nvtx3/nvToolsExt.h>
#endif

namespace lathe::device {

/// A range of the calling thread, from its construction to its end. Ranges nest. `name` outlives it.
class Range {
 public:
#if defined(LATHE_HAS_CUDA) && !defined(LATHE_EMULATED)
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
#else
  explicit Range(const char*) {}
  ~Range() {}  // NOLINT(modernize-use-equals-default): it keeps a range from being an unused variable
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  Range(Range&&) = delete;
  Range& operator=(Range&&) = delete;
};

}  // namespace lathe::device
