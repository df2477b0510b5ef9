#pragma once
// How the emulation runs what a GPU may run in any order.
#include <cstdint>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// The order of what has no order.
enum class Order : std::uint8_t { forward, reverse, random };

struct Settings {
  Order threads = Order::forward;  ///< of a block, between one barrier or warp collective and the next
  Order blocks = Order::forward;   ///< of a grid
  Order streams =
      Order::forward;      ///< of the operations at the heads of the queues, in the order in which their streams were made
  std::uint32_t seed = 1;  ///< of the random orders
  bool profile = false;    ///< whether accesses are counted (profile.h)
  /// Whether host code that touches device memory ends the process with a line that says so. It costs some 100 microseconds a wait for the
  /// device, which thousands of small launches notice.
  bool guard_host = true;
};

/// The settings of this process; they hold for what runs later. Not to be called while something runs.
const Settings& settings();
/// Changes them, and returns what they were.
Settings configure(const Settings& settings);

}  // namespace emulation
}  // namespace lathe
