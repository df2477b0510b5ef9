#include <utility>

#include "lathe/runtime/device_event.h"
#include "lathe/runtime/recorded_event.h"

namespace lathe {

DeviceEvent::DeviceEvent(DeviceRef device) : device_(std::move(device)) {
  if (device_->kind() == DeviceKind::cuda) event_ = std::make_shared<RecordedEvent>();
}
DeviceEvent::~DeviceEvent() = default;
DeviceEvent::DeviceEvent(DeviceEvent&&) noexcept = default;
DeviceEvent& DeviceEvent::operator=(DeviceEvent&&) noexcept = default;

void DeviceEvent::record() {
  if (event_ == nullptr) return;
  cudaStream_t stream = device_->cuda_stream().handle;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status));
  // Any other event of a capture is known within the graph alone.
  check(cudaEventRecordWithFlags(event_->event.get(), stream,
                                 status == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal));
}

}  // namespace lathe
