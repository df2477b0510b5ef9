#pragma once
// What ran when: the order in which the streams' operations came to run.
#include <cstdint>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

/// An operation that has run. Its beginning and its end are numbers that grow from one to the next, over all streams.
struct TracedOperation {
  std::string name;     ///< of a kernel its function's, else as in messages; "an event" where one is recorded or awaited
  std::size_t stream;   ///< a number of the stream that it, or its graph, was put into; 0 is the default stream
  std::uint64_t began;  ///< what waits for another process (HostOperation::ready) begins before it ends; between them others run
  std::uint64_t ended;
};

/// What ran since the settings asked for it (Settings::trace), in order of its end; the trace begins anew.
std::vector<TracedOperation> take_trace();

}  // namespace emulation
}  // namespace lathe
