#include "lathe/runtime/communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <unistd.h>

namespace lathe {
namespace {

/// One process: what it has is everybody's already.
class SingleCommunicator final : public Communicator {
 public:
  SingleCommunicator(DeviceKind kind, std::string host) : Communicator({.host = std::move(host)}), kind_(kind) {}

  DeviceKind device_kind() const noexcept override { return kind_; }
  std::string transport() const override { return ""; }

 private:
  void do_barrier() override {}
  void do_broadcast(std::span<std::byte> /*data*/, int /*root*/) override {}
  std::vector<std::string> do_gather(std::string_view mine) override { return {std::string(mine)}; }
  void do_all_reduce_sum(const Tensor& /*data*/) override {}
  void do_reduce_scatter_sum(const Tensor& /*data*/, std::int64_t /*block*/) override {}
  void do_all_gather(const Tensor& /*data*/, std::int64_t /*block*/) override {}

  DeviceKind kind_;
};

std::string describe(std::string_view operation, const Tensor& data) {
  return fmt::format("{} of {} {}", operation, data.size(), to_string(data.dtype()));
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

}  // namespace

Share share_of(std::int64_t count, std::int64_t block, int rank, int size) {
  if (count < 0 || block < 1 || size < 1 || rank < 0 || rank >= size) {
    throw LogicError(fmt::format("rank {} of {} has no share of {} elements in blocks of {}", rank, size, count, block));
  }
  const std::int64_t blocks = count / block + (count % block != 0 ? 1 : 0);
  const std::int64_t each = blocks / size;
  const std::int64_t more = blocks % size;
  // The end of the last block, which may be short, is not a multiple of the block's size.
  const auto begin_of = [&](std::int64_t r) {
    const std::int64_t before = r * each + std::min(r, more);
    return before >= blocks ? count : before * block;
  };
  return {.begin = begin_of(rank), .count = begin_of(rank + 1) - begin_of(rank)};
}

CommunicationError::CommunicationError(std::string_view operation, int rank, std::string_view host, std::string_view message)
    : Error(fmt::format("{} on rank {} (host {}): {}", operation, rank, shortened(printable(host), 60), message)),
      operation_(operation),
      rank_(rank),
      host_(host) {}

void Communicator::fail(std::string_view operation, std::string_view message) {
  if (failure_.empty()) failure_ = fmt::format("{}: {}", operation, message);
  throw CommunicationError(operation, place_.rank, place_.host, message);
}

void Communicator::check_usable(std::string_view operation) const {
  if (failure_.empty()) return;
  throw CommunicationError(operation, place_.rank, place_.host, "not begun, as an earlier operation failed: " + failure_);
}

void Communicator::check(const Tensor& data, std::int64_t block, std::string_view operation) const {
  check_usable(operation);
  if (!data) throw LogicError(fmt::format("{} of an empty handle", operation));
  if (data.dtype() != DType::f32 && data.dtype() != DType::bf16) {
    throw LogicError(fmt::format("{} of {}: ranks sum and share f32 and bf16", operation, to_string(data.dtype())));
  }
  if (data.device()->kind() != device_kind()) {
    const auto memory = [](DeviceKind kind) { return kind == DeviceKind::cpu ? "the host's" : "a GPU's"; };
    throw LogicError(fmt::format("{} of a tensor in {} memory, by a communicator for {}", operation,
                                 memory(data.device()->kind()), memory(device_kind())));
  }
  if (block < 1) throw LogicError(fmt::format("{} in blocks of {} elements", operation, block));
}

void Communicator::barrier() {
  check_usable("barrier");
  const Watched watched(watch_, [] { return "barrier"; });
  do_barrier();
}

void Communicator::broadcast(std::span<std::byte> data, int root) {
  check_usable("broadcast");
  if (root < 0 || root >= size()) throw LogicError(fmt::format("broadcast from rank {} of {}", root, size()));
  const Watched watched(watch_, [&] { return fmt::format("broadcast of {} bytes from rank {}", data.size(), root); });
  do_broadcast(data, root);
}

std::vector<std::string> Communicator::gather(std::string_view mine) {
  check_usable("gather");
  const Watched watched(watch_, [] { return "gather"; });
  return do_gather(mine);
}

void Communicator::all_reduce_sum(const Tensor& data) {
  check(data, 1, "all-reduce");
  const Watched watched(watch_, [&] { return describe("all-reduce", data); });
  do_all_reduce_sum(data);
}

void Communicator::reduce_scatter_sum(const Tensor& data, std::int64_t block) {
  check(data, block, "reduce-scatter");
  const Watched watched(watch_, [&] { return describe("reduce-scatter", data); });
  do_reduce_scatter_sum(data, block);
}

void Communicator::all_gather(const Tensor& data, std::int64_t block) {
  check(data, block, "all-gather");
  const Watched watched(watch_, [&] { return describe("all-gather", data); });
  do_all_gather(data, block);
}

void Communicator::follow_device() {
  check_usable("waiting for the device");
  do_follow_device();
}

void Communicator::follow(const DeviceEvent& event) {
  check_usable("waiting for an event");
  if (event.device()->kind() != device_kind())
    throw LogicError("a communicator was to wait for an event of another kind of device");
  do_follow(event);
}

void Communicator::lead_device() {
  check_usable("letting the device wait");
  do_lead_device();
}

void Communicator::wait() {
  check_usable("waiting for collectives");
  const Watched watched(watch_, [] { return "waiting for collectives"; });
  do_wait();
}

void Communicator::mark(TimedEvent& event) {
  check_usable("marking a moment");
  do_mark(event);
}

std::unique_ptr<Communicator> make_single_communicator(DeviceKind kind) {
  return std::make_unique<SingleCommunicator>(kind, host_name());
}

}  // namespace lathe
