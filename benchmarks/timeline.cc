#include "benchmarks/timeline.h"

#include <utility>
#ifdef LATHE_HAS_CUDA
#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/runtime_api.h"
#endif

namespace lathe::bench {

#ifdef LATHE_HAS_CUDA
/// Events of a stream, in the order in which they were recorded.
class Timeline::Events {
 public:
  explicit Events(cudaStream_t stream) : stream_(stream) {}
  ~Events() {
    for (const cudaEvent_t event : events_) static_cast<void>(cudaEventDestroy(event));
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  Events(Events&&) = delete;
  Events& operator=(Events&&) = delete;

  void record() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDefault));
    events_.push_back(event);
    check(cudaEventRecord(event, stream_));
  }
  std::vector<double> seconds() const {
    std::vector<double> seconds;
    if (!events_.empty()) check(cudaEventSynchronize(events_.back()));
    double sum = 0.0;
    // Summed, since single precision counts milliseconds.
    for (std::size_t i = 0; i < events_.size(); ++i) {
      float milliseconds = 0.0F;
      if (i > 0) check(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]));
      seconds.push_back(sum += static_cast<double>(milliseconds) / 1e3);
    }
    return seconds;
  }

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
};
#else
/// No device of this build has events.
class Timeline::Events {
 public:
  void record() {}
  static std::vector<double> seconds() { return {}; }
};
#endif

Timeline::Timeline(DeviceRef device) : device_(std::move(device)) {
#ifdef LATHE_HAS_CUDA
  if (device_->kind() == DeviceKind::cuda) events_ = std::make_unique<Events>(device_->cuda_stream().handle);
#endif
}
Timeline::~Timeline() = default;

void Timeline::mark() {
  if (events_) events_->record();
  host_.push_back(Clock::now());
}

std::vector<double> Timeline::seconds() const { return events_ ? events_->seconds() : host_seconds(); }

std::vector<double> Timeline::host_seconds() const {
  std::vector<double> seconds;
  for (const Clock::time_point at : host_) seconds.push_back(std::chrono::duration<double>(at - host_.front()).count());
  return seconds;
}

}  // namespace lathe::bench
