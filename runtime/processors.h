#pragma once
// How many threads a program should use here.
#include <string>

namespace [[gnu::visibility("default")]] lathe {

struct ThreadChoice {
  int threads = 1;
  /// Why, for people: "2 physical cores in the affinity mask".
  std::string reason;
};

/// The physical cores in the affinity mask, capped by the control group's CPU quota and by OMP_NUM_THREADS; at least 1.
ThreadChoice default_threads();

}  // namespace lathe
