#pragma once
// The report of `lathe bench --profile emulated`.
#include <vector>

#include "benchmarks/case.h"

namespace lathe {

/// Profiles the cases and prints, as tables or as one JSON object. For builds with the emulation.
void print_profiles(const std::vector<bench::Case>& cases, bool json);

}  // namespace lathe
