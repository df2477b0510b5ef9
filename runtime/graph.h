#pragma once
// What a CUDA device does in a step, captured once and replayed: its graph, and the memory whose addresses the graph holds.
#include <cstdint>
#include <functional>
#include <memory>

#include "lathe/runtime/device.h"

namespace [[gnu::visibility("default")]] lathe {

class CapturedWork;

/// Whether a CUDA device captures what it does again and again, and replays it, or is told of each kernel anew. The CPU is told anew.
enum class Replay : std::uint8_t { graphs, off };

/// While one lives, what its device allocates comes from a region of its own, apart from what lives longer (weights, an optimizer's state).
/// Freed blocks of the region are used again, the lowest that fits first, and its pieces stay until the device goes: a step that allocates
/// as the step before gets the same addresses, and no tensor that is made elsewhere ever gets one that a captured step uses. All steps share
/// the region, so that it is as large as the largest of them needs: what a step leaves behind has to be in tensors made elsewhere. On the CPU,
/// where nothing is captured, it changes nothing. One at a time for a device: throws LogicError for a second.
class StepMemory {
 public:
  explicit StepMemory(DeviceRef device);
  ~StepMemory();
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;
  StepMemory(StepMemory&&) = delete;
  StepMemory& operator=(StepMemory&&) = delete;

 private:
  DeviceRef device_;
};

/// Work on a device's stream that is enqueued as one piece. It holds the addresses and the values that kernels were called with: whatever varies
/// from replay to replay has to be in device memory.
class Graph {
 public:
  /// Calls `work`, and keeps what it enqueues instead of running it. Nothing may be uploaded or downloaded in it, and nothing waited for:
  /// that throws LogicError, as does a device that is a CPU.
  static Graph capture(const DeviceRef& device, const std::function<void()>& work);

  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();

  /// Enqueues the work once more, after all that was enqueued before.
  void replay() const;
#ifdef LATHE_EMULATED
  /// Throws the emulation's Fault unless `again`, captured from the same functions later, calls the same kernels with the same values: what
  /// differs would be stale in a replay.
  void expect_same_as(const Graph& again) const;
#endif

 private:
  Graph(DeviceRef device, std::unique_ptr<CapturedWork> work);

  DeviceRef device_;  // outlives the work
  std::unique_ptr<CapturedWork> work_;
};

}  // namespace lathe
