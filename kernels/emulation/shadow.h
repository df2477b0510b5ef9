#pragma once
// What the emulation remembers of each two bytes of device and shared memory: the last write and the reads since. Internal to
// kernels/emulation.
#include <cstdint>

namespace lathe::emulation {

/// A moment: numbers rise with every operation of the device, every block and every barrier of a block, so that two accesses of one block
/// with different numbers have a barrier between them. 0 is before everything.
using Serial = std::uint32_t;

/// Who is meant by an access's thread: that thread alone, or several of its warp, its block, its grid (for reads).
enum class Scope : std::uint8_t { thread, warp, block, grid };

/// No thread: a copy or a host operation.
inline constexpr std::uint32_t kNoThread = 0xFFFFFFFFU;

struct Access {
  Serial serial;
  std::uint32_t thread;  ///< block * threads of a block + thread
  std::uint32_t code;    ///< lower half of the return address
  std::uint16_t clock;   ///< of the thread's lane: what the warp's barriers order
  std::uint8_t bytes;    ///< mask of the two
  Scope scope : 4;
  std::uint8_t atomic : 4;
};
static_assert(sizeof(Access) == 16);

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
