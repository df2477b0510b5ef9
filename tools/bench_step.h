#pragma once
// `lathe bench step`: whole training steps.
#include <string>
#include <vector>

#include "tools/options.h"

namespace lathe {

/// What a user calls it.
inline constexpr const char* kBenchStep = "step";

/// Measures the steps that `options` ask for and prints them. Returns the exit status. Throws UsageError.
int bench_steps(const BenchOptions& options);

/// The options of steps that were given, by their names.
std::vector<std::string> given(const BenchStepOptions& options);

}  // namespace lathe
