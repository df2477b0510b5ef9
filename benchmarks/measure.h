#pragma once
// Times of cases on a device, and the rates that the machine itself reaches in the same run.
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/case.h"

namespace lathe::bench {

/// A device of its own for each case, so that memory goes back between them.
using MakeDevice = std::function<DeviceRef()>;

/// The calls of a case on a device, around sets of operands.
class Rotation {
 public:
  /// Each set has been used once, so that memory is touched and plans are made.
  Rotation(const Case& measured, const DeviceRef& device);
  std::int64_t sets() const { return std::ssize(sets_); }
  /// Makes so many calls, the first on the set behind the last one's, and waits for them.
  double seconds_of(std::int64_t calls);

 private:
  DeviceRef device_;
  std::vector<std::unique_ptr<Placed>> sets_;
  std::size_t next_ = 0;
};

/// What one call takes. Calls go around copies of the operands (`sets` of them), so that what a call reads has left the cache since it was
/// last there: rotation_bytes() together, where one set isn't more than that.
struct Time {
  double seconds = 0.0;    ///< median of the repeats
  double spread = 0.0;     ///< between the quartiles, as a share of the median
  std::int64_t calls = 0;  ///< of a repeat
  std::int64_t sets = 0;
};
Time measure(const Case& measured, const MakeDevice& make_device);

/// More than 4 times a GPU's L2 cache (512 MiB); of a CPU 4 times its last-level cache, but at most 256 MiB: a large server's cache
/// would take longer to fill than all cases to run.
std::int64_t rotation_bytes(DeviceKind kind);

/// A copy of `bytes` bytes: the library's on a GPU, memcpy on all threads of a CPU.
Case copy_case(DeviceKind kind, std::int64_t bytes);

/// The rates that fractions are taken of.
struct Ceilings {
  double copy = 0.0;                       ///< bytes read and bytes written a second
  std::map<std::string, double> products;  ///< operations a second, by dtype; none where the backend multiplies no matrices
};
Ceilings measure_ceilings(DeviceKind kind, const MakeDevice& make_device);

}  // namespace lathe::bench
