#pragma once
// What the emulation remembers of each two bytes of device and shared memory: the last write and the reads since. Internal to
// kernels/emulation.
#include <cstdint>

namespace lathe::emulation {

/// A moment: numbers rise with every operation of the device, every block and every barrier of a block, so that two accesses of one block
/// with different numbers have a barrier between them. 0 is before everything.
using Serial = std::uint32_t;

/// Who made an access: one thread, several lanes of its warp, several threads of its block, or threads of several blocks. Only reads
/// and atomic operations are of several.
enum class Scope : std::uint8_t { thread, warp, block, grid };

/// No thread: a copy or a host operation.
inline constexpr std::uint32_t kNoThread = 0xFFFFFFFFU;

struct Access {
  Serial serial;
  std::uint32_t thread;      ///< block * threads of a block + thread; the last one where there are several
  std::uint32_t code;        ///< lower half of the return address
  std::uint32_t lanes;       ///< of the thread's warp, where the scope is a warp
  std::uint32_t time : 24;   ///< of the thread's warp (Warp::time)
  std::uint32_t bytes : 2;   ///< mask of the two
  std::uint32_t scope : 2;   ///< Scope
  std::uint32_t atomic : 1;  ///< whether a write is one
};
static_assert(sizeof(Access) == 20);

struct Cell {
  Access write;
  Access read;
};

/// State bits that a cell keeps beside, in an array of their own: they outlive operations.
enum CellState : std::uint8_t {
  kInitialised = 3,  ///< mask of the two bytes that something has written
  kAllocated = 4,
  kInFlight = 8,  ///< destination of a cp.async that nobody has waited for
};

}  // namespace lathe::emulation
