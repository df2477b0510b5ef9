#include "lathe/runtime/graph.h"

#include <utility>

#include "lathe/runtime/cuda_context.h"
#include "lathe/runtime/error.h"

namespace lathe {

StepMemory::StepMemory(DeviceRef device) : device_(std::move(device)) { device_->begin_step(); }
StepMemory::~StepMemory() { device_->end_step(); }

Graph::Graph(DeviceRef device, std::unique_ptr<CapturedWork> work) : device_(std::move(device)), work_(std::move(work)) {}
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&& other) noexcept {
  // In this order: the work that was here needs the device that was here.
  work_ = std::move(other.work_);
  device_ = std::move(other.device_);
  return *this;
}
Graph::~Graph() = default;

Graph Graph::capture(const DeviceRef& device, const std::function<void()>& work) { return {device, device->capture(work)}; }

void Graph::replay() const { work_->replay(); }

#ifdef LATHE_EMULATED
void Graph::expect_same_as(const Graph& again) const { work_->expect_same_as(*again.work_); }
#endif

}  // namespace lathe
