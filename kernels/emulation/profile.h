#pragma once
// What a hardware profiler would count, counted without a GPU: the traffic that a kernel asks for. docs/emulation.md defines each number.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// Accesses to global memory, of one line or of one tensor. A warp access is what the lanes of a warp do at one place in the code for the same
/// time; it asks for bytes, and touches 32-byte sectors.
struct GlobalTraffic {
  std::int64_t warp_accesses = 0;
  std::int64_t read_bytes = 0;     ///< asked for by the lanes, each by itself
  std::int64_t written_bytes = 0;  ///< likewise
  std::int64_t used_bytes = 0;     ///< of the sectors touched: bytes that some lane asked for, each counted once a warp access
  std::int64_t sectors = 0;
  std::int64_t atomics = 0;  ///< by lanes
  int widest = 0;            ///< bytes of the widest access of a lane
  int narrowest = 0;
};

/// Accesses to shared memory. A wavefront serves each of the 32 banks once; an access of 4 bytes a lane needs one, of 16 bytes four.
struct SharedTraffic {
  std::int64_t warp_accesses = 0;
  std::int64_t bytes = 0;
  std::int64_t wavefronts = 0;
  std::int64_t ideal_wavefronts = 0;  ///< what the bytes need without a conflict
};

struct LineProfile {
  GlobalTraffic global;
  SharedTraffic shared;
  std::int64_t mma = 0;       ///< warp-wide m16n8k16
  std::int64_t barriers = 0;  ///< of blocks
};

struct KernelProfile {
  std::string kernel;
  std::int64_t launches = 0;
  std::int64_t blocks = 0;
  std::map<std::string, GlobalTraffic> tensors;  ///< by the name given with name_memory()
  std::map<std::string, LineProfile> lines;      ///< "kernels/gelu.cu:41"
};

/// What was counted since the settings asked for it (Settings::profile), kernel by kernel in order of their first launch; the count begins
/// anew.
std::vector<KernelProfile> take_profile();

}  // namespace emulation
}  // namespace lathe
