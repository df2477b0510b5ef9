#include "lathe/kernels/emulation/runtime_api.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "lathe/kernels/emulation/device_memory.h"
#include "lathe/kernels/emulation/launch.h"
#include "lathe/kernels/emulation/pinned_memory.h"
#include "lathe/kernels/emulation/queue.h"
#include "lathe/kernels/emulation/symbols.h"

namespace lathe::emulation {
namespace {

// What a GPU of sm_80 takes.
constexpr unsigned kThreadsAtMost = 1024;
constexpr unsigned kThreadsAlongZ = 64;
constexpr unsigned kGridAcross = 65'535;
constexpr unsigned kGridAlongX = 0x7FFFFFFF;
constexpr std::size_t kSharedAtMost = std::size_t{163} << 10U;
constexpr std::size_t kSharedByDefault = std::size_t{48} << 10U;
constexpr std::size_t kArgumentBytesAtMost = 4096;

std::map<std::uintptr_t, std::size_t>& pinned() {
  static std::map<std::uintptr_t, std::size_t> value;
  return value;
}

/// Handles that are alive, by address.
template <class Handle>
std::set<const Handle*>& alive() {
  static std::set<const Handle*> value;
  return value;
}

template <class Handle>
void must_be_alive(const Handle* handle, const char* what) {
  if (!alive<Handle>().contains(handle))
    throw Fault(FaultKind::memory, std::string(what) + " that was destroyed, or never made, is used");
}

[[noreturn]] void refuse(const Kernel& kernel, const std::string& why) {
  throw Fault(FaultKind::launch, fmt::format("{}: {}", function_name(kernel.function), why));
}

void check_shape(const Kernel& kernel) {
  const auto& [grid, block, shared] = kernel.shape;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0) refuse(kernel, "a block without threads");
  if (threads > kThreadsAtMost) refuse(kernel, fmt::format("a block of {} threads; a GPU takes {}", threads, kThreadsAtMost));
  if (block.z > kThreadsAlongZ)
    refuse(kernel, fmt::format("a block of {} threads along z; a GPU takes {}", block.z, kThreadsAlongZ));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) refuse(kernel, "an empty grid");
  if (grid.x > kGridAlongX || grid.y > kGridAcross || grid.z > kGridAcross) {
    refuse(kernel, fmt::format("a grid of {} x {} x {} blocks; a GPU takes {} along x and {} along y and z", grid.x, grid.y,
                               grid.z, kGridAlongX, kGridAcross));
  }
  const std::size_t own = static_shared_bytes(kernel.function);
  if (own > kSharedByDefault) {
    refuse(kernel, fmt::format("{} bytes of static shared memory; a block has {}, and more is dynamic", own, kSharedByDefault));
  }
  if (own + shared > kSharedAtMost) {
    refuse(kernel, fmt::format("{} bytes of shared memory, {} of them static; a block of sm_80 has {}", own + shared, own,
                               kSharedAtMost));
  }
  if (kernel.argument_bytes > kArgumentBytesAtMost) {
    refuse(kernel, fmt::format("{} bytes of arguments; a launch takes {}", kernel.argument_bytes, kArgumentBytesAtMost));
  }
}

cuda::cudaError_t copy(void* to, const void* from, std::size_t bytes, cuda::cudaMemcpyKind kind, Stream& stream) {
  if (bytes == 0) return cuda::cudaSuccess;
  // A host address in the device's place is refused where the copy is asked for, not where it runs.
  const bool from_device = device_memory().contains(from);
  const bool to_device = device_memory().contains(to);
  const bool fits = kind == cuda::cudaMemcpyDefault ||
                    (from_device == (kind == cuda::cudaMemcpyDeviceToHost || kind == cuda::cudaMemcpyDeviceToDevice) &&
                     to_device == (kind == cuda::cudaMemcpyHostToDevice || kind == cuda::cudaMemcpyDeviceToDevice));
  if (!fits) {
    throw Fault(FaultKind::host_pointer, fmt::format("cudaMemcpyAsync from {} to {} memory, called as another kind of copy",
                                                     from_device ? "device" : "host", to_device ? "device" : "host"));
  }
  if (device().breaks_capture(stream)) return cuda::cudaErrorStreamCaptureImplicit;
  device().enqueue(stream, Copy{.to = to, .from = from, .bytes = bytes, .kind = kind, .staged = {}});
  return cuda::cudaSuccess;
}

/// What of an operation a replay takes from its capture, in words that are the same where it is.
struct Fixed {
  std::string name;   ///< what it is
  std::string shape;  ///< where, how much
  std::span<const std::byte> arguments;
};
Fixed fixed(const Work& work) {
  if (const auto* kernel = std::get_if<Kernel>(&work)) {
    const auto& [grid, block, shared] = kernel->shape;
    return {.name = function_name(kernel->function),
            .shape = fmt::format("a grid of {} x {} x {}, a block of {} x {} x {}, {} bytes of shared memory", grid.x, grid.y,
                                 grid.z, block.x, block.y, block.z, shared),
            .arguments = {kernel->bound.get() + kernel->argument_offset, kernel->argument_bytes}};
  }
  if (const auto* made = std::get_if<Copy>(&work)) {
    return {.name = "cudaMemcpyAsync",
            .shape = fmt::format("{} bytes from {} to {}", made->bytes, made->from, made->to),
            .arguments = {}};
  }
  if (const auto* fill = std::get_if<Fill>(&work)) {
    return {.name = "cudaMemsetAsync",
            .shape = fmt::format("{} bytes of {} at {}", fill->bytes, fill->value, fill->to),
            .arguments = {}};
  }
  if (const auto* host = std::get_if<HostOperation>(&work)) {
    std::string spans;
    for (const auto* list : {&host->reads, &host->writes}) {
      for (const MemorySpan& span : *list) spans += fmt::format("{} bytes at {}, ", span.bytes, span.address);
    }
    return {.name = host->name, .shape = spans, .arguments = {}};
  }
  if (const auto* external = std::get_if<RecordExternal>(&work)) {
    return {.name = "cudaEventRecord", .shape = fmt::format("the event {}", fmt::ptr(external->event)), .arguments = {}};
  }
  return {.name = "an event", .shape = "", .arguments = {}};
}

}  // namespace

void* allocate_pinned(std::size_t bytes) {
  void* memory = ::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{4096});
  pinned()[reinterpret_cast<std::uintptr_t>(memory)] = bytes;
  return memory;
}

void release_pinned(void* address) {
  if (pinned().erase(reinterpret_cast<std::uintptr_t>(address)) == 0)
    throw Fault(FaultKind::memory, "cudaFreeHost of what is not pinned memory, or was freed");
  ::operator delete (address, std::align_val_t{4096});
}

bool is_pinned(const void* address, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const auto after = pinned().upper_bound(begin);
  return after != pinned().begin() && begin + bytes <= std::prev(after)->first + std::prev(after)->second;
}

std::size_t pinned_in_use() { return pinned().size(); }

void enqueue(Stream* stream, const Shape& shape, const Call& call) {
  constexpr auto kAlignment = std::align_val_t{64};
  const std::shared_ptr<std::byte> bound(static_cast<std::byte*>(::operator new(call.bound_bytes, kAlignment)),
                                         [](std::byte* memory) { ::operator delete (memory, std::align_val_t{64}); });
  std::memcpy(bound.get(), call.bound, call.bound_bytes);
  Kernel kernel{.function = call.function,
                .enter = call.enter,
                .bound = bound,
                .bound_bytes = call.bound_bytes,
                .argument_offset = call.argument_offset,
                .argument_bytes = call.argument_bytes,
                .shape = shape};
  check_shape(kernel);
  Stream& queue = device().resolve(stream);
  if (device().breaks_capture(queue)) refuse(kernel, "in the default stream while a stream that waits for it is captured");
  device().enqueue(queue, std::move(kernel));
}

void name_memory(const void* address, std::size_t bytes, const char* name) { device_memory().name(address, bytes, name); }

void expect_nothing_alive() {
  std::string text;
  for (const auto& [begin, allocation] : device_memory().allocations()) text += "; " + device_memory().describe(begin);
  const auto count = [&](std::size_t alive, const char* what) {
    if (alive > 0) text += fmt::format("; {} {}", alive, what);
  };
  count(pinned_in_use(), "blocks of pinned memory");
  count(device().alive_streams(), "streams");
  count(alive<Event>().size(), "events");
  count(alive<Graph>().size() + alive<ExecutableGraph>().size(), "graphs");
  if (!text.empty()) throw Fault(FaultKind::memory, "never freed: " + text.substr(2));
}

void expect_same_arguments(cuda::cudaGraph_t graph, cuda::cudaGraph_t again) {
  must_be_alive(graph, "a graph");
  must_be_alive(again, "a graph");
  if (graph->nodes.size() != again->nodes.size()) {
    throw Fault(FaultKind::stale_argument,
                fmt::format("a graph of {} operations, captured again with {}", graph->nodes.size(), again->nodes.size()));
  }
  for (std::size_t i = 0; i < graph->nodes.size(); ++i) {
    const Fixed before = fixed(graph->nodes[i].work);
    const Fixed after = fixed(again->nodes[i].work);
    if (before.name != after.name) {
      throw Fault(FaultKind::stale_argument, fmt::format("operation {} of the graph was {}, and is {} when it is captured again",
                                                         i, before.name, after.name));
    }
    if (before.shape != after.shape) {
      throw Fault(FaultKind::stale_argument,
                  fmt::format("{}: was captured with {}, and is now called with {}", before.name, before.shape, after.shape));
    }
    const auto difference = std::ranges::mismatch(before.arguments, after.arguments).in1;
    if (difference != before.arguments.end()) {
      throw Fault(FaultKind::stale_argument,
                  fmt::format("{}: byte {} of its arguments has changed since the graph was captured, and a replay has the old "
                              "value: what varies belongs in device memory",
                              before.name, difference - before.arguments.begin()));
    }
  }
}

namespace cuda {

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureMerge:
      return "cudaErrorStreamCaptureMerge";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    case cudaErrorStreamCaptureImplicit:
      return "cudaErrorStreamCaptureImplicit";
    case cudaErrorCapturedEvent:
      return "cudaErrorCapturedEvent";
  }
  return "an unknown error";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "the driver is older than the runtime needs";
    case cudaErrorNoDevice:
      return "no device";
    case cudaErrorInvalidDevice:
      return "no device has this number";
    case cudaErrorNotReady:
      return "not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "not permitted while the stream is captured";
    case cudaErrorStreamCaptureInvalidated:
      return "the capture failed before";
    case cudaErrorStreamCaptureUnjoined:
      return "a stream that joined the capture has not been joined to its origin";
    case cudaErrorStreamCaptureMerge:
      return "two captures would become one";
    case cudaErrorStreamCaptureIsolation:
      return "what is captured would depend on work outside of the capture";
    case cudaErrorStreamCaptureImplicit:
      return "the default stream is used while a stream that waits for it is captured";
    case cudaErrorCapturedEvent:
      return "the event was last recorded in a capture";
  }
  return "an unknown error";
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().machine.driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().machine.gpus;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) { return number == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int number) {
  if (number != 0) return cudaErrorInvalidDevice;
  *properties = {};
  std::strcpy(properties->name, "emulated sm_80");
  const pid_t process = ::getpid();
  const long host = ::gethostid();
  std::memcpy(properties->uuid.bytes, &process, sizeof(process));
  std::memcpy(properties->uuid.bytes + sizeof(std::int64_t), &host, sizeof(host));
  properties->totalGlobalMem = DeviceMemory::kCapacity;
  properties->major = settings().machine.major;
  properties->minor = 0;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = 40 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, number); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kSharedAtMost);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrL2CacheSize:
      *value = properties.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  device().finish_all();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0) return cudaSuccess;
  *pointer = device_memory().allocate(bytes);
  return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  device().finish_all();
  device_memory().release(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  *pointer = allocate_pinned(bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  device().finish_all();
  release_pinned(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = DeviceMemory::kCapacity;
  *free = *total - device_memory().in_use();
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  Stream& queue = device().resolve(nullptr);
  if (const cudaError_t status = copy(to, from, bytes, kind, queue); status != cudaSuccess) return status;
  device().finish(queue);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Stream& queue = device().resolve(stream);
  if (const cudaError_t status = copy(to, from, bytes, kind, queue); status != cudaSuccess) return status;
  // To memory that is not pinned CUDA copies before it returns.
  if (!device_memory().contains(to) && !is_pinned(to, bytes) && queue.capture == nullptr) device().finish(queue);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  if (const cudaError_t status = cudaMemsetAsync(to, value, bytes, nullptr); status != cudaSuccess) return status;
  device().finish(device().resolve(nullptr));
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!device_memory().contains(to)) throw Fault(FaultKind::host_pointer, "cudaMemsetAsync of host memory");
  Stream& queue = device().resolve(stream);
  if (device().breaks_capture(queue)) return cudaErrorStreamCaptureImplicit;
  device().enqueue(queue, Fill{.to = to, .value = value, .bytes = bytes});
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = device().create_stream(flags != cudaStreamNonBlocking);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  device().destroy_stream(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  device().finish(device().resolve(stream));
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  Stream& queue = device().resolve(stream);
  // Time passes while the host asks.
  if (!queue.queue.empty()) device().step();
  if (!queue.queue.empty()) return cudaErrorNotReady;
  device().seen_by_host(queue.clock);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  must_be_alive(event, "an event");
  return device().await(device().resolve(stream), *event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = std::make_unique<Event>().release();
  alive<Event>().insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  must_be_alive(event, "an event");
  alive<Event>().erase(event);
  const std::unique_ptr<Event> owner(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  must_be_alive(event, "an event");
  Stream& queue = device().resolve(stream);
  if (device().breaks_capture(queue)) return cudaErrorStreamCaptureImplicit;
  return device().record(*event, queue, flags == cudaEventRecordExternal);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  must_be_alive(event, "an event");
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  if (event->capture != nullptr) return cudaErrorCapturedEvent;
  if (event->recording != nullptr) device().finish(event->recording);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  must_be_alive(event, "an event");
  if (device().capturing_strictly()) return cudaErrorStreamCaptureUnsupported;
  if (event->capture != nullptr) return cudaErrorCapturedEvent;
  if (event->recording == nullptr) return cudaSuccess;
  // Time passes while the host asks.
  if (!event->recording->done) device().step();
  if (!event->recording->done) return cudaErrorNotReady;
  device().seen_by_host(event->recording->clock);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  must_be_alive(begin, "an event");
  must_be_alive(end, "an event");
  if (begin->recording == nullptr || end->recording == nullptr) return cudaErrorInvalidValue;
  if (!begin->recording->done || !end->recording->done) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->recording->time - begin->recording->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Stream& queue = device().resolve(stream);
  if (stream == nullptr || queue.capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  queue.capture = std::make_shared<Capture>();
  queue.capture->origin = &queue;
  queue.capture->mode = mode;
  queue.capture->graph->lanes = 1;
  queue.lane = 0;
  queue.last_nodes.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Stream& queue = device().resolve(stream);
  *graph = nullptr;
  if (queue.capture == nullptr || queue.capture->origin != &queue) return cudaErrorStreamCaptureInvalidated;
  const std::shared_ptr<Capture> capture = std::move(queue.capture);
  queue.capture = nullptr;
  const bool joined = device().end_capture(*capture, queue.last_nodes);
  queue.last_nodes.clear();
  if (!joined) {
    capture->graph = nullptr;
    return cudaErrorStreamCaptureUnjoined;
  }
  *graph = capture->graph.release();
  alive<Graph>().insert(*graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = device().resolve(stream).capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  must_be_alive(graph, "a graph");
  auto made = std::make_unique<ExecutableGraph>();
  made->graph = *graph;
  for (std::size_t lane = 0; lane < graph->lanes; ++lane) made->streams.push_back(device().new_stream_number());
  made->counts.resize(graph->lanes);
  *executable = made.release();
  alive<ExecutableGraph>().insert(*executable);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  must_be_alive(executable, "an executable graph");
  Stream& queue = device().resolve(stream);
  if (queue.capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  if (device().breaks_capture(queue)) return cudaErrorStreamCaptureImplicit;
  for (const Node& node : executable->graph.nodes) {
    if (const auto* external = std::get_if<RecordExternal>(&node.work)) must_be_alive(external->event, "a graph's event");
  }
  device().launch_graph(*executable, queue);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  must_be_alive(graph, "a graph");
  alive<Graph>().erase(graph);
  const std::unique_ptr<Graph> owner(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  must_be_alive(executable, "an executable graph");
  alive<ExecutableGraph>().erase(executable);
  const std::unique_ptr<ExecutableGraph> owner(executable);
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace lathe::emulation
