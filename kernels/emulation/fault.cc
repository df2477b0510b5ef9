#include "lathe/kernels/emulation/fault.h"

namespace lathe::emulation {

std::string_view to_string(FaultKind kind) {
  switch (kind) {
    case FaultKind::barrier:
      return "barrier";
    case FaultKind::warp:
      return "warp";
    case FaultKind::race:
      return "race";
    case FaultKind::uninitialised:
      return "uninitialised";
    case FaultKind::out_of_bounds:
      return "out of bounds";
    case FaultKind::misaligned:
      return "misaligned";
    case FaultKind::async_copy:
      return "asynchronous copy";
    case FaultKind::stream_order:
      return "stream order";
    case FaultKind::pinned_reuse:
      return "pinned memory reused";
    case FaultKind::host_pointer:
      return "host pointer";
    case FaultKind::stale_argument:
      return "stale argument";
    case FaultKind::launch:
      return "launch";
    case FaultKind::memory:
      return "memory";
  }
  return "";
}

Fault::Fault(FaultKind kind, const std::string& message)
    : std::runtime_error("emulation: " + std::string(to_string(kind)) + ": " + message), kind_(kind) {}

}  // namespace lathe::emulation
