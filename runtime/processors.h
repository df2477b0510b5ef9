#pragma once
// How many threads a program should use here.
#include <optional>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// What this process may compute on.
struct Processors {
  std::vector<int> cores;             ///< physical ones in the affinity mask, each by its first hardware thread; ascending
  std::optional<double> quota;        ///< of the control group, or of one above it, in processors
  std::string quota_group;            ///< whose quota that is
  std::optional<int> openmp_threads;  ///< OMP_NUM_THREADS
};
Processors available_processors();

/// The physical cores that the calling thread's affinity mask could have here, whatever it has now: where a launcher bound the process to some of
/// them, the others count too. Not thread-safe: the mask is another one for a moment.
int reachable_cores();

struct ThreadChoice {
  int threads = 1;
  /// Why, for people: "2 physical cores in the affinity mask".
  std::string reason;
};

/// The threads of a process that has `cores` cores, which is why for `reason`, and a part of the group's quota: those cores, capped by the
/// control group's quota over the `sharing_quota` processes that have it together, and by OMP_NUM_THREADS; at least 1.
ThreadChoice threads_on(const Processors& processors, int cores, std::string reason, int sharing_quota = 1);

/// The physical cores in the affinity mask, capped by the control group's CPU quota and by OMP_NUM_THREADS; at least 1.
ThreadChoice default_threads();

}  // namespace lathe
