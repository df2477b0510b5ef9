#pragma once
// A launch while it runs: its threads, warps and the state that accesses are judged by. Internal to kernels/emulation.
#include <array>
#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/kernels/emulation/fault.h"
#include "lathe/kernels/emulation/launch.h"
#include "lathe/kernels/emulation/settings.h"
#include "lathe/kernels/emulation/shadow.h"

namespace lathe::emulation {

class DeviceMemory;
class Profiler;

/// A launched kernel, as a queue or a graph keeps it.
struct Kernel {
  const void* function = nullptr;
  void (*enter)(const void* bound) = nullptr;
  std::shared_ptr<const std::byte> bound;
  std::size_t bound_bytes = 0;
  std::size_t argument_offset = 0;
  std::size_t argument_bytes = 0;
  Shape shape;
};

inline constexpr unsigned kWarpLanes = 32;

/// Where in the source threads do something together. They must all come to the same place; messages name the kernel's own line, which
/// is where `code` returns to.
struct Place {
  std::string_view what;
  std::source_location where;
  const void* code = nullptr;

  bool same(const Place& other) const;
  /// "a shuffle at kernels/layernorm.cu:87".
  std::string text() const;
};

struct Rendezvous;

/// Where a thread waits, and until when: until *generation is no longer `value`.
struct Wait {
  const std::uint64_t* generation = nullptr;
  std::uint64_t value = 0;
  Place place;
  const Rendezvous* meeting = nullptr;  ///< null where it's the block's barrier
};

/// A cp.async on its way; the data were read when it was issued.
struct AsyncCopy {
  std::byte* to;
  std::uint32_t code;
  std::uint8_t bytes;
  std::array<std::byte, 16> data;
};

struct Thread {
  boost::context::detail::fcontext_t context = nullptr;
  std::byte* stack = nullptr;
  cuda::uint3 index{};
  unsigned number = 0;  ///< in the block
  bool done = false;
  Wait wait;
  std::vector<std::vector<AsyncCopy>> groups;
  std::vector<AsyncCopy> open;
};

/// A meeting of the lanes of a mask. What they bring is kept for two meetings, since a lane may come to the next before another has taken
/// what the last one gave.
struct Rendezvous {
  static constexpr std::size_t kSlot = 48;
  using Slots = std::array<std::array<std::byte, kSlot>, kWarpLanes>;

  unsigned mask = 0;
  unsigned arrived = 0;
  std::uint64_t generation = 0;
  Place place;
  alignas(32) std::array<Slots, 2> slots{};
};

struct Warp {
  std::vector<std::unique_ptr<Rendezvous>> meetings;  ///< one a mask
  unsigned lanes = 0;                                 ///< that the warp has
  unsigned done = 0;
  // What __syncwarp orders since the block's last barrier.
  static constexpr std::uint32_t kTimeAtMost = (1U << 24U) - 1;
  std::uint32_t time = 1;     ///< rises with every __syncwarp of any mask
  std::uint32_t settled = 0;  ///< what any lane did up to then, all lanes know
  bool partial = false;       ///< whether `known` says more than `settled`
  /// known[a][b]: up to when lane a knows what lane b did.
  std::array<std::array<std::uint32_t, kWarpLanes>, kWarpLanes> known{};

  /// Whether lane a knows what lane b did at that time.
  bool knows(unsigned a, unsigned b, std::uint32_t when) const {
    return when <= settled || a == b || (partial && when <= known[a][b]);
  }
  /// The lanes of the mask have met.
  void join(unsigned mask);
  /// The block has met.
  void restart();
};

/// A range of addresses.
struct Range {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  bool contains(std::uintptr_t address) const { return address - begin < bytes; }
};

/// Which earlier operations are known to be ordered before the running one; the last few are remembered.
class Ordered {
 public:
  bool contains(const Access& before) {
    for (const Range& moments : known_) {
      if (moments.contains(before.serial)) return true;
    }
    return find(before);
  }

 private:
  bool find(const Access& before);

  std::array<Range, 4> known_{};
  unsigned next_ = 0;
};

/// The launch that this host thread runs. Null outside of kernels: nothing is watched then.
class Running {
 public:
  Running(const Kernel& kernel, Serial began, Profiler* profiler);
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  Running(Running&&) = delete;
  Running& operator=(Running&&) = delete;
  ~Running();

  /// Runs all blocks. Throws what a kernel's fault left.
  void run();

  const Kernel& kernel;
  Profiler* const profiler;
  DeviceMemory* const memory;
  const Serial began;  ///< of the operation
  Serial block_began = 0;
  Serial serial = 0;  ///< now
  unsigned threads;   ///< of a block
  cuda::uint3 block{};
  unsigned block_number = 0;
  std::uint32_t first_thread = 0;  ///< of the block, in the grid
  Thread* current = nullptr;
  Ordered ordered;
  Range arguments;
  Range dynamic_shared;
  Range static_shared;  ///< thread-local variables of the kernel's module
  std::vector<Warp> warps;

  unsigned lane() const { return current->number % kWarpLanes; }
  Warp& warp() { return warps[current->number / kWarpLanes]; }
  std::uint32_t thread() const { return first_thread + current->number; }

  /// Lets others run until *generation changes.
  void wait(const Wait& wait);
  /// Calls `work` on the stack of the host's thread, from a thread of the kernel.
  void call_on_host(const std::function<void()>& work);
  /// Ends the launch with a fault that names the kernel, the block and the thread before `message`.
  [[noreturn]] void fail(FaultKind kind, const std::string& message);
  /// A barrier that all threads of the block must reach.
  void sync_block(const Place& place);
  /// Brings data[0..bytes) to the meeting of the mask's lanes and returns what all brought, once they have. The last to come calls `last`
  /// with it, for all, if there is one.
  const Rendezvous::Slots& meet(unsigned mask, const void* data, std::size_t bytes, const Place& place,
                                void (*last)(Running& run, unsigned mask, Rendezvous::Slots& slots) = nullptr);

 private:
  void run_block();
  void start_threads();
  [[noreturn]] void run_thread();
  [[noreturn]] void report_deadlock();
  /// "thread (5, 0, 0), which has ended", "thread (5, 0, 0), which waits in ...".
  std::string standing(const Thread& thread) const;
  /// Why a meeting will never take place: names the first lane that is missing.
  std::string missing(unsigned warp, unsigned lanes) const;
  static void enter(boost::context::detail::transfer_t from);

  std::optional<Fault> fault_;
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  unsigned live_ = 0;
  std::uint64_t barrier_generation_ = 0;
  unsigned barrier_arrived_ = 0;
  Place barrier_place_;
};

extern constinit thread_local Running* running;

/// Calls `work` where the stack is deep enough for any library: a kernel's threads have little.
void on_deep_stack(const std::function<void()>& work);

/// "layernorm_forward_kernel, block (3, 0, 0), thread (17, 0, 0)".
std::string place_of(const Running& run, std::uint32_t thread);
/// Stacks of the threads of a block, kept from launch to launch; each ends at a page that can't be touched.
std::vector<Thread>& thread_pool(std::size_t count);
inline constexpr std::size_t kStackBytes = std::size_t{64} << 10U;

/// The next moment.
Serial next_serial();

}  // namespace lathe::emulation
