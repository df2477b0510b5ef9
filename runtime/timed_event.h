#pragma once
// When a moment of a stream was.
#include <chrono>
#include <memory>

#include "lathe/runtime/device.h"

namespace [[gnu::visibility("default")]] lathe {

struct TimedRecording;  // internal to runtime/

/// A moment whose distance from others can be asked for: an event with a time on a CUDA device, the clock on the CPU, where all is done when it is
/// called. An emulated device's times are the host's, of when it ran what came before.
class TimedEvent {
 public:
  explicit TimedEvent(DeviceRef device);
  ~TimedEvent();
  TimedEvent(TimedEvent&&) noexcept;
  TimedEvent& operator=(TimedEvent&&) noexcept;
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  /// From now on it is the moment when all that the device's stream has been given is done. Not for graphs that are being captured.
  void record();
  /// Whether that moment has come; waits for nothing.
  bool passed() const;
  /// Returns when it has come.
  void wait() const;
  /// Seconds from `earlier` to this. Both must have passed. A GPU gives milliseconds in single precision, about 1e-7 of the distance.
  double seconds_since(const TimedEvent& earlier) const;
  /// What it is to CUDA; null on the CPU.
  const TimedRecording* recording() const noexcept { return recording_.get(); }

 private:
  DeviceRef device_;
  std::chrono::steady_clock::time_point time_{};  // on the CPU
  std::shared_ptr<TimedRecording> recording_;
};

}  // namespace lathe
