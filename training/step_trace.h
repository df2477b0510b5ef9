#pragma once
// What the ranks of a run do when, for people to look at: a Chrome trace (chrome://tracing, Perfetto) of some steps.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/timed_event.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/step.h"

namespace [[gnu::visibility("default")]] lathe {

/// What is to be added to a clock's times for rank 0's, from what both said at the same moments, and how far apart the quartiles of these distances are.
struct ClockOffset {
  double seconds = 0.0;
  double spread = 0.0;
};
ClockOffset clock_offset(std::span<const double> of_rank_0, std::span<const double> own);

/// Records the steps after the first, and evaluations. Each rank is a process of the trace, and has the streams "host", by the host's clock: what it
/// called, which on the CPU is what was done; "device", on a GPU, by events: what its stream of kernels did; and "communication": the buckets' sums,
/// by events of the communicator's stream on a GPU and by the clock on the CPU. Of an emulated device they are the times at which the host ran it.
///
/// Ranks on rank 0's machine have its clock. Other clocks are compared with it at the first recorded step and at the end, by barriers: what clocks
/// say when ranks leave one, of several the median distance (clock_offset); in between the distance is interpolated. What is left is how far apart
/// ranks leave a barrier.
class StepTrace {
 public:
  /// Of `steps` steps. `communicator`, where there is one, must outlive it.
  StepTrace(DeviceRef device, Communicator* communicator, std::int64_t steps);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;
  StepTrace(StepTrace&&) = delete;
  StepTrace& operator=(StepTrace&&) = delete;

  /// Before step `step`, from 0. All ranks call it with the same steps: the first recorded one waits for the device and for the others.
  void begin(std::int64_t step);
  /// After what `phase` says; StepPhase::updated ends the step.
  void reached(StepPhase phase);
  /// At both moments of a bucket of gradients, of so many bytes.
  void reached(std::size_t bucket, std::int64_t bytes, BucketMoment moment);
  /// An evaluation that began at `since` and ends now, with what is kept after it. The first few are recorded.
  void evaluated(std::chrono::steady_clock::time_point since);
  /// The trace as JSON, on rank 0; empty on the others. Collective. Waits for the device.
  std::string finish();

 private:
  using Clock = std::chrono::steady_clock;
  /// The clock of a rank beside rank 0's, at a time.
  struct Alignment {
    Clock::time_point at;
    ClockOffset offset;
  };
  struct Mark {
    std::int64_t step = 0;
    std::optional<StepPhase> phase;  ///< none where a step begins
    Clock::time_point host;
    std::optional<TimedEvent> device;
  };
  struct Bucket {
    std::int64_t step = 0;
    std::size_t number = 0;
    std::int64_t bytes = 0;
    TimedEvent begun, ended;
  };
  struct Evaluation {
    Clock::time_point begin, end;
  };
  struct Span;

  Alignment align() const;
  void mark(std::optional<StepPhase> phase);
  std::vector<Span> spans() const;
  std::string chrome_trace(const std::vector<std::vector<Span>>& ranks, const std::vector<std::string>& hosts,
                           double spread) const;

  DeviceRef device_;
  Communicator* communicator_;
  std::int64_t steps_;
  std::optional<std::int64_t> step_;  // that is being recorded
  std::optional<Alignment> first_;
  TimedEvent anchor_;  // an event whose time by the clock is known
  Clock::time_point anchored_{};
  std::vector<Mark> marks_;
  std::vector<Bucket> buckets_;
  std::vector<Evaluation> evaluations_;
};

}  // namespace lathe
