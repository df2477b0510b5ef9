#pragma once
// The processes of a run: this one alone, or those that mpirun or srun started for it.
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/mpi_session.h"
#include "lathe/runtime/processors.h"
#include "tools/watchdog.h"

namespace lathe {

/// Ends the command with a status and without a word: rank 0 says why.
class SaidElsewhere : public std::exception {
 public:
  explicit SaidElsewhere(int status) : status_(status) {}
  int status() const noexcept { return status_; }
  const char* what() const noexcept override { return "rank 0 says why"; }

 private:
  int status_;
};

/// A process alone is rank 0 of 1, and no MPI is started for it. Of several, rank 0 alone prints and writes files: what the others print goes
/// nowhere, but for the message of an exception that ends one of them while the others go on. Each is watched from
/// when MPI is up until its command is done (watchdog.h).
class Ranks {
 public:
  /// Joins the ranks that a launcher announces. Throws UsageError where it announces more than find each other.
  explicit Ranks(const WatchTimeouts& timeouts);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  Ranks(Ranks&&) = delete;
  Ranks& operator=(Ranks&&) = delete;

  bool first() const noexcept { return host_ == nullptr || host_->rank() == 0; }
  int size() const noexcept { return host_ == nullptr ? 1 : host_->size(); }
  int local_rank() const noexcept { return host_ == nullptr ? 0 : host_->place().local_rank; }
  /// The threads of this rank, where none were asked for: of those that share their processors each has its part.
  ThreadChoice threads() const;

  /// command(), which has parts that end with agree(). Until the last of them an exception on any rank ends all: rank 0 throws what the lowest such
  /// rank threw, with that rank and its host unless it is rank 0, and the others throw SaidElsewhere.
  template <class F>
  int run(const F& command) {
    try {
      const int status = agreed_run(command);
      leave();
      return status;
    } catch (...) {
      end_by(std::current_exception());
      throw;
    }
  }
  /// All ranks have come this far, with the same `facts`. Throws MismatchError, on rank 0, where a rank has others.
  enum class Part : std::uint8_t { more, last };
  void agree(Part part, const std::string& facts = "");

  /// What sums tensors on `device` over the ranks; null for a process alone. NCCL's for a GPU.
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
    } catch (...) {
      if (agreeing_) gather_failures(std::current_exception(), "");
      throw;
    }
  }
  void silence();
  void leave();
  void end_by(const std::exception_ptr& thrown);
  void gather_failures(const std::exception_ptr& thrown, const std::string& facts);

  std::unique_ptr<MpiSession> session_;
  WatchTimeouts timeouts_;
  std::optional<Watchdog> watchdog_;  // outlives who tells it
  std::unique_ptr<Communicator> host_, gpus_;
  int sharing_ = 1;        // ranks on this rank's processors
  bool agreeing_ = false;  // whether the others wait for a word of this one
  bool shared_ = false;    // whether all ranks know how this one ends
  int error_output_ = -1;  // standard error as it was
};

}  // namespace lathe
