#include <utility>

#include "lathe/runtime/device_event.h"
#include "lathe/runtime/recorded_event.h"
#include "lathe/runtime/timed_event.h"

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

TimedEvent::TimedEvent(DeviceRef device) : device_(std::move(device)) {
  if (device_->kind() == DeviceKind::cuda) recording_ = std::make_shared<TimedRecording>();
}
TimedEvent::~TimedEvent() = default;
TimedEvent::TimedEvent(TimedEvent&&) noexcept = default;
TimedEvent& TimedEvent::operator=(TimedEvent&&) noexcept = default;

void TimedEvent::record() {
  if (recording_ == nullptr) {
    time_ = std::chrono::steady_clock::now();
  } else {
    check(cudaEventRecord(recording_->event.get(), device_->cuda_stream().handle));
  }
}

bool TimedEvent::passed() const {
  if (recording_ == nullptr) return true;
  const cudaError_t status = cudaEventQuery(recording_->event.get());
  if (status == cudaErrorNotReady) {
    static_cast<void>(cudaGetLastError());  // which remembers it, though it is no error
    return false;
  }
  check(status);
  return true;
}

void TimedEvent::wait() const {
  if (recording_ != nullptr) check(cudaEventSynchronize(recording_->event.get()));
}

double TimedEvent::seconds_since(const TimedEvent& earlier) const {
  if (recording_ == nullptr) return std::chrono::duration<double>(time_ - earlier.time_).count();
  float milliseconds = 0.0F;
  check(cudaEventElapsedTime(&milliseconds, earlier.recording_->event.get(), recording_->event.get()));
  return static_cast<double>(milliseconds) / 1e3;
}

}  // namespace lathe
