#pragma once
// When what a device does was done.
#include <chrono>
#include <memory>
#include <vector>

#include "lathe/runtime/device.h"

namespace lathe::bench {

/// Marks among what is enqueued on a device: events on a GPU's stream, which nobody waits for until the times are asked for; the clock on the
/// CPU, where what was called is done.
class Timeline {
 public:
  explicit Timeline(DeviceRef device);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;
  Timeline(Timeline&&) = delete;
  Timeline& operator=(Timeline&&) = delete;

  void mark();
  /// Seconds from the first mark to each, by the device: between two marks lies what was enqueued between them, and what the device waited for
  /// it. Waits for the device.
  std::vector<double> seconds() const;
  /// The same by the host's clock: when the host came by.
  std::vector<double> host_seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  class Events;
  DeviceRef device_;
  std::vector<Clock::time_point> host_;
  std::unique_ptr<Events> events_;  // null on the CPU
};

}  // namespace lathe::bench
