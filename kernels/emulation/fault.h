#pragma once
// What the emulation throws where a kernel, a launch or a copy does what a GPU would not forgive.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// What went wrong; docs/emulation.md has an example of each.
enum class FaultKind : std::uint8_t {
  barrier,         ///< __syncthreads() missed by a thread, or reached at different places
  warp,            ///< a warp's collective without one of its lanes, or at different places
  race,            ///< two threads at one place of memory, one writing, without a barrier between
  uninitialised,   ///< memory read that nothing has written
  out_of_bounds,   ///< outside of every allocation, or of the block's shared memory
  misaligned,      ///< a wide access at an address that isn't a multiple of its size
  async_copy,      ///< the destination of cp.async touched before the copy was waited for
  stream_order,    ///< what another stream's operation touches, without an event between
  pinned_reuse,    ///< the source of an asynchronous copy changed before the copy ran
  host_pointer,    ///< a kernel at an address that no GPU knows
  stale_argument,  ///< a graph replays an argument that has changed since its capture
  launch,          ///< a launch that a GPU refuses
  memory,          ///< freed twice, freed in use, leaked
};
std::string_view to_string(FaultKind kind);

/// "race: ...": one line that names the kernel, block, thread, address, allocation and source lines.
class Fault : public std::runtime_error {
 public:
  Fault(FaultKind kind, const std::string& message);
  FaultKind kind() const noexcept { return kind_; }

 private:
  FaultKind kind_;
};

}  // namespace emulation
}  // namespace lathe
