#include <utility>

#include "lathe/runtime/device_event.h"

namespace lathe {

DeviceEvent::DeviceEvent(DeviceRef device) : device_(std::move(device)) {}
DeviceEvent::~DeviceEvent() = default;
DeviceEvent::DeviceEvent(DeviceEvent&&) noexcept = default;
DeviceEvent& DeviceEvent::operator=(DeviceEvent&&) noexcept = default;
// NOLINTNEXTLINE(readability-convert-member-functions-to-static): with CUDA it does something
void DeviceEvent::record() {}

}  // namespace lathe
