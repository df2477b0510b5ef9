#include "lathe/runtime/cuda_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/kernels/matmul_cuda_plans.h"
#include "lathe/kernels/matmul_library.h"
#include "lathe/kernels/matmul_timer.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/pinned_ring.h"

namespace lathe {
namespace {

constexpr int kOldestCapability = 80;

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

/// Why a GPU can't be used, and what to do about it.
struct Obstacle {
  std::string what, advice;
};

std::optional<Obstacle> find_obstacle(int index) {
  int driver = 0;
  int runtime = 0;
  check(cudaDriverGetVersion(&driver));
  check(cudaRuntimeGetVersion(&runtime));
  if (driver == 0) return Obstacle{"no NVIDIA driver was found", "install one, or use --device cpu"};
  // Within a major version of CUDA an older driver serves a newer runtime.
  if (driver / 1000 < runtime / 1000) {
    return Obstacle{fmt::format("the NVIDIA driver is for CUDA {}, and this build of Lathe needs one for CUDA {}.0 or later",
                                version(driver), runtime / 1000),
                    "update the driver, or use --device cpu"};
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    static_cast<void>(cudaGetLastError());
    return Obstacle{"no GPU was found", "use --device cpu (CUDA_VISIBLE_DEVICES may hide it)"};
  }
  check(status);
  if (index < 0 || index >= count) {
    return Obstacle{fmt::format("GPU {} was asked for, and there {} {}, from 0 on", index, count == 1 ? "is" : "are", count),
                    "choose another, or use --device cpu"};
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index));
  if (10 * properties.major + properties.minor < kOldestCapability) {
    return Obstacle{fmt::format("GPU {} ({}) has compute capability {}.{}; Lathe's kernels need 8.0 or later", index,
                                properties.name, properties.major, properties.minor),
                    "use --device cpu"};
  }
  return std::nullopt;
}

/// Makes the GPU current, or says in one line why it can't be used.
cudaDeviceProp use_gpu(int index) {
  if (const auto obstacle = find_obstacle(index)) throw UsageError(obstacle->what + ": " + obstacle->advice);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index));
  check(cudaSetDevice(index));
  return properties;
}

/// What all pools of a GPU may take together.
struct Budget {
  explicit Budget(std::int64_t most) : limit(most) {}
  std::int64_t limit;  // 0: what the GPU has
  std::int64_t taken = 0;
  std::mutex mutex;
};

/// Pieces of the GPU's memory, of at least kPiece bytes each, until the limit.
class GpuMemory : public MemorySource {
 public:
  explicit GpuMemory(std::shared_ptr<Budget> budget) : budget_(std::move(budget)) {}
  ~GpuMemory() override {
    for (std::byte* piece : pieces_) static_cast<void>(cudaFree(piece));
  }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  GpuMemory(GpuMemory&&) = delete;
  GpuMemory& operator=(GpuMemory&&) = delete;

  std::span<std::byte> grow(std::int64_t bytes) override {
    const std::scoped_lock lock(budget_->mutex);
    const std::int64_t left = budget_->limit > 0 ? budget_->limit - budget_->taken : bytes + kPiece;
    // Of little memory a small part: there is another pool, which needs some too.
    const std::int64_t piece = budget_->limit > 0 ? std::min(kPiece, budget_->limit / 16) : kPiece;
    if (bytes > left) return {};
    // A large piece is asked for first, since pieces are never joined; where there is no room for it, what is needed.
    for (const std::int64_t wanted : {std::min(std::max(bytes, piece), left), bytes}) {
      void* memory = nullptr;
      const cudaError_t status = cudaMalloc(&memory, static_cast<std::size_t>(wanted));
      if (status == cudaErrorMemoryAllocation) {
        static_cast<void>(cudaGetLastError());
        continue;
      }
      check(status);
      pieces_.push_back(static_cast<std::byte*>(memory));
      budget_->taken += wanted;
      return {pieces_.back(), static_cast<std::size_t>(wanted)};
    }
    return {};
  }

  std::int64_t available(std::int64_t free) const override {
    std::size_t on_device = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&on_device, &total));
    const auto more = static_cast<std::int64_t>(on_device);
    const std::scoped_lock lock(budget_->mutex);
    return free + (budget_->limit > 0 ? std::min(more, budget_->limit - budget_->taken) : more);
  }

  bool admit(std::int64_t, const std::byte*) override { return true; }

 private:
  static constexpr std::int64_t kPiece = std::int64_t{64} << 20;

  std::shared_ptr<Budget> budget_;
  std::vector<std::byte*> pieces_;
};

class GpuGraph : public CapturedWork {
 public:
  GpuGraph(OwnedGraph graph, cudaStream_t stream) : graph_(std::move(graph)), stream_(stream) {
    cudaGraphExec_t executable = nullptr;
    check(cudaGraphInstantiate(&executable, graph_.get(), 0));
    executable_.reset(executable);
  }
  void replay() const override { check(cudaGraphLaunch(executable_.get(), stream_)); }
#ifdef LATHE_EMULATED
  void expect_same_as(const CapturedWork& again) const override {
    emulation::expect_same_arguments(graph_.get(), dynamic_cast<const GpuGraph&>(again).graph_.get());
  }
#endif

 private:
  OwnedGraph graph_;
  OwnedExecutableGraph executable_;
  cudaStream_t stream_;
};

class Gpu : public CudaContext {
 public:
  explicit Gpu(const Device::CudaOptions& options)
      : budget_(std::make_shared<Budget>(options.limit_bytes)),
        name_(use_gpu(options.index).name),
        stream_(make_stream()),
        plans_(std::make_unique<CudaMatmulPlans>(make_matmul_library())) {}

  std::string name() const override { return name_; }
  std::string matrix_products() const override { return plans_->library().name(); }
  void tune_products() override {
#ifdef LATHE_EMULATED
    // What is emulated has no times, and no cache to be filled between them.
    plans_->tune(time_on_device(stream_.get(), plans_->library(), 0));
#else
    plans_->tune(time_on_device(stream_.get(), plans_->library()));
#endif
  }
  std::string product_table() const override { return plans_->table(); }
  void use_product_table(std::string_view table) override {
    try {
      plans_->use_table(table);
    } catch (const std::invalid_argument& failure) {
      throw UsageError(failure.what());
    }
  }
  CudaStream stream() const override { return {.handle = stream_.get(), .plans = plans_.get()}; }
  std::unique_ptr<MemorySource> memory_source() override { return std::make_unique<GpuMemory>(budget_); }
  std::unique_ptr<CapturedWork> capture(const std::function<void()>& work) override {
    // Relaxed: memory may be taken meanwhile, whose addresses the graph then holds.
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeRelaxed));
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream_.get(), &graph));
      static_cast<void>(OwnedGraph(graph));
      throw;
    }
    check(cudaStreamEndCapture(stream_.get(), &graph));
    return std::make_unique<GpuGraph>(OwnedGraph(graph), stream_.get());
  }
  void upload(std::byte* to, std::span<const std::byte> from) override { ring_.upload(to, from, stream_.get()); }
  std::span<std::byte> stage(std::size_t bytes) override { return ring_.stage(bytes); }
  void send(std::byte* to, std::span<const std::byte> staged) override { ring_.send(to, staged, stream_.get()); }
  void download(std::span<std::byte> to, const std::byte* from) override {
    check(cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDeviceToHost, stream_.get()));
    synchronize();
  }
  void fill_zero(std::byte* to, std::int64_t bytes) override {
    check(cudaMemsetAsync(to, 0, static_cast<std::size_t>(bytes), stream_.get()));
  }
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream_.get()));
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_.get())); }

 private:
  std::shared_ptr<Budget> budget_;
  std::string name_;
  OwnedStream stream_;
  std::unique_ptr<CudaMatmulPlans> plans_;
  PinnedRing ring_;
};

}  // namespace

CudaBackend cuda_backend() noexcept {
#ifdef LATHE_EMULATED
  return CudaBackend::emulated;
#else
  return CudaBackend::gpu;
#endif
}

int CudaContext::visible_gpus() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  static_cast<void>(cudaGetLastError());
  return 0;
}

std::vector<std::string> CudaContext::visible_uuids() {
  std::vector<std::string> uuids;
  for (int i = 0; i < visible_gpus(); ++i) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, i));
    // As nvidia-smi has it.
    std::string text = "GPU";
    for (std::size_t byte = 0; byte < sizeof(properties.uuid.bytes); ++byte) {
      const bool group = byte == 0 || byte == 4 || byte == 6 || byte == 8 || byte == 10;
      text += fmt::format("{}{:02x}", group ? "-" : "", static_cast<unsigned char>(properties.uuid.bytes[byte]));
    }
    uuids.push_back(std::move(text));
  }
  return uuids;
}

std::optional<std::string> CudaContext::obstacle(const Device::CudaOptions& options) {
  try {
    const auto found = find_obstacle(options.index);
    return found ? std::optional(found->what) : std::nullopt;
  } catch (const CudaError& failure) {
    return std::string("the GPU can't be used: ") + failure.what();
  }
}

std::unique_ptr<CudaContext> CudaContext::create(const Device::CudaOptions& options) {
  try {
    return std::make_unique<Gpu>(options);
  } catch (const CudaError& failure) {
    if (failure.status() != cudaErrorMemoryAllocation) {
      throw UsageError(
          fmt::format("GPU {} can't be used: {}: choose another, or use --device cpu", options.index, failure.what()));
    }
    throw OutOfMemoryError(
        fmt::format("GPU {} has no memory left to begin with: another program may hold it; end that, choose another GPU, or use "
                    "--device cpu",
                    options.index),
        0, 0);
  }
}

}  // namespace lathe
