#pragma once
// What the parts of training steps take, on all ranks, without a step waiting for a clock.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/timed_event.h"
#include "lathe/training/step.h"

namespace [[gnu::visibility("default")]] lathe {

/// Seconds of some steps, by what they were spent on; of several ranks the mean. On a GPU those that its stream of kernels spent, waiting included.
struct StepSeconds {
  double data = 0.0;           ///< packing and uploading; on a GPU what it waited for the host to pack
  double compute = 0.0;        ///< forward and backward, and capturing a graph
  double communication = 0.0;  ///< exposed: from the last gradient to the last sum over the ranks
  double optimizer = 0.0;      ///< norm, clipping, update
  double other = 0.0;          ///< logging, and what ranks agree on; the rest of the wall time
  /// Of communication, what a rank waited on average for the slowest one of each step: the most of data and compute over the ranks, less their
  /// mean. The rest is the sums' own.
  double waiting = 0.0;
  int ranks = 1;

  double total() const noexcept { return data + compute + communication + optimizer + other; }
  /// By how much the slowest rank of each step exceeds the mean, until its gradients are there: 0 where all are as fast.
  double imbalance() const noexcept { return data + compute > 0.0 ? waiting / (data + compute) : 0.0; }
  StepSeconds& operator+=(const StepSeconds& more) noexcept;
};

/// What a rank measured of some steps.
struct RankSteps {
  static constexpr std::size_t kCompared = 64;
  StepSeconds seconds;     ///< of the steps, of this rank alone
  std::int64_t steps = 0;  ///< how many; the same on all ranks
  /// Data and compute of the last of them, by number modulo kCompared; NaN where they aren't known.
  std::array<double, kCompared> work = {};
};

/// The mean over ranks, and what they waited for each other: that of the compared steps stands for all.
StepSeconds mean_over_ranks(std::span<const RankSteps> ranks);

/// Takes the time of steps: by the clock on the CPU, by events on a GPU, whose times are read when they have passed. A step that is measured waits for
/// nothing, and allocates nothing after the first few.
class StepTimes {
 public:
  explicit StepTimes(DeviceRef device);

  /// Before a step's first call.
  void begin();
  /// After what `phase` says; StepPhase::updated ends the step.
  void reached(StepPhase phase);
  /// The steps since the last call, which took `elapsed` seconds of wall time, all of which the device must have done. With a `communicator` it
  /// is collective, and gives all ranks the mean over them.
  StepSeconds take(Communicator* communicator, double elapsed);

 private:
  /// A step whose events may be to come.
  struct Step {
    std::vector<TimedEvent> events;  // grows to what a step needs, and stays
    std::vector<StepPhase> phases;   // that end at events 1, 2, ...
    std::size_t used = 0;            // events; 0 where there is nothing to be read
  };
  // More than a host is ahead of its GPU.
  static constexpr std::size_t kSteps = 8;

  void mark(Step& step);
  void read(Step& step);

  DeviceRef device_;
  std::array<Step, kSteps> steps_;
  std::size_t step_ = kSteps - 1;
  RankSteps sum_;              // since the last take()
  std::int64_t measured_ = 0;  // of its steps those whose times were there
};

}  // namespace lathe
