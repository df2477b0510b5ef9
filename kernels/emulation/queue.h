#pragma once
// Streams, events and graphs of the emulated device. Nothing runs when it is enqueued: it runs when the host waits, in any order that
// the streams and their events allow. Internal to kernels/emulation.
#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/host_operation.h"
#include "lathe/kernels/emulation/launch.h"
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/trace.h"

namespace lathe::emulation {

/// clock[s]: how many of stream s's operations have happened before.
class Clock {
 public:
  void join(const Clock& other);
  void set(std::size_t stream, std::uint64_t count);
  std::uint64_t of(std::size_t stream) const { return stream < counts_.size() ? counts_[stream] : 0; }

 private:
  std::vector<std::uint64_t> counts_;
};

/// One recording of an event.
struct Recording {
  bool done = false;
  Clock clock;
  std::chrono::steady_clock::time_point time;
};

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  cuda::cudaMemcpyKind kind;
  std::vector<std::byte> staged;  ///< what was at a pageable source when the copy was enqueued
  std::uint64_t source_hash = 0;  ///< of a pinned source at that time
};
struct Fill {
  void* to;
  int value;
  std::size_t bytes;
};
struct Record {
  std::shared_ptr<Recording> recording;
};
struct Await {
  std::shared_ptr<Recording> recording;
};
struct RecordExternal {
  Event* event;
};
class Replay;
using Work = std::variant<Kernel, Copy, Fill, HostOperation, Record, Await, RecordExternal, std::shared_ptr<Replay>>;

struct Operation {
  Work work;
  Clock clock;
  std::size_t stream = 0;
  std::uint64_t number = 0;  ///< in its stream, from 1
  std::uint64_t began = 0;   ///< for the trace: 0 until it has
};

/// Operations in the order of their capture, each with those that it follows.
struct Node {
  Work work;
  std::vector<std::size_t> after;
  std::size_t lane = 0;  ///< which of the captured streams it was put into
};

class Graph {
 public:
  std::vector<Node> nodes;
  std::size_t lanes = 0;
};

class ExecutableGraph {
 public:
  Graph graph;
  std::vector<std::size_t> streams;  ///< a stream number for each lane, for the clocks
  std::vector<std::uint64_t> counts;
  std::weak_ptr<Replay> last;      ///< its last launch, while that isn't over
  std::shared_ptr<Recording> end;  ///< of that launch; null before the first
};

/// One launch of a graph: its stream's next until all of its operations have run, one after the other, with those of other streams between.
class Replay {
 public:
  /// `operations` are those of `nodes`, with the clocks of this launch.
  Replay(const std::vector<Node>& nodes, std::vector<Operation> operations);
  /// How many operations may be the next, all before them having run: none when it is over.
  std::size_t heads() const { return heads_.size(); }
  /// Calls run(operation) for one of them, in the order of their capture.
  template <class Run>
  void run(std::size_t head, const Run& run) {
    const std::size_t node = *std::next(heads_.begin(), static_cast<std::ptrdiff_t>(head));
    run(operations_[node]);
    heads_.erase(node);
    for (const std::size_t follower : followers_[node]) {
      if (--awaited_[follower] == 0) heads_.insert(follower);
    }
  }

 private:
  std::vector<Operation> operations_;
  std::vector<std::vector<std::size_t>> followers_;
  std::vector<std::size_t> awaited_;  ///< by each operation: how many that have not run
  std::set<std::size_t> heads_;
};

struct Capture {
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();  ///< null when the capture has ended
  cuda::cudaStreamCaptureMode mode{};
  Stream* origin = nullptr;
};

class Stream {
 public:
  std::size_t number = 0;
  bool blocking = true;  ///< waits for the default stream and makes it wait
  Clock clock;           ///< of the last operation enqueued
  std::uint64_t enqueued = 0;
  std::uint64_t finished = 0;  ///< operations that have run, those of graphs one by one
  std::deque<Operation> queue;
  std::shared_ptr<Capture> capture;
  std::size_t lane = 0;
  std::vector<std::size_t> last_nodes;  ///< of the capture: what the next one follows
};

class Event {
 public:
  std::shared_ptr<Recording> recording;
  std::shared_ptr<Capture> capture;  ///< recorded into a graph that is being captured
  std::vector<std::size_t> nodes;
};

/// The device: its streams, and what the host knows to be over.
class Device {
 public:
  Stream* create_stream(bool blocking);
  void destroy_stream(Stream* stream);
  /// The stream, or the default one for null.
  Stream& resolve(Stream* stream);
  void enqueue(Stream& stream, Work work);
  cuda::cudaError_t record(Event& event, Stream& stream, bool external);
  cuda::cudaError_t await(Stream& stream, Event& event);
  void launch_graph(ExecutableGraph& executable, Stream& stream);
  /// Runs operations until the stream has none, or the recording is done. Throws Fault where that can't be.
  void finish(Stream& stream);
  void finish(const std::shared_ptr<Recording>& recording);
  void finish_all();
  /// Runs one operation that is ready, if there is one.
  bool step();
  std::size_t new_stream_number() { return next_stream_number_++; }

  /// Releases the streams that joined a capture. False where one has operations that nothing before `last_nodes`, the origin's last, waits
  /// for.
  bool end_capture(const Capture& capture, const std::vector<std::size_t>& last_nodes);

  /// Whether the stream may not be used now, because it is the default one and a stream that waits for it is being captured.
  bool breaks_capture(const Stream& stream) const;
  /// Whether a stream is being captured in a mode that forbids what could wait for the device.
  bool capturing_strictly() const;
  void seen_by_host(const Clock& clock) { host_.join(clock); }

  bool idle() const;
  std::size_t alive_streams() const { return streams_.size() - 1; }

  /// An operation that ran, from its first moment on.
  struct Past {
    Serial began;
    std::string name;
    std::size_t stream;
    std::uint64_t number;
  };
  const Past* past(Serial serial) const;
  /// From its first moment to the next operation's; of all that are forgotten, where it is one of those.
  Range moments(Serial serial) const;
  const Operation* now() const { return now_; }
  std::vector<TracedOperation> take_trace() { return std::exchange(trace_, {}); }

  Device();

 private:
  bool ready(Stream& stream);
  /// Whether some stream's next operation waits for another process.
  bool waits_for_others() const;
  /// One of so many that have no order.
  std::size_t choose(std::size_t count);
  void run_head(Stream& stream);
  void run(Operation& operation, Stream& stream);
  void run_work(Operation& operation, Serial began);
  template <class Done>
  void run_until(const Done& done, const char* what);
  /// What the default stream and the blocking ones owe each other, before something is put into one of them.
  void follow_default(Stream& stream);

  std::vector<std::unique_ptr<Stream>> streams_;  ///< [0] is the default stream
  Clock host_;
  std::deque<Past> history_;
  const Operation* now_ = nullptr;
  std::size_t next_stream_number_ = 0;
  std::uint64_t random_ = 0;
  std::vector<TracedOperation> trace_;
  std::uint64_t moments_ = 0;  ///< of the trace
};

Device& device();

}  // namespace lathe::emulation
