#include "lathe/runtime/mpi_communicator.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_session.h"
#include "lathe/runtime/rank_order_sum.h"

namespace lathe {
namespace {

std::string describe_error(int status) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(status, text.data(), &length) != MPI_SUCCESS) return fmt::format("MPI's error {}", status);
  return {text.data(), static_cast<std::size_t>(length)};
}

/// Throws LogicError where the calling thread may not call MPI now.
void check_mpi() {
  int flag = 0;
  MPI_Initialized(&flag);
  if (flag == 0) throw LogicError("MPI is not initialised: a program that doesn't do it itself makes an MpiSession first");
  MPI_Finalized(&flag);
  if (flag != 0) throw LogicError("MPI was finalised: nothing can be communicated any more");
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  if (provided >= MPI_THREAD_SERIALIZED) return;
  MPI_Is_thread_main(&flag);
  if (flag == 0) throw LogicError("MPI is called by another thread than the one that initialised it, which alone may");
}

/// An MPI_Comm of Lathe's own.
class OwnedComm {
 public:
  OwnedComm() = default;
  ~OwnedComm() {
    int finalised = 0;
    MPI_Finalized(&finalised);
    if (comm_ != MPI_COMM_NULL && finalised == 0) MPI_Comm_free(&comm_);
  }
  OwnedComm(OwnedComm&& other) noexcept : comm_(std::exchange(other.comm_, MPI_COMM_NULL)) {}
  OwnedComm& operator=(OwnedComm&&) = delete;
  OwnedComm(const OwnedComm&) = delete;
  OwnedComm& operator=(const OwnedComm&) = delete;

  MPI_Comm get() const { return comm_; }
  MPI_Comm* address() { return &comm_; }
  /// Freeing it is for all ranks together, of which some may be gone.
  void leave() { comm_ = MPI_COMM_NULL; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Throws CommunicationError for a step of the beginning, when there is no communicator yet.
void check_start(int status, std::string_view operation, const Place& place) {
  if (status != MPI_SUCCESS) throw CommunicationError(operation, place.rank, place.host, describe_error(status));
}

Place place_in(MPI_Comm comm) {
  Place place;
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  check_start(MPI_Get_processor_name(name.data(), &length), "MPI_Get_processor_name", place);
  place.host.assign(name.data(), static_cast<std::size_t>(length));
  check_start(MPI_Comm_rank(comm, &place.rank), "MPI_Comm_rank", place);
  check_start(MPI_Comm_size(comm, &place.size), "MPI_Comm_size", place);
  OwnedComm local;
  check_start(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, place.rank, MPI_INFO_NULL, local.address()), "MPI_Comm_split_type",
              place);
  check_start(MPI_Comm_rank(local.get(), &place.local_rank), "MPI_Comm_rank", place);
  check_start(MPI_Comm_size(local.get(), &place.local_size), "MPI_Comm_size", place);
  return place;
}

enum class Function : std::int64_t { barrier, broadcast, gather, all_reduce, reduce_scatter, all_gather };

/// What a rank calls, for the others to compare with what they call.
struct Call {
  Function function;
  std::int64_t count = 0;   ///< elements, or bytes where there is no dtype
  std::int64_t dtype = -1;  ///< DType
  std::int64_t detail = 0;  ///< the root of a broadcast, the block of a share

  bool fits(const Call& other) const {
    return function == other.function && dtype == other.dtype && detail == other.detail &&
           (count == other.count || function == Function::gather);
  }
};

std::string describe(const Call& call) {
  const std::string elements = call.dtype < 0 ? "" : fmt::format("{} {}", call.count, to_string(static_cast<DType>(call.dtype)));
  switch (call.function) {
    case Function::barrier:
      return "barrier";
    case Function::broadcast:
      return fmt::format("broadcast of {} bytes from rank {}", call.count, call.detail);
    case Function::gather:
      return "gather";
    case Function::all_reduce:
      return fmt::format("all-reduce of {}", elements);
    case Function::reduce_scatter:
      return fmt::format("reduce-scatter of {} in blocks of {}", elements, call.detail);
    case Function::all_gather:
      return fmt::format("all-gather of {} in blocks of {}", elements, call.detail);
  }
  return "?";
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(OwnedComm comm, Place place, std::int64_t piece_bytes)
      : Communicator(std::move(place)), comm_(std::move(comm)), piece_bytes_(piece_bytes) {}
  ~MpiCommunicator() override {
    if (failed()) comm_.leave();
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  MpiCommunicator(MpiCommunicator&&) = delete;
  MpiCommunicator& operator=(MpiCommunicator&&) = delete;

  DeviceKind device_kind() const noexcept override { return DeviceKind::cpu; }
  std::string transport() const override { return mpi_library(); }

 private:
  void do_barrier() override { agree({.function = Function::barrier}); }

  void do_broadcast(std::span<std::byte> data, int root) override {
    const Call call{.function = Function::broadcast, .count = std::ssize(data), .detail = root};
    agree(call);
    while (!data.empty()) {
      const std::size_t bytes = std::min(data.size(), static_cast<std::size_t>(piece_bytes_));
      check(MPI_Bcast(data.data(), static_cast<int>(bytes), MPI_BYTE, root, comm_.get()), call);
      data = data.subspan(bytes);
    }
  }

  std::vector<std::string> do_gather(std::string_view mine) override {
    const Call call{.function = Function::gather, .count = std::ssize(mine)};
    std::vector<int> counts, begins;
    std::int64_t total = 0;
    for (const Call& other : agree(call)) {
      // Each is compared before it is added: the sum can't overflow.
      if (other.count > kLongestGather - total)
        throw LogicError(fmt::format("gather of more than {} bytes in all", kLongestGather));
      begins.push_back(static_cast<int>(total));
      counts.push_back(static_cast<int>(other.count));
      total += other.count;
    }
    std::string all(static_cast<std::size_t>(total), '\0');
    check(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(), begins.data(), MPI_BYTE,
                         comm_.get()),
          call);
    std::vector<std::string> result;
    for (std::size_t r = 0; r < counts.size(); ++r) {
      result.push_back(all.substr(static_cast<std::size_t>(begins[r]), static_cast<std::size_t>(counts[r])));
    }
    return result;
  }

  void do_all_reduce_sum(const Tensor& data) override {
    run(data, {.function = Function::all_reduce, .detail = 1}, [this](auto* elements, const Call& call) {
      sum_own_share(elements, call);
      send_own_share(elements, call);
    });
  }

  void do_reduce_scatter_sum(const Tensor& data, std::int64_t block) override {
    run(data, {.function = Function::reduce_scatter, .detail = block},
        [this](auto* elements, const Call& call) { sum_own_share(elements, call); });
  }

  void do_all_gather(const Tensor& data, std::int64_t block) override {
    run(data, {.function = Function::all_gather, .detail = block},
        [this](auto* elements, const Call& call) { send_own_share(elements, call); });
  }

  /// Calls f(elements, call) once all ranks have called the same.
  template <class F>
  void run(const Tensor& data, Call call, const F& f) {
    call.count = data.size();
    call.dtype = static_cast<std::int64_t>(data.dtype());
    agree(call);
    if (data.dtype() == DType::f32) {
      f(data.data<float>(), call);
    } else {
      f(data.data<Bf16>(), call);
    }
  }

  /// What each rank calls. Throws LogicError, on all ranks, unless it is the same; returns when all have called.
  std::vector<Call> agree(const Call& mine) {
    check_mpi();
    constexpr int kWords = 4;
    static_assert(sizeof(Call) == kWords * sizeof(std::int64_t));
    std::vector<Call> calls(static_cast<std::size_t>(size()), mine);
    check(MPI_Allgather(&mine, kWords, MPI_INT64_T, calls.data(), kWords, MPI_INT64_T, comm_.get()), mine);
    const auto other = std::ranges::find_if(calls, [&](const Call& call) { return !call.fits(calls.front()); });
    if (other == calls.end()) return calls;
    throw LogicError(fmt::format("the ranks of a job call the same functions with the same sizes; rank 0 called {}, rank {} {}",
                                 describe(calls.front()), other - calls.begin(), describe(*other)));
  }

  Share share(const Call& call, int rank) const { return share_of(call.count, call.detail, rank, size()); }

  /// Elements of `whole` from `begin` on that go at once: of the largest share all, of smaller ones those that there are.
  static std::int64_t piece(const Share& whole, std::int64_t begin, std::int64_t most) {
    return std::clamp<std::int64_t>(whole.count - begin, 0, most);
  }

  /// The others' elements of the own share come here, piece by piece, and are summed.
  template <class T>
  void sum_own_share(T* data, const Call& call) {
    const std::int64_t most = piece_bytes_ / static_cast<std::int64_t>(sizeof(T));
    const Share own = share(call, rank());
    const std::int64_t largest = share(call, 0).count;
    std::vector<T> received(static_cast<std::size_t>(std::min(own.count, most) * (size() - 1)));
    std::vector<const T*> terms(static_cast<std::size_t>(size()));
    for (std::int64_t begin = 0; begin < largest; begin += most) {
      const std::int64_t length = piece(own, begin, most);
      T* to = received.data();
      for (int r = 0; r < size(); ++r) {
        if (r == rank()) continue;
        receive(to, length, r, call);
        terms[static_cast<std::size_t>(r)] = to;
        to += length;
      }
      // Each begins with another one, so that no rank gets all at once.
      for (int step = 1; step < size(); ++step) {
        const int r = (rank() + step) % size();
        const Share other = share(call, r);
        send(data + other.begin + begin, piece(other, begin, most), r, call);
      }
      finish(call);
      terms[static_cast<std::size_t>(rank())] = data + own.begin + begin;
      sum_in_rank_order<T>(data + own.begin + begin, terms, length);
    }
  }

  /// The own share goes to all others, and theirs come here.
  template <class T>
  void send_own_share(T* data, const Call& call) {
    const std::int64_t most = piece_bytes_ / static_cast<std::int64_t>(sizeof(T));
    const Share own = share(call, rank());
    const std::int64_t largest = share(call, 0).count;
    for (std::int64_t begin = 0; begin < largest; begin += most) {
      for (int r = 0; r < size(); ++r) {
        const Share other = share(call, r);
        if (r != rank()) receive(data + other.begin + begin, piece(other, begin, most), r, call);
      }
      for (int step = 1; step < size(); ++step) {
        send(data + own.begin + begin, piece(own, begin, most), (rank() + step) % size(), call);
      }
      finish(call);
    }
  }

  template <class T>
  void receive(T* to, std::int64_t count, int from, const Call& call) {
    if (count == 0) return;
    const int bytes = static_cast<int>(count * static_cast<std::int64_t>(sizeof(T)));
    check(MPI_Irecv(to, bytes, MPI_BYTE, from, kTag, comm_.get(), &requests_.emplace_back(MPI_REQUEST_NULL)), call);
  }

  template <class T>
  void send(const T* from, std::int64_t count, int to, const Call& call) {
    if (count == 0) return;
    const int bytes = static_cast<int>(count * static_cast<std::int64_t>(sizeof(T)));
    check(MPI_Isend(from, bytes, MPI_BYTE, to, kTag, comm_.get(), &requests_.emplace_back(MPI_REQUEST_NULL)), call);
  }

  /// Waits for all that is being sent and received.
  void finish(const Call& call) {
    std::vector<MPI_Status> statuses(requests_.size());
    int status = MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses.data());
    requests_.clear();
    if (status == MPI_ERR_IN_STATUS) {
      const auto first = std::ranges::find_if(
          statuses, [](const MPI_Status& each) { return each.MPI_ERROR != MPI_SUCCESS && each.MPI_ERROR != MPI_ERR_PENDING; });
      if (first != statuses.end()) status = first->MPI_ERROR;
    }
    check(status, call);
  }

  void check(int status, const Call& call) {
    if (status != MPI_SUCCESS) [[unlikely]]
      fail(describe(call), describe_error(status));
  }

  static constexpr int kTag = 1;
  static constexpr std::int64_t kLongestGather = std::int64_t{1} << 30;

  OwnedComm comm_;
  std::int64_t piece_bytes_;
  std::vector<MPI_Request> requests_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options) {
  constexpr std::int64_t kLeast = 4;
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  if (options.piece_bytes < kLeast || options.piece_bytes > kMost) {
    throw LogicError(fmt::format("pieces of {} bytes; MPI takes {} to {}", options.piece_bytes, kLeast, kMost));
  }
  check_mpi();
  MPI_Comm borrowed = options.borrowed ? MPI_Comm_f2c(*options.borrowed) : MPI_COMM_WORLD;
  if (borrowed == MPI_COMM_NULL) throw LogicError("a communicator of no ranks (MPI_COMM_NULL) was lent");
  OwnedComm comm;
  check_start(MPI_Comm_dup(borrowed, comm.address()), "MPI_Comm_dup", {});
  check_start(MPI_Comm_set_errhandler(comm.get(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", {});
  Place place = place_in(comm.get());
  return std::make_unique<MpiCommunicator>(std::move(comm), std::move(place), options.piece_bytes);
}

}  // namespace lathe
