#pragma once
// The processes of a run: this one alone, or those that mpirun or srun started for it.
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/mpi_session.h"
#include "tools/rank_report.h"
#include "tools/watchdog.h"

namespace lathe {

/// Ends the command with a status and without a word: it has been said, here or by rank 0.
class SaidElsewhere : public std::exception {
 public:
  explicit SaidElsewhere(int status) : status_(status) {}
  int status() const noexcept { return status_; }
  const char* what() const noexcept override { return "it has been said why"; }

 private:
  int status_;
};

/// A process alone is rank 0 of 1, and no MPI is started for it. Of several, rank 0 alone prints and writes files: what the others print goes
/// nowhere, but for the message of an exception that ends one of them while the others go on. Each is watched from when MPI is up until its
/// command is done (watchdog.h).
class Ranks {
 public:
  /// Joins the ranks that a launcher announces, and says where it has bound them to too few cores. Where it announces more than find each other,
  /// throws UsageError in the first of its processes and SaidElsewhere in the others.
  explicit Ranks(const WatchTimeouts& timeouts);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  Ranks(Ranks&&) = delete;
  Ranks& operator=(Ranks&&) = delete;

  /// Refuses several processes, as the constructor does, for a command whose work is one's.
  static void refuse_several(std::string_view command);

  bool first() const noexcept { return place().rank == 0; }
  int size() const noexcept { return place().size; }
  const Place& place() const noexcept { return host_ == nullptr ? alone_ : host_->place(); }
  /// The threads of this rank, where none were asked for: as many as all ranks can have.
  ThreadChoice threads() const;
  /// The best instruction set that all ranks have, where some have a better one.
  std::optional<CpuTarget> lowest_target() const;
  /// The number of this rank's GPU, where `first` was asked for. Throws UsageError, on all ranks, where two would use the same one.
  int gpu(int first) const;
  /// Who moves what between ranks, where there are several and they compute on such a device: "Open MPI v4.1.4".
  std::string transport(DeviceKind kind) const;

  /// command(), which has parts that end with agree(). Until the last of them an exception on any rank ends all: rank 0 prints what the lowest
  /// such rank has to say, with that rank and its host unless it is rank 0, and all have its exit status.
  template <class F>
  int run(const F& command) {
    try {
      const int status = agreed_run(command);
      leave();
      return status;
    } catch (...) {
      fail(std::current_exception());
      throw;
    }
  }
  /// All ranks have come this far, with the same `facts`; throws SaidElsewhere otherwise, on all.
  enum class Part : std::uint8_t { more, last };
  void agree(Part part, const std::string& facts = "");
  /// What every rank has, by rank. All call it, behind an agree() and with nothing between that may fail.
  std::vector<std::string> gather(const std::string& mine);

  /// What sums tensors on `device` over the ranks; null for a process alone. NCCL's for a GPU, which all ranks make together.
  Communicator* communicator(const DeviceRef& device);
  /// Tells the others that this rank is at work on something for which they wait: "saving".
  void working(std::string_view on) {
    if (watchdog_) watchdog_->working(on, std::nullopt);
  }

 private:
  template <class F>
  int agreed_run(const F& command) {
    try {
      return command();
    } catch (const SaidElsewhere& end) {
      return end.status();
    } catch (...) {
      if (!agreeing_) throw;
      return end_together(std::current_exception());
    }
  }
  void be_silent();
  /// All ranks are done, or know how they end.
  void leave();
  /// This rank fails, of which the others don't know.
  void fail(const std::exception_ptr& thrown);
  /// What all ranks have to say at the end of a part: nothing, or the exit status of those where one failed, which has been printed then.
  std::optional<int> gather_failures(const std::exception_ptr& thrown, const std::string& facts);
  int end_together(const std::exception_ptr& thrown);

  Place alone_;
  std::unique_ptr<MpiSession> session_;
  WatchTimeouts timeouts_;
  std::optional<Watchdog> watchdog_;  // outlives who tells it
  std::unique_ptr<Communicator> host_, gpus_;
  std::vector<RankReport> reports_;  // by rank; of this process where it is alone
  bool agreeing_ = false;            // whether the others wait for a word of this one
  int error_output_ = -1;            // standard error as it was
};

}  // namespace lathe
