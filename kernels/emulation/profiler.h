#pragma once
// The counting behind profile.h. Internal to kernels/emulation.
#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/profile.h"
#include "lathe/kernels/emulation/running.h"

namespace lathe::emulation {

/// Gathers the accesses of lanes into those of warps, for one launch.
class Profiler {
 public:
  enum class Memory : std::uint8_t { global, shared };

  explicit Profiler(const Kernel& kernel);

  void count(Memory memory, std::uintptr_t address, std::size_t bytes, AccessKind kind, const void* code);
  void count_mma(const void* code);
  void count_barrier(const void* code);
  /// What lanes had no company for is counted now.
  void end_block();

 private:
  struct LaneAccess {
    std::uintptr_t address;
    std::uint32_t bytes;
    std::uint32_t lane;
  };
  /// The n-th time that a warp comes to a place.
  struct WarpAccess {
    std::vector<LaneAccess> lanes;
    Memory memory;
    AccessKind kind;
  };
  struct Site {
    std::uint32_t code;
    std::vector<std::uint32_t> times;                                       ///< by thread of the block
    std::vector<std::unordered_map<std::uint32_t, WarpAccess>> unfinished;  ///< by warp: by time
  };

  void finish(const Site& site, const WarpAccess& access);
  LineProfile& line(std::uint32_t code);

  KernelProfile& profile_;
  unsigned threads_;
  std::unordered_map<std::uint64_t, Site> sites_;
  std::unordered_map<std::uint32_t, LineProfile*> lines_;
};

}  // namespace lathe::emulation
