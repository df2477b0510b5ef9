#pragma once
// A GPU as a device: its stream, its memory, and copies between it and the host. Which file fulfils it is a choice of the build.
// Internal to runtime/.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/device.h"
#include "lathe/runtime/memory_pool.h"

namespace lathe {

/// What a graph does, ready to be enqueued.
class CapturedWork {
 public:
  CapturedWork() = default;
  virtual ~CapturedWork() = default;
  CapturedWork(const CapturedWork&) = delete;
  CapturedWork& operator=(const CapturedWork&) = delete;
  CapturedWork(CapturedWork&&) = delete;
  CapturedWork& operator=(CapturedWork&&) = delete;

  virtual void replay() const = 0;
#ifdef LATHE_EMULATED
  virtual void expect_same_as(const CapturedWork& again) const = 0;
#endif
};

class CudaContext {
 public:
  CudaContext() = default;
  virtual ~CudaContext() = default;
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;
  CudaContext(CudaContext&&) = delete;
  CudaContext& operator=(CudaContext&&) = delete;

  /// As Device::cuda.
  static std::unique_ptr<CudaContext> create(const Device::CudaOptions& options);
  /// As Device::why_no_cuda.
  static std::optional<std::string> obstacle(const Device::CudaOptions& options);

  /// As Device::visible_gpus.
  static int visible_gpus();
  /// As Device::visible_gpu_uuids.
  static std::vector<std::string> visible_uuids();

  virtual std::string name() const = 0;
  virtual std::string matrix_products() const = 0;
  virtual void tune_products() = 0;
  virtual std::string product_table() const = 0;
  virtual void use_product_table(std::string_view table) = 0;
  virtual CudaStream stream() const = 0;
  virtual std::unique_ptr<MemorySource> memory_source() = 0;
  /// What `work` enqueues on the stream. It is left as it was where `work` throws.
  virtual std::unique_ptr<CapturedWork> capture(const std::function<void()>& work) = 0;
  virtual void upload(std::byte* to, std::span<const std::byte> from) = 0;
  virtual std::span<std::byte> stage(std::size_t bytes) = 0;
  virtual void send(std::byte* to, std::span<const std::byte> staged) = 0;
  virtual void download(std::span<std::byte> to, const std::byte* from) = 0;
  virtual void fill_zero(std::byte* to, std::int64_t bytes) = 0;
  virtual void copy(std::byte* to, const std::byte* from, std::int64_t bytes) = 0;
  virtual void synchronize() = 0;
};

}  // namespace lathe
