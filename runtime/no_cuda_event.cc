#include <utility>

#include "lathe/runtime/device_event.h"
#include "lathe/runtime/timed_event.h"

namespace lathe {

DeviceEvent::DeviceEvent(DeviceRef device) : device_(std::move(device)) {}
DeviceEvent::~DeviceEvent() = default;
DeviceEvent::DeviceEvent(DeviceEvent&&) noexcept = default;
DeviceEvent& DeviceEvent::operator=(DeviceEvent&&) noexcept = default;
// NOLINTNEXTLINE(readability-convert-member-functions-to-static): with CUDA it does something
void DeviceEvent::record() {}

TimedEvent::TimedEvent(DeviceRef device) : device_(std::move(device)) {}
TimedEvent::~TimedEvent() = default;
TimedEvent::TimedEvent(TimedEvent&&) noexcept = default;
TimedEvent& TimedEvent::operator=(TimedEvent&&) noexcept = default;
void TimedEvent::record() { time_ = std::chrono::steady_clock::now(); }
// NOLINTBEGIN(readability-convert-member-functions-to-static): with CUDA they ask the device
bool TimedEvent::passed() const { return true; }
void TimedEvent::wait() const {}
// NOLINTEND(readability-convert-member-functions-to-static)
double TimedEvent::seconds_since(const TimedEvent& earlier) const {
  return std::chrono::duration<double>(time_ - earlier.time_).count();
}

}  // namespace lathe
