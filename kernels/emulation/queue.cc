#include "lathe/kernels/emulation/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string_view>
#include <thread>

#include "lathe/kernels/emulation/pinned_memory.h"
#include "lathe/kernels/emulation/profiler.h"
#include "lathe/kernels/emulation/symbols.h"

namespace lathe::emulation {
namespace {

constexpr std::size_t kHistory = 100'000;

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

std::uint64_t hash_of(const void* bytes, std::size_t count) {
  return std::hash<std::string_view>{}({static_cast<const char*>(bytes), count});
}

std::string name_of(const Work& work) {
  return std::visit(Overloaded{[](const Kernel& kernel) { return function_name(kernel.function); },
                               [](const Copy&) { return std::string("cudaMemcpyAsync"); },
                               [](const Fill&) { return std::string("cudaMemsetAsync"); },
                               [](const HostOperation& operation) { return operation.name; },
                               [](const auto&) { return std::string("an event"); }},
                    work);
}

/// What must be noted of a copy as the host enqueues it.
void note_source(Copy& copy) {
  if (device_memory().contains(copy.from)) return;
  if (is_pinned(copy.from, copy.bytes)) {
    copy.source_hash = hash_of(copy.from, copy.bytes);
  } else {
    const auto* bytes = static_cast<const std::byte*>(copy.from);
    copy.staged.assign(bytes, bytes + copy.bytes);
  }
}

std::vector<std::size_t> joined(std::vector<std::size_t> a, const std::vector<std::size_t>& b) {
  for (const std::size_t node : b) {
    if (std::ranges::find(a, node) == a.end()) a.push_back(node);
  }
  return a;
}

}  // namespace

Replay::Replay(const std::vector<Node>& nodes, std::vector<Operation> operations)
    : operations_(std::move(operations)), followers_(nodes.size()), awaited_(nodes.size()) {
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    awaited_[i] = nodes[i].after.size();
    for (const std::size_t before : nodes[i].after) followers_[before].push_back(i);
    if (awaited_[i] == 0) heads_.insert(i);
  }
}

void Clock::join(const Clock& other) {
  if (other.counts_.size() > counts_.size()) counts_.resize(other.counts_.size());
  for (std::size_t i = 0; i < other.counts_.size(); ++i) counts_[i] = std::max(counts_[i], other.counts_[i]);
}

void Clock::set(std::size_t stream, std::uint64_t count) {
  if (stream >= counts_.size()) counts_.resize(stream + 1);
  counts_[stream] = count;
}

Device& device() {
  static Device value;
  return value;
}

Device::Device() { create_stream(true); }

Stream* Device::create_stream(bool blocking) {
  streams_.push_back(std::make_unique<Stream>());
  streams_.back()->number = new_stream_number();
  streams_.back()->blocking = blocking;
  return streams_.back().get();
}

Stream& Device::resolve(Stream* stream) {
  if (stream == nullptr) return *streams_.front();
  if (std::ranges::none_of(streams_, [&](const auto& each) { return each.get() == stream; })) {
    throw Fault(FaultKind::memory, "a stream that was destroyed, or never made, is used");
  }
  return *stream;
}

void Device::destroy_stream(Stream* stream) {
  finish(resolve(stream));
  std::erase_if(streams_, [&](const auto& each) { return each.get() == stream; });
}

void Device::enqueue(Stream& stream, Work work) {
  if (stream.capture != nullptr) {
    Graph& graph = *stream.capture->graph;
    graph.nodes.push_back({.work = std::move(work), .after = stream.last_nodes, .lane = stream.lane});
    stream.last_nodes = {graph.nodes.size() - 1};
    return;
  }
  if (auto* copy = std::get_if<Copy>(&work)) note_source(*copy);
  follow_default(stream);
  stream.clock.join(host_);
  stream.clock.set(stream.number, ++stream.enqueued);
  stream.queue.push_back({.work = std::move(work), .clock = stream.clock, .stream = stream.number, .number = stream.enqueued});
}

void Device::follow_default(Stream& stream) {
  // The default stream waits for all blocking ones, and they for it.
  const bool is_default = &stream == streams_.front().get();
  for (const auto& other : streams_) {
    const bool follows =
        other.get() != &stream && ((is_default && other->blocking) || (stream.blocking && other.get() == streams_.front().get()));
    if (!follows || other->capture != nullptr) continue;
    stream.clock.join(other->clock);
    if (other->queue.empty()) continue;
    auto recording = std::make_shared<Recording>();
    recording->clock = other->clock;
    other->queue.push_back(
        {.work = Record{recording}, .clock = other->clock, .stream = other->number, .number = ++other->enqueued});
    stream.queue.push_back(
        {.work = Await{recording}, .clock = stream.clock, .stream = stream.number, .number = ++stream.enqueued});
  }
}

cuda::cudaError_t Device::record(Event& event, Stream& stream, bool external) {
  if (stream.capture != nullptr && external) {
    enqueue(stream, RecordExternal{&event});
    return cuda::cudaSuccess;
  }
  if (stream.capture != nullptr) {
    event.capture = stream.capture;
    event.nodes = stream.last_nodes;
    return cuda::cudaSuccess;
  }
  event.capture = nullptr;
  event.recording = std::make_shared<Recording>();
  enqueue(stream, Record{event.recording});
  event.recording->clock = stream.clock;
  return cuda::cudaSuccess;
}

cuda::cudaError_t Device::await(Stream& stream, Event& event) {
  if (event.capture != nullptr) {
    if (event.capture->graph == nullptr) return cuda::cudaErrorCapturedEvent;
    if (stream.capture == nullptr) {  // it joins the capture
      stream.capture = event.capture;
      stream.lane = event.capture->graph->lanes++;
      stream.last_nodes = event.nodes;
      return cuda::cudaSuccess;
    }
    if (stream.capture != event.capture) return cuda::cudaErrorStreamCaptureMerge;
    stream.last_nodes = joined(stream.last_nodes, event.nodes);
    return cuda::cudaSuccess;
  }
  if (stream.capture != nullptr) return cuda::cudaErrorStreamCaptureIsolation;
  if (event.recording == nullptr) return cuda::cudaSuccess;  // never recorded: CUDA waits for nothing
  stream.clock.join(event.recording->clock);
  enqueue(stream, Await{event.recording});
  return cuda::cudaSuccess;
}

bool Device::breaks_capture(const Stream& stream) const {
  return &stream == streams_.front().get() &&
         std::ranges::any_of(streams_, [](const auto& each) { return each->capture != nullptr && each->blocking; });
}

bool Device::capturing_strictly() const {
  return std::ranges::any_of(streams_, [](const auto& each) {
    return each->capture != nullptr && each->capture->mode != cuda::cudaStreamCaptureModeRelaxed;
  });
}

void Device::launch_graph(ExecutableGraph& executable, Stream& stream) {
  follow_default(stream);
  if (executable.end != nullptr) {  // a graph does not run beside itself
    stream.clock.join(executable.end->clock);
    if (!executable.last.expired()) enqueue(stream, Await{executable.end});
  }
  const std::vector<Node>& nodes = executable.graph.nodes;
  Clock begin = stream.clock;
  begin.join(host_);
  Clock end = begin;
  std::vector<Operation> operations;
  operations.reserve(nodes.size());
  for (const Node& node : nodes) {
    Operation operation{.work = node.work, .clock = begin, .stream = executable.streams[node.lane]};
    for (const std::size_t before : node.after) operation.clock.join(operations[before].clock);
    operation.number = ++executable.counts[node.lane];
    operation.clock.set(operation.stream, operation.number);
    if (auto* copy = std::get_if<Copy>(&operation.work)) note_source(*copy);
    if (const auto* external = std::get_if<RecordExternal>(&operation.work)) {
      Event& event = *external->event;
      event.capture = nullptr;
      event.recording = std::make_shared<Recording>();
      event.recording->clock = operation.clock;
      operation.work = Record{event.recording};
    }
    end.join(operation.clock);
    operations.push_back(std::move(operation));
  }
  auto replay = std::make_shared<Replay>(nodes, std::move(operations));
  executable.last = replay;
  enqueue(stream, std::move(replay));
  stream.clock.join(end);
  executable.end = std::make_shared<Recording>();
  enqueue(stream, Record{executable.end});
  executable.end->clock = stream.clock;
}

bool Device::ready(Stream& stream) {
  if (stream.queue.empty()) return false;
  Operation& operation = stream.queue.front();
  if (const auto* host = std::get_if<HostOperation>(&operation.work); host != nullptr && host->ready) {
    if (operation.began == 0) operation.began = ++moments_;
    const DeviceMemory::Opened opened(device_memory());
    return host->ready();
  }
  const auto* await = std::get_if<Await>(&operation.work);
  return await == nullptr || await->recording->done;
}

bool Device::waits_for_others() const {
  return std::ranges::any_of(streams_, [](const auto& stream) {
    if (stream->queue.empty()) return false;
    const auto* host = std::get_if<HostOperation>(&stream->queue.front().work);
    return host != nullptr && host->ready;
  });
}

bool Device::step() {
  std::vector<Stream*> heads;
  for (const auto& stream : streams_) {
    if (ready(*stream)) heads.push_back(stream.get());
  }
  if (heads.empty()) return false;
  run_head(*heads[choose(heads.size())]);
  return true;
}

std::size_t Device::choose(std::size_t count) {
  switch (settings().streams) {
    case Order::forward:
      return 0;
    case Order::reverse:
      return count - 1;
    case Order::random:
      break;
  }
  std::mt19937_64 generator(settings().seed + ++random_);
  return generator() % count;
}

void Device::run_head(Stream& stream) {
  try {
    if (const auto* replayed = std::get_if<std::shared_ptr<Replay>>(&stream.queue.front().work)) {
      const std::shared_ptr<Replay> replay = *replayed;
      if (replay->heads() > 0) replay->run(choose(replay->heads()), [&](Operation& operation) { run(operation, stream); });
      if (replay->heads() > 0) return;  // it stays the stream's next
      stream.queue.pop_front();
    } else {
      Operation operation = std::move(stream.queue.front());
      stream.queue.pop_front();
      run(operation, stream);
    }
  } catch (...) {
    // What was enqueued behind a fault never runs, as on a GPU.
    for (const auto& each : streams_) each->queue.clear();
    now_ = nullptr;
    throw;
  }
}

void Device::run(Operation& operation, Stream& stream) {
  if (operation.began == 0) operation.began = ++moments_;
  const Serial began = next_serial();
  history_.push_back({.began = began, .name = name_of(operation.work), .stream = operation.stream, .number = operation.number});
  if (history_.size() > kHistory) history_.pop_front();
  now_ = &operation;
  run_work(operation, began);
  now_ = nullptr;
  ++stream.finished;
  if (settings().trace) {
    trace_.push_back({.name = history_.back().name, .stream = stream.number, .began = operation.began, .ended = ++moments_});
  }
}

void Device::run_work(Operation& operation, Serial began) {
  DeviceMemory& memory = device_memory();
  std::visit(Overloaded{[&](const Kernel& kernel) {
                          std::optional<Profiler> profiler;
                          if (settings().profile) profiler.emplace(kernel);
                          const DeviceMemory::Opened opened(memory);
                          Running(kernel, began, profiler ? &*profiler : nullptr).run();
                        },
                        [&](const Copy& copy) {
                          const DeviceMemory::Opened opened(memory);
                          if (memory.contains(copy.from))
                            memory.touch(copy.from, copy.bytes, AccessKind::read, began, "cudaMemcpyAsync");
                          if (memory.contains(copy.to))
                            memory.touch(copy.to, copy.bytes, AccessKind::write, began, "cudaMemcpyAsync");
                          if (copy.source_hash != 0 && hash_of(copy.from, copy.bytes) != copy.source_hash) {
                            throw Fault(FaultKind::pinned_reuse,
                                        fmt::format("cudaMemcpyAsync to {}: its {} pinned bytes changed after the copy was "
                                                    "enqueued and before it ran",
                                                    memory.describe(reinterpret_cast<std::uintptr_t>(copy.to)), copy.bytes));
                          }
                          std::memmove(copy.to, copy.staged.empty() ? copy.from : copy.staged.data(), copy.bytes);
                        },
                        [&](const Fill& fill) {
                          const DeviceMemory::Opened opened(memory);
                          memory.touch(fill.to, fill.bytes, AccessKind::write, began, "cudaMemsetAsync");
                          std::memset(fill.to, fill.value, fill.bytes);
                        },
                        [&](const HostOperation& host) {
                          const DeviceMemory::Opened opened(memory);
                          for (const MemorySpan& span : host.reads)
                            memory.touch(span.address, span.bytes, AccessKind::read, began, host.name);
                          for (const MemorySpan& span : host.writes)
                            memory.touch(span.address, span.bytes, AccessKind::write, began, host.name);
                          host.run();
                        },
                        [&](const Record& record) {
                          record.recording->done = true;
                          record.recording->time = std::chrono::steady_clock::now();
                        },
                        [](const auto&) {}},
             operation.work);
}

template <class Done>
void Device::run_until(const Done& done, const char* what) {
  if (done()) return;
  const DeviceMemory::Opened opened(device_memory());  // once for all that runs: no host code comes between
  while (!done()) {
    if (step()) continue;
    if (!waits_for_others())
      throw Fault(FaultKind::stream_order, std::string(what) + " waits for an event that nothing will record");
    std::this_thread::yield();
  }
}

void Device::finish(Stream& stream) {
  run_until([&] { return stream.queue.empty(); }, "a stream");
  seen_by_host(stream.clock);
}

void Device::finish(const std::shared_ptr<Recording>& recording) {
  run_until([&] { return recording->done; }, "the host");
  seen_by_host(recording->clock);
}

void Device::finish_all() {
  run_until([&] { return idle(); }, "the device");
  for (const auto& stream : streams_) seen_by_host(stream->clock);
}

bool Device::end_capture(const Capture& capture, const std::vector<std::size_t>& last_nodes) {
  std::vector<bool> awaited(capture.graph->nodes.size(), false);
  std::vector<std::size_t> open = last_nodes;
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    if (awaited[node]) continue;
    awaited[node] = true;
    const auto& before = capture.graph->nodes[node].after;
    open.insert(open.end(), before.begin(), before.end());
  }
  bool joined_all = true;
  for (const auto& stream : streams_) {
    if (stream->capture.get() != &capture) continue;
    joined_all = joined_all && std::ranges::all_of(stream->last_nodes, [&](std::size_t node) { return awaited[node]; });
    stream->capture = nullptr;
    stream->last_nodes.clear();
  }
  return joined_all;
}

bool Device::idle() const {
  return std::ranges::all_of(streams_, [](const auto& stream) { return stream->queue.empty(); });
}

const Device::Past* Device::past(Serial serial) const {
  const auto after = std::ranges::upper_bound(history_, serial, {}, &Past::began);
  return after == history_.begin() ? nullptr : &*std::prev(after);
}

Range Device::moments(Serial serial) const {
  const auto after = std::ranges::upper_bound(history_, serial, {}, &Past::began);
  const Serial begin = after == history_.begin() ? 0 : std::prev(after)->began;
  const Serial end = after == history_.end() ? serial + 1 : after->began;
  return {.begin = begin, .bytes = end - begin};
}

bool ordered_before_operation(const Access& before) {
  const Device::Past* past = device().past(before.serial);
  const Operation* now = device().now();
  return past == nullptr || now == nullptr || now->clock.of(past->stream) >= past->number;
}

Range moments_of_operation(Serial serial) { return device().moments(serial); }

std::string why_unordered(const Access& before) {
  return fmt::format("was touched by {}, which runs in another stream and is not awaited by an event",
                     device().past(before.serial)->name);
}

std::vector<TracedOperation> take_trace() { return device().take_trace(); }

void enqueue_host_operation(Stream* stream, HostOperation operation) {
  device().enqueue(device().resolve(stream), std::move(operation));
}

}  // namespace lathe::emulation
