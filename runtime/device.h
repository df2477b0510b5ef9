#pragma once
// A device: where tensors live and kernels run, with its memory and its stream.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/kernels/matmul.h"
#include "lathe/kernels/stream.h"

namespace [[gnu::visibility("default")]] lathe {

class Device;
using DeviceRef = std::shared_ptr<Device>;

/// A counted block of a device's memory. The handle is cheap to copy; the memory goes back to the device with the last one.
/// Counting and allocation are safe from several threads.
// NOLINTNEXTLINE(cppcoreguidelines-special-member-functions): the assignment takes its operand by value, copied or moved.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) noexcept;
  Storage(Storage&& other) noexcept;
  Storage& operator=(Storage other) noexcept;
  ~Storage();

  std::byte* data() const noexcept;
  std::int64_t bytes() const noexcept;
  const DeviceRef& device() const noexcept;
  explicit operator bool() const noexcept { return block_ != nullptr; }
  bool operator==(const Storage& other) const noexcept = default;

 private:
  friend class Device;
  friend class MemoryPool;
  struct Block;
  explicit Storage(Block* block) noexcept : block_(block) {}
  Block* block_ = nullptr;
};

/// What a device has handed out, in bytes.
struct MemoryUse {
  std::int64_t now = 0;
  std::int64_t peak = 0;
};

class CapturedWork;
class CudaContext;
class MemoryPool;

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// What Device::cuda gives in this build: nothing, a GPU, or the host in a GPU's place.
enum class CudaBackend : std::uint8_t { none, gpu, emulated };
CudaBackend cuda_backend() noexcept;

/// Freed blocks of memory are joined and used again, the lowest that fits first. A step that allocates as the step before therefore gets the
/// same addresses and asks the system for nothing. On the CPU memory comes from one range of addresses that is reserved at once and
/// becomes real as it is first touched; on a GPU from pieces that grow as needed. There a block that is freed may be used again at once,
/// by what is enqueued later on the device's one stream of kernels.
class Device : public std::enable_shared_from_this<Device> {
 public:
  struct CpuOptions {
    int threads = 1;
    /// The instruction set of the kernels; the processor's best where empty.
    std::optional<CpuTarget> target;
    /// Addresses reserved for tensors; twice the machine's memory where 0.
    std::int64_t reserved_bytes = 0;
  };
  /// Throws UsageError where the processor lacks AVX2, or can't run `target`, and OutOfMemoryError where addresses can't be
  /// reserved.
  static DeviceRef cpu(const CpuOptions& options);

  struct CudaOptions {
    int index = 0;  ///< which of the GPUs that CUDA shows
    /// Bytes that tensors may have; what the GPU has where 0.
    std::int64_t limit_bytes = 0;
  };
  /// A GPU, or in a build with LATHE_CUDA=EMULATED the host in its place. Throws UsageError where there is none, where this build has no
  /// CUDA backend, where the driver is older than the runtime needs or the GPU older than the kernels do (compute capability 8.0), and where
  /// CUDA refuses it; OutOfMemoryError where another program has all of its memory.
  static DeviceRef cuda(const CudaOptions& options);
  /// Why Device::cuda would refuse, in a few words: "no NVIDIA driver was found"; nothing where it wouldn't.
  static std::optional<std::string> why_no_cuda(const CudaOptions& options);

  /// The GPUs that CUDA shows; 0 where there is none to be had.
  static int visible_gpus();
  /// Of each of them what no other GPU has, on whatever host: "GPU-5fd4f087-86f3-7a43-b711-4771313afc50". An emulated GPU is its process's own.
  /// Throws CudaError.
  static std::vector<std::string> visible_gpu_uuids();

  /// A device like `of` on which only sizes are real: kernels are checked, and not run; memory is handed out as `of` would, is counted, and isn't
  /// there; what is downloaded is zeros. What a model and its steps need of a device can be had from it without a byte or a moment of `of`.
  static DeviceRef rehearsal(const DeviceRef& of);

  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  Device(Device&&) = delete;
  Device& operator=(Device&&) = delete;

  /// Uninitialised memory aligned to 64 bytes. Throws OutOfMemoryError.
  Storage allocate(std::int64_t bytes);
  /// What lives now, and the most that ever did; where steps have memory of their own (runtime/graph.h), the most of both together.
  MemoryUse memory() const;
  /// Bytes that tensors can have beside those that live now, as far as the system tells.
  std::int64_t available_memory() const;
  DeviceKind kind() const noexcept;
  /// "cpu", "NVIDIA H100 80GB HBM3", "emulated sm_80".
  std::string name() const;
  /// What multiplies matrices: "oneDNN 2.6.3", "cuBLASLt 13.1.0 on NVIDIA H200".
  std::string matrix_products() const;
  /// On a GPU: times the library's algorithms for every matrix product that was prepared so far, and takes the fastest of each. Another run may
  /// find others as fast, and then has other bits: product_table() goes with what is to be repeated. Waits for the device. Throws LogicError on
  /// the CPU.
  void tune_products();
  /// Which algorithm computes which product, of those that were prepared, as text; empty on the CPU.
  std::string product_table() const;
  /// Takes the choices of a table over. Throws UsageError, and takes nothing, where it is no table, or comes from another library, version or
  /// GPU; and on the CPU.
  void use_product_table(std::string_view table);
  /// Where kernels run. Throws LogicError for the other kind of device.
  CpuStream cpu_stream() const;
  CudaStream cuda_stream() const;

  /// Copies host bytes into the device's memory, after all that was enqueued before and before all that will be. `from` may be changed as
  /// soon as it returns.
  void upload(std::byte* to, std::span<const std::byte> from);
  /// Memory of the host for `bytes` bytes that will go to `to`: the device's own on the CPU, pinned for a GPU. What the caller writes there goes
  /// with send(), which comes before the next stage() and enqueues the copy as upload() does.
  std::span<std::byte> stage(std::byte* to, std::int64_t bytes);
  void send(std::byte* to, std::span<const std::byte> staged);
  /// Copies to the host, once all that was enqueued before has run, and waits for it.
  void download(std::span<std::byte> to, const std::byte* from);
  void fill_zero(std::byte* to, std::int64_t bytes);
  /// Copies within the device.
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes);
  /// Waits for all that was enqueued. Throws CudaError where a kernel failed.
  void synchronize();
  /// A number that no other tensor of this device has.
  std::uint64_t next_id() noexcept { return next_id_.fetch_add(1, std::memory_order_relaxed); }

 private:
  friend class Graph;
  friend class StepMemory;
  friend class Storage;
  explicit Device(const CpuOptions& options, CpuTarget target);
  explicit Device(std::unique_ptr<CudaContext> cuda);
  explicit Device(DeviceRef rehearsed);
  static void release(Storage::Block* block) noexcept;
  void begin_step();
  void end_step() noexcept;
  std::unique_ptr<CapturedWork> capture(const std::function<void()>& work);
  void refuse_while_capturing(const char* what) const;

  MatmulPlans plans_;
  CpuStream cpu_stream_;
  std::unique_ptr<CudaContext> cuda_;  // null for the CPU
  std::unique_ptr<MemoryPool> memory_;
  std::unique_ptr<MemoryPool> step_memory_;  // null until there is a StepMemory, and for the CPU
  std::atomic<bool> in_step_{false};
  bool capturing_ = false;
  DeviceRef rehearsed_;             // that this one is only the sizes of
  std::vector<std::byte> scratch_;  // what a rehearsal stages
  std::atomic<std::uint64_t> next_id_{1};
};

/// Scratch memory for one kernel call.
class Workspace {
 public:
  Workspace(Device& device, std::int64_t bytes) : storage_(bytes > 0 ? device.allocate(bytes) : Storage()) {}
  std::byte* data() const noexcept { return storage_ ? storage_.data() : nullptr; }

 private:
  Storage storage_;
};

}  // namespace lathe
