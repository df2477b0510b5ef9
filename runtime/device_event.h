#pragma once
// A moment of a device's stream, for other streams to wait for.
#include <memory>

#include "lathe/runtime/device.h"

namespace [[gnu::visibility("default")]] lathe {

struct RecordedEvent;  // internal to runtime/

/// On a CUDA device an event; on the CPU, where all is done when it is called, nothing.
class DeviceEvent {
 public:
  explicit DeviceEvent(DeviceRef device);
  ~DeviceEvent();
  DeviceEvent(DeviceEvent&&) noexcept;
  DeviceEvent& operator=(DeviceEvent&&) noexcept;
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;

  /// From now on it is the moment when all that the device's stream has been given is done. While the device captures a graph
  /// (runtime/graph.h), it becomes part of the graph: each replay records it anew, at the same place between the kernels, and who waits for it
  /// after the replay was enqueued waits for that place of that replay.
  void record();
  const DeviceRef& device() const noexcept { return device_; }
  /// What it is to CUDA; null on the CPU.
  const RecordedEvent* recorded() const noexcept { return event_.get(); }

 private:
  DeviceRef device_;
  std::shared_ptr<RecordedEvent> event_;
};

}  // namespace lathe
