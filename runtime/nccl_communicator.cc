#include "lathe/runtime/nccl_communicator.h"

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "lathe/kernels/cast.h"
#include "lathe/runtime/cuda_handles.h"
#include "lathe/runtime/nccl_api.h"
#include "lathe/runtime/recorded_event.h"

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;

/// Between questions whether something is done: short at first, for what nearly is, and then without a core of its own.
class Patience {
 public:
  void pause() {
    if (++asked_ < 1000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  int asked_ = 0;
};

/// A group of calls, which NCCL begins together.
class Group {
 public:
  Group() { static_cast<void>(ncclGroupStart()); }
  ~Group() {
    if (!ended_) static_cast<void>(ncclGroupEnd());
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  Group(Group&&) = delete;
  Group& operator=(Group&&) = delete;
  ncclResult_t end() {
    ended_ = true;
    return ncclGroupEnd();
  }

 private:
  bool ended_ = false;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(DeviceRef device, Communicator& bootstrap, const NcclOptions& options)
      : Communicator(bootstrap.place()),
        device_(std::move(device)),
        bootstrap_(&bootstrap),
        exceptions_(std::uncaught_exceptions()) {
    ncclUniqueId id{};
    if (rank() == 0) settle(ncclGetUniqueId(&id), kStart);
    bootstrap.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    try {
      settle(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), kStart, Clock::now() + options.start_timeout);
    } catch (...) {
      abort();
      throw;
    }
  }

  ~NcclCommunicator() override {
    if (comm_ == nullptr) return;
    // Who leaves because of an exception leaves the others waiting, and must not wait for them.
    if (failed() || std::uncaught_exceptions() != exceptions_ || !leave_in_order()) abort();
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  NcclCommunicator(NcclCommunicator&&) = delete;
  NcclCommunicator& operator=(NcclCommunicator&&) = delete;

  DeviceKind device_kind() const noexcept override { return DeviceKind::cuda; }
  std::string transport() const override { return nccl_library(); }

 private:
  void do_barrier() override { bootstrap_->barrier(); }
  void do_broadcast(std::span<std::byte> data, int root) override { bootstrap_->broadcast(data, root); }
  std::vector<std::string> do_gather(std::string_view mine) override { return bootstrap_->gather(mine); }

  void do_all_reduce_sum(const Tensor& data) override {
    if (data.size() == 0) return;
    sum(data, {.begin = 0, .count = data.size()}, [&](float* elements) {
      call("all-reduce",
           ncclAllReduce(elements, elements, static_cast<std::size_t>(data.size()), ncclFloat32, ncclSum, comm_, stream_.get()));
    });
  }

  void do_reduce_scatter_sum(const Tensor& data, std::int64_t block) override {
    if (data.size() == 0) return;
    const std::vector<Share> shares = shares_of(data, block);
    const Share own = shares[static_cast<std::size_t>(rank())];
    sum(data, own, [&](float* elements) {
      if (are_equal(shares)) {
        call("reduce-scatter", ncclReduceScatter(elements, elements + own.begin, static_cast<std::size_t>(own.count), ncclFloat32,
                                                 ncclSum, comm_, stream_.get()));
        return;
      }
      each(shares, "reduce-scatter", [&](const Share& share, int root) {
        float* at = elements + share.begin;
        return ncclReduce(at, at, static_cast<std::size_t>(share.count), ncclFloat32, ncclSum, root, comm_, stream_.get());
      });
    });
  }

  void do_all_gather(const Tensor& data, std::int64_t block) override {
    if (data.size() == 0) return;
    const std::vector<Share> shares = shares_of(data, block);
    const Share own = shares[static_cast<std::size_t>(rank())];
    const ncclDataType_t type = data.dtype() == DType::f32 ? ncclFloat32 : ncclBfloat16;
    auto* const elements = data.dtype() == DType::f32 ? reinterpret_cast<std::byte*>(data.data<float>())
                                                      : reinterpret_cast<std::byte*>(data.data<Bf16>());
    const std::int64_t width = size_of(data.dtype());
    if (are_equal(shares)) {
      call("all-gather", ncclAllGather(elements + own.begin * width, elements, static_cast<std::size_t>(own.count), type, comm_,
                                       stream_.get()));
      return;
    }
    each(shares, "all-gather", [&](const Share& share, int root) {
      std::byte* at = elements + share.begin * width;
      return ncclBroadcast(at, at, static_cast<std::size_t>(share.count), type, root, comm_, stream_.get());
    });
  }

  void do_follow_device() override { order(device_->cuda_stream().handle, stream_.get()); }
  void do_follow(const DeviceEvent& event) override {
    lathe::check(cudaStreamWaitEvent(stream_.get(), event.recorded()->event.get(), 0));
  }
  void do_mark(TimedEvent& event) override { lathe::check(cudaEventRecord(event.recording()->event.get(), stream_.get())); }
  void do_lead_device() override { order(stream_.get(), device_->cuda_stream().handle); }

  void do_wait() override {
    // Not cudaStreamSynchronize: where another rank is gone, it wouldn't return.
    for (Patience patience;; patience.pause()) {
      const cudaError_t status = cudaStreamQuery(stream_.get());
      if (status == cudaSuccess) break;
      if (status != cudaErrorNotReady) lathe::check(status);
      watch("waiting for collectives");
    }
    watch("waiting for collectives");
  }

  /// What `later` is given from now on comes after what `earlier` has been given.
  void order(cudaStream_t earlier, cudaStream_t later) {
    lathe::check(cudaEventRecord(moment_.get(), earlier));
    lathe::check(cudaStreamWaitEvent(later, moment_.get(), 0));
  }

  std::vector<Share> shares_of(const Tensor& data, std::int64_t block) const {
    std::vector<Share> shares;
    shares.reserve(static_cast<std::size_t>(size()));
    for (int r = 0; r < size(); ++r) shares.push_back(share_of(data.size(), block, r, size()));
    return shares;
  }

  static bool are_equal(std::span<const Share> shares) { return shares.front().count == shares.back().count; }

  /// One call for each rank's share that isn't empty, together: NCCL's own functions for all shares want them of one size.
  template <class F>
  void each(std::span<const Share> shares, const char* operation, const F& f) {
    Group group;
    for (int r = 0; r < size(); ++r) {
      const Share& share = shares[static_cast<std::size_t>(r)];
      if (share.count == 0) continue;
      const ncclResult_t result = f(share, r);
      if (result != ncclSuccess && result != ncclInProgress) call(operation, result);
    }
    call(operation, group.end());
  }

  /// Calls f(elements) with what is to be summed in fp32, and brings `result` of it back where the tensor is bf16.
  template <class F>
  void sum(const Tensor& data, const Share& result, const F& f) {
    if (data.dtype() == DType::f32) {
      f(data.data<float>());
      return;
    }
    const CudaStream stream{.handle = stream_.get(), .plans = nullptr};
    float* const wide = scratch(data.size());
    cast(stream, Cast<float, Bf16>{.y = wide, .x = data.data<Bf16>(), .count = data.size()});
    f(wide);
    if (result.count > 0) {
      cast(stream, Cast<Bf16, float>{.y = data.data<Bf16>() + result.begin, .x = wide + result.begin, .count = result.count});
    }
  }

  float* scratch(std::int64_t count) {
    if (!scratch_ || scratch_.size() < count) {
      // The device gives its memory out in the order of its own stream: that has to be done with the new piece, and gets the old one back.
      do_lead_device();
      scratch_ = Tensor();
      scratch_ = Tensor::empty(device_, DType::f32, Shape{count});
      do_follow_device();
    }
    return scratch_.data<float>();
  }

  /// Takes NCCL's answer to a call, and waits while that is that the call is still going on.
  void call(const char* operation, ncclResult_t result) { settle(result, operation, Clock::time_point::max()); }

  void settle(ncclResult_t result, const char* operation, Clock::time_point end = Clock::time_point::max()) {
    for (Patience patience; result == ncclInProgress; patience.pause()) {
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
      if (asked != ncclSuccess) result = asked;
      if (result == ncclInProgress && Clock::now() > end)
        fail(operation, "not all ranks have come within the time that was set (--start-timeout)");
    }
    if (result != ncclSuccess) give_up(operation, result);
  }

  /// Throws where NCCL has found that something went wrong.
  void watch(const char* operation) {
    ncclResult_t error = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &error);
    if (asked != ncclSuccess) error = asked;
    if (error != ncclSuccess && error != ncclInProgress) give_up(operation, error);
  }

  [[noreturn]] void give_up(const char* operation, ncclResult_t error) {
    const char* last = comm_ == nullptr ? nullptr : ncclGetLastError(comm_);
    std::string text = fmt::format("{}: {}", nccl_library(), ncclGetErrorString(error));
    if (last != nullptr && *last != '\0') text += fmt::format(" ({})", last);
    abort();
    fail(operation, text);
  }

  void abort() noexcept {
    if (comm_ != nullptr) static_cast<void>(ncclCommAbort(comm_));
    comm_ = nullptr;
  }

  /// Lets all that was enqueued end. False where that can't be.
  bool leave_in_order() noexcept {
    try {
      do_wait();
      settle(ncclCommFinalize(comm_), "the end");
      static_cast<void>(ncclCommDestroy(comm_));
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  static constexpr const char* kStart = "the beginning";

  DeviceRef device_;
  Communicator* bootstrap_;
  int exceptions_;  // that were passing when it was made
  Tensor scratch_;  // outlives the stream that uses it
  OwnedStream stream_ = make_stream();
  OwnedEvent moment_ = make_event();
  ncclComm_t comm_ = nullptr;
};

}  // namespace

bool has_nccl() noexcept { return true; }

std::string nccl_library() {
#ifdef LATHE_EMULATED
  return "NCCL emulated";
#else
  int version = 0;
  static_cast<void>(ncclGetVersion(&version));
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
#endif
}

std::unique_ptr<Communicator> make_nccl_communicator(const DeviceRef& device, Communicator& bootstrap,
                                                     const NcclOptions& options) {
  if (device->kind() != DeviceKind::cuda) throw LogicError("NCCL moves what lies on a GPU, and was given the CPU");
  return std::make_unique<NcclCommunicator>(device, bootstrap, options);
}

}  // namespace lathe
