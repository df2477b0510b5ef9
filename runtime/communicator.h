#pragma once
// What the processes of a job do together. Each of them, a rank, has a Communicator, and calls the same functions in the same order.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/runtime/device_event.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/tensor.h"
#include "lathe/runtime/timed_event.h"

namespace [[gnu::visibility("default")]] lathe {

/// Elements [begin, begin + count) of a tensor.
struct Share {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  bool operator==(const Share&) const = default;
};

/// What of `count` elements is a rank's: whole blocks of `block` elements, of which the last may be short. The first ranks have one block
/// more where the blocks can't be divided evenly, and the last ones nothing where there are fewer blocks than ranks. Throws LogicError for
/// a negative count, a block of less than one element, and a rank outside of [0, size).
Share share_of(std::int64_t count, std::int64_t block, int rank, int size);

/// What ranks do together failed: another rank is gone, the network is, or the library that moves the data says so. The message names
/// operation, rank and host.
class CommunicationError : public Error {
 public:
  /// `operation` is what was being done, "all-reduce of 512 f32"; `rank` and `host` are where this is thrown.
  CommunicationError(std::string_view operation, int rank, std::string_view host, std::string_view message);
  const std::string& operation() const noexcept { return operation_; }
  int rank() const noexcept { return rank_; }
  const std::string& host() const noexcept { return host_; }

 private:
  std::string operation_;
  int rank_;
  std::string host_;
};

/// Where a rank is.
struct Place {
  int rank = 0;        ///< in [0, size)
  int size = 1;        ///< ranks of the job
  int local_rank = 0;  ///< in [0, local_size)
  int local_size = 1;  ///< ranks on this host
  std::string host;    ///< the host's name
};

/// Told by a Communicator what its rank does, so that somebody can see whether the ranks still come along. Called by the communicator's thread.
class CommunicatorWatch {
 public:
  CommunicatorWatch() = default;
  virtual ~CommunicatorWatch() = default;
  CommunicatorWatch(const CommunicatorWatch&) = delete;
  CommunicatorWatch& operator=(const CommunicatorWatch&) = delete;
  CommunicatorWatch(CommunicatorWatch&&) = delete;
  CommunicatorWatch& operator=(CommunicatorWatch&&) = delete;

  /// A function begins that may wait for other ranks: "all-reduce of 512 f32", "waiting for collectives". All ranks are told the same, in the
  /// same order. Where a communicator is another one's bootstrap, the inner function is told of between the outer one's beginning and end.
  virtual void entered(std::string_view operation) = 0;
  /// The function that began last has ended, by a return or an exception.
  virtual void left() = 0;
  /// Between such functions: work goes on, "evaluating", in step `step` from 1, or in the same as before.
  virtual void working(std::string_view on, std::optional<std::int64_t> step) = 0;
};

/// Collective functions: all ranks call them, in the same order, with the same sizes, element types, blocks and roots. Where a rank calls
/// something else, implementations for host memory throw LogicError on all ranks; NCCL can't tell, and the job hangs or has wrong numbers.
///
/// **Order of sums.** Every element of a sum is ((x0 + x1) + x2) + ... over the ranks from 0 on, in fp32; of bf16 elements the fp32 sum
/// is rounded once. So all ranks get the same bits, runs with as many ranks have the same bits, and reduce_scatter_sum followed by
/// all_gather gives all_reduce_sum's bits, whatever the block. NCCL between GPUs promises less: nccl_communicator.h.
///
/// **Streams.** Where tensors are in host memory, functions return when they are done. Where they are a GPU's, collectives of tensors
/// are put into a stream of the communicator's own, and run one after the other, beside the device's stream of kernels. What comes before what
/// is said by follow_device(), follow() and lead_device(). A tensor must live until its collective is done, which is when wait() has returned, or
/// when the device has done what came after lead_device().
///
/// **Failures** throw CommunicationError. After one the communicator throws at every call, and the other ranks may wait for this one: the
/// program should end, which its launcher takes as the end of the job. The library never ends a program by itself.
///
/// A communicator is used by one thread. With MPI that is the thread that initialised MPI, unless MPI was initialised for more
/// (MPI_THREAD_FUNNELED, MPI_THREAD_MULTIPLE).
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  Communicator(Communicator&&) = delete;
  Communicator& operator=(Communicator&&) = delete;

  const Place& place() const noexcept { return place_; }
  int rank() const noexcept { return place_.rank; }
  int size() const noexcept { return place_.size; }

  /// Returns when all ranks have called it.
  void barrier();
  /// Rank `root`'s bytes to all, in host memory. Throws LogicError for a root that is no rank.
  void broadcast(std::span<std::byte> data, int root);
  /// Everybody's bytes to everybody, by rank. They may differ in length, and each should be short: host names, hashes, messages.
  std::vector<std::string> gather(std::string_view mine);

  /// data[i] becomes the sum of all ranks' data[i], on every rank. Of fp32 or bf16, where the communicator's tensors are; throws LogicError
  /// for others.
  void all_reduce_sum(const Tensor& data);
  /// The rank's share of `data` (share_of with `block`) becomes the sum of all ranks' elements there. The other elements are unspecified
  /// afterwards. Throws as all_reduce_sum does, and for a block of less than one element.
  void reduce_scatter_sum(const Tensor& data, std::int64_t block = 1);
  /// Each rank's share of `data` goes to all other ranks. Throws as reduce_scatter_sum does.
  void all_gather(const Tensor& data, std::int64_t block = 1);

  /// The collectives of tensors that are called from now on begin after all that the device's stream has been given.
  void follow_device();
  /// The same, after what `event` recorded last, and no more: a bucket of gradients can travel while the rest are computed. Of a graph that has been
  /// enqueued, the event's place in that replay.
  void follow(const DeviceEvent& event);
  /// What the device's stream is given from now on begins after all collectives that were called.
  void lead_device();
  /// Returns when all collectives that were called are done. Throws where one failed.
  void wait();

  /// From now on `event`, of a tensor's device, is the moment when all collectives that were called are done. Waits for nothing.
  void mark(TimedEvent& event);
  /// `watch`, which must outlive the communicator or be taken away again (null), is told of all that is called from now on. Without one nothing is told,
  /// and costs nothing.
  void set_watch(CommunicatorWatch* watch) noexcept { watch_ = watch; }
  /// Tells the watch that this rank is at work, as one should from time to time where the others may have to wait for it. Not collective: each rank
  /// calls it as it likes.
  void working(std::string_view on, std::optional<std::int64_t> step = std::nullopt) {
    if (watch_ != nullptr) watch_->working(on, step);
  }

  /// f(), which gives a GPU's stream more work, and so may have to wait for the device, which waits for what other ranks send: the watch is told of that as of
  /// a collective function. All ranks call it.
  template <class F>
  void at_device(const F& f) {
    const Watched watched(watch_, [] { return "waiting for the device"; });
    f();
  }

  /// Where tensors of collectives are.
  virtual DeviceKind device_kind() const noexcept = 0;
  /// Who moves the data: "Open MPI v4.1.4"; empty for a single process.
  virtual std::string transport() const = 0;

 protected:
  explicit Communicator(Place place) : place_(std::move(place)) {}

  /// Throws the CommunicationError of this rank, and remembers it for the calls to come.
  [[noreturn]] void fail(std::string_view operation, std::string_view message);
  bool failed() const noexcept { return !failure_.empty(); }

 private:
  // Arguments have been checked: tensors are f32 or bf16, and may be empty.
  virtual void do_barrier() = 0;
  virtual void do_broadcast(std::span<std::byte> data, int root) = 0;
  virtual std::vector<std::string> do_gather(std::string_view mine) = 0;
  virtual void do_all_reduce_sum(const Tensor& data) = 0;
  virtual void do_reduce_scatter_sum(const Tensor& data, std::int64_t block) = 0;
  virtual void do_all_gather(const Tensor& data, std::int64_t block) = 0;
  virtual void do_follow_device() {}
  virtual void do_follow(const DeviceEvent& /*event*/) {}
  virtual void do_lead_device() {}
  virtual void do_wait() {}
  virtual void do_mark(TimedEvent& event) { event.record(); }

  /// Tells a watch of one function, whose text is made only for it.
  class Watched {
   public:
    template <class Text>
    Watched(CommunicatorWatch* watch, const Text& text) : watch_(watch) {
      if (watch_ != nullptr) watch_->entered(text());
    }
    ~Watched() {
      if (watch_ != nullptr) watch_->left();
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    Watched(Watched&&) = delete;
    Watched& operator=(Watched&&) = delete;

   private:
    CommunicatorWatch* watch_;
  };

  void check_usable(std::string_view operation) const;
  void check(const Tensor& data, std::int64_t block, std::string_view operation) const;

  Place place_;
  std::string failure_;
  CommunicatorWatch* watch_ = nullptr;
};

/// The communicator of a job of one process, for tensors of either kind of device: sums and gathers leave them as they are.
std::unique_ptr<Communicator> make_single_communicator(DeviceKind kind = DeviceKind::cpu);

}  // namespace lathe
