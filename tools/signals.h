#pragma once
// Ending a run by SIGINT or SIGTERM.
#include <atomic>

namespace lathe {

/// From now on the first SIGINT or SIGTERM puts its number into the result, and a second ends the process at once.
const std::atomic<int>& watch_stop_signals();

}  // namespace lathe
