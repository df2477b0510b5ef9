#pragma once
// What a case's kernels ask of memory, counted by the emulation (docs/emulation.md).
#include <vector>

#include "benchmarks/case.h"
#include "lathe/kernels/emulation/profile.h"

namespace lathe::bench {

/// Runs the case once on the emulated device and tells its kernels' traffic, in order of their first launch; tensors have the names of the
/// operands. Throws LogicError in a build without the emulation. Not to be called while something else runs on the device.
std::vector<emulation::KernelProfile> profile(const Case& profiled);

/// The traffic of one operand in all of a case's kernels together; zeros where none touched it.
emulation::GlobalTraffic traffic_of(const std::vector<emulation::KernelProfile>& kernels, const std::string& operand);

/// Bytes of the sectors that were touched that some lane asked for; 1 where none were touched.
double sector_use(const emulation::GlobalTraffic& traffic);

}  // namespace lathe::bench
