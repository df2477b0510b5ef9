#include "lathe/runtime/device.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "lathe/kernels/cpu_target.h"
#include "lathe/runtime/cuda_context.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"
#include "lathe/runtime/memory_pool.h"

namespace lathe {
namespace {

constexpr const char* kAdvice = "use a smaller --batch-size or --max-length";

/// What a rehearsal captures.
class NoWork : public CapturedWork {
 public:
  void replay() const override {}
#ifdef LATHE_EMULATED
  void expect_same_as(const CapturedWork&) const override {}
#endif
};

}  // namespace

Storage::Storage(const Storage& other) noexcept : block_(other.block_) {
  if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
}
Storage::Storage(Storage&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
Storage& Storage::operator=(Storage other) noexcept {
  std::swap(block_, other.block_);
  return *this;
}
Storage::~Storage() {
  if (block_ != nullptr && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const DeviceRef owner = std::move(block_->device);
    Device::release(block_);
  }
}
std::byte* Storage::data() const noexcept { return block_->data; }
std::int64_t Storage::bytes() const noexcept { return block_->bytes; }
const DeviceRef& Storage::device() const noexcept { return block_->device; }

DeviceRef Device::cpu(const CpuOptions& options) {
  if (options.threads < 1)
    throw UsageError(fmt::format("a device needs at least one thread; {} were asked for", options.threads));
  const CpuTarget best = [] {
    try {
      return best_cpu_target();
    } catch (const std::runtime_error& failure) {
      throw UsageError(failure.what());
    }
  }();
  const CpuTarget target = options.target.value_or(best);
  if (target > best) throw UsageError(fmt::format("this processor can't run kernels for {}", lathe::name(target)));
  return DeviceRef(new Device(options, target));  // the constructor is private to make_shared
}

Device::Device(const CpuOptions& options, CpuTarget target)
    : cpu_stream_{.threads = options.threads, .target = target, .plans = &plans_} {
  const std::int64_t physical = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  // Under a limit on addresses (ulimit -v) the half of what is left: weights are mapped, and data lies outside tensors.
  const std::int64_t most = std::min(2 * physical, available_addresses() / 2);
  const std::int64_t bytes = options.reserved_bytes > 0 ? options.reserved_bytes : std::max<std::int64_t>(most, 1 << 20);
  memory_ = std::make_unique<MemoryPool>(host_memory_source(bytes), kAdvice);
}

int Device::visible_gpus() { return CudaContext::visible_gpus(); }

std::vector<std::string> Device::visible_gpu_uuids() { return CudaContext::visible_uuids(); }

std::optional<std::string> Device::why_no_cuda(const CudaOptions& options) { return CudaContext::obstacle(options); }

DeviceRef Device::cuda(const CudaOptions& options) { return DeviceRef(new Device(CudaContext::create(options))); }

Device::Device(std::unique_ptr<CudaContext> cuda)
    : cuda_(std::move(cuda)), memory_(std::make_unique<MemoryPool>(cuda_->memory_source(), kAdvice)) {}

DeviceRef Device::rehearsal(const DeviceRef& of) { return DeviceRef(new Device(of)); }

Device::Device(DeviceRef rehearsed)
    : cpu_stream_(rehearsed->cpu_stream_),
      memory_(std::make_unique<MemoryPool>(promised_memory_source(PromisedMemory::lasting), kAdvice)),
      rehearsed_(std::move(rehearsed)) {
  cpu_stream_.work = Work::rehearsed;
}

Device::~Device() = default;

DeviceKind Device::kind() const noexcept {
  if (rehearsed_ != nullptr) return rehearsed_->kind();
  return cuda_ == nullptr ? DeviceKind::cpu : DeviceKind::cuda;
}

std::string Device::name() const {
  if (rehearsed_ != nullptr) return rehearsed_->name();
  return cuda_ == nullptr ? "cpu" : cuda_->name();
}

std::string Device::matrix_products() const {
  if (rehearsed_ != nullptr) return rehearsed_->matrix_products();
  return cuda_ == nullptr ? MatmulPlans::library() : cuda_->matrix_products();
}

CpuStream Device::cpu_stream() const {
  if (kind() != DeviceKind::cpu) throw LogicError("a CUDA device was asked for a CPU stream");
  return cpu_stream_;
}

CudaStream Device::cuda_stream() const {
  if (kind() != DeviceKind::cuda) throw LogicError("the CPU was asked for a CUDA stream");
  if (rehearsed_ == nullptr) return cuda_->stream();
  CudaStream stream = rehearsed_->cuda_stream();
  stream.work = Work::rehearsed;
  return stream;
}

void Device::tune_products() {
  if (rehearsed_ != nullptr) throw LogicError("a rehearsal was asked to time products, which it doesn't compute");
  if (cuda_ == nullptr) throw LogicError("the CPU was asked to time a GPU's products");
  refuse_while_capturing("timing");
  cuda_->tune_products();
}

std::string Device::product_table() const {
  if (rehearsed_ != nullptr) return rehearsed_->product_table();
  return cuda_ == nullptr ? "" : cuda_->product_table();
}

void Device::use_product_table(std::string_view table) {
  if (rehearsed_ != nullptr) throw LogicError("a rehearsal was given a table of products, which it doesn't compute");
  if (cuda_ == nullptr) throw UsageError("a table of products is a GPU's: the CPU has none");
  cuda_->use_product_table(table);
}

Storage Device::allocate(std::int64_t bytes) {
  MemoryPool& pool = in_step_.load(std::memory_order_relaxed) && step_memory_ != nullptr ? *step_memory_ : *memory_;
  Storage::Block* block = pool.take(bytes);
  block->device = shared_from_this();
  return Storage(block);
}

void Device::release(Storage::Block* block) noexcept { block->pool->give_back(block); }

MemoryUse Device::memory() const {
  const MemoryUse lasting = memory_->use();
  const MemoryUse step = step_memory_ != nullptr ? step_memory_->use() : MemoryUse{};
  return {.now = lasting.now + step.now, .peak = lasting.peak + step.peak};
}

std::int64_t Device::available_memory() const {
  return memory_->available() + (step_memory_ != nullptr ? step_memory_->free() : 0);
}

void Device::begin_step() {
  if (in_step_.exchange(true)) throw LogicError("a step's memory was asked for in a step");
  if (kind() == DeviceKind::cuda && step_memory_ == nullptr) {
    try {
      step_memory_ = std::make_unique<MemoryPool>(
          rehearsed_ != nullptr ? promised_memory_source(PromisedMemory::step) : cuda_->memory_source(), kAdvice);
    } catch (...) {
      in_step_ = false;
      throw;
    }
  }
}

void Device::end_step() noexcept { in_step_ = false; }

std::unique_ptr<CapturedWork> Device::capture(const std::function<void()>& work) {
  if (kind() != DeviceKind::cuda) throw LogicError("the CPU was asked to capture a graph");
  refuse_while_capturing("another capture");
  capturing_ = true;
  try {
    std::unique_ptr<CapturedWork> captured;
    if (rehearsed_ == nullptr) {
      captured = cuda_->capture(work);
    } else {
      work();
      captured = std::make_unique<NoWork>();
    }
    capturing_ = false;
    return captured;
  } catch (...) {
    capturing_ = false;
    throw;
  }
}

void Device::refuse_while_capturing(const char* what) const {
  if (capturing_) throw LogicError(fmt::format("{} in what is captured for replay, where it would happen once", what));
}

void Device::upload(std::byte* to, std::span<const std::byte> from) {
  if (from.empty()) return;
  refuse_while_capturing("an upload");
  if (rehearsed_ != nullptr) return;
  if (cuda_ != nullptr) {
    cuda_->upload(to, from);
  } else {
    std::memcpy(to, from.data(), from.size());
  }
}

std::span<std::byte> Device::stage(std::byte* to, std::int64_t bytes) {
  const auto count = static_cast<std::size_t>(bytes);
  if (rehearsed_ != nullptr) {
    scratch_.resize(std::max(scratch_.size(), count));
    return std::span(scratch_).first(count);
  }
  return cuda_ == nullptr ? std::span(to, count) : cuda_->stage(count);
}

void Device::send(std::byte* to, std::span<const std::byte> staged) {
  if (cuda_ != nullptr) cuda_->send(to, staged);
}

void Device::download(std::span<std::byte> to, const std::byte* from) {
  if (to.empty()) return;
  refuse_while_capturing("a download");
  if (rehearsed_ != nullptr) {
    std::ranges::fill(to, std::byte{0});
  } else if (cuda_ != nullptr) {
    cuda_->download(to, from);
  } else {
    std::memcpy(to.data(), from, to.size());
  }
}

void Device::fill_zero(std::byte* to, std::int64_t bytes) {
  if (bytes == 0 || rehearsed_ != nullptr) return;
  if (cuda_ != nullptr) {
    cuda_->fill_zero(to, bytes);
  } else {
    std::memset(to, 0, static_cast<std::size_t>(bytes));
  }
}

void Device::copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (bytes == 0 || rehearsed_ != nullptr) return;
  if (cuda_ != nullptr) {
    cuda_->copy(to, from, bytes);
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
}

void Device::synchronize() {
  refuse_while_capturing("waiting for the device");
  if (cuda_ != nullptr) cuda_->synchronize();
}

}  // namespace lathe
