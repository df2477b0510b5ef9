#pragma once
// How the emulation runs what a GPU may run in any order.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// The order of what has no order.
enum class Order : std::uint8_t { forward, reverse, random };

/// What the runtime tells of the machine, so that a program can be tried where there is no GPU that it could use.
struct Machine {
  int driver = 13000;  ///< the newest CUDA that it serves, 1000 * major + 10 * minor; 0: none
  int gpus = 1;        ///< of which only the first can be used
  int major = 8;       ///< compute capability
};

struct Settings {
  Order threads = Order::forward;  ///< of a block, between one barrier or warp collective and the next
  Order blocks = Order::forward;   ///< of a grid
  Order streams =
      Order::forward;      ///< of the operations at the heads of the queues, in the order in which their streams were made
  std::uint32_t seed = 1;  ///< of the random orders
  bool profile = false;    ///< whether accesses are counted (profile.h)
  bool trace = false;      ///< whether it is noted what runs when (trace.h)
  /// Whether host code that touches device memory ends the process with a line that says so. It costs some 100 microseconds a wait for the
  /// device, which thousands of small launches notice.
  bool guard_host = true;
  Machine machine = {};
};

/// The settings of this process; they hold for what runs later. Not to be called while something runs.
const Settings& settings();
/// Changes them, and returns what they were.
Settings configure(const Settings& settings);

}  // namespace emulation
}  // namespace lathe
