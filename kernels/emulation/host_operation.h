#pragma once
// Work of the host that takes its turn in a stream, in a library's place: what cuBLASLt and NCCL do on a GPU.
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {
namespace emulation {

class Stream;

/// Bytes of device memory.
struct MemorySpan {
  const void* address;
  std::size_t bytes;
};

struct HostOperation {
  std::string name;                ///< for messages
  std::vector<MemorySpan> reads;   ///< must have been written
  std::vector<MemorySpan> writes;  ///< must be allocated
  std::function<void()> run;       ///< called when the operation's turn comes, with device memory accessible
  /// Asked again and again while the operation is the next of its stream, with device memory accessible: it runs once this gives true. Until
  /// then it has begun, and waits for another process. Where empty, it runs at once. Not for graphs.
  std::function<bool()> ready = {};
};

/// Puts it at the end of the stream's queue, or into the graph that the stream is being captured into.
void enqueue_host_operation(Stream* stream, HostOperation operation);

}  // namespace emulation
}  // namespace lathe
