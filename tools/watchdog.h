#pragma once
// Ends a job in which a rank died, hangs or failed: all of it, within a set time, with one line that says who it was.
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "tools/rank_verdict.h"

namespace lathe {

/// Each rank has a thread for it, and a TCP connection to rank 0, on which both sides speak at fixed times: the rank of what it does, rank 0 that it is
/// there. Rank 0 judges (rank_verdict.h), prints the line, tells the others, and every rank ends by _exit, from this thread, whatever the main
/// thread is in. Where rank 0 is gone or silent every rank ends by itself, and rank 1 prints the line. The threads call no MPI and get no signals.
///
/// Rank 0 takes connections until all ranks have joined, from those alone that have the job's token, which MPI brings: on the loopback where all
/// ranks are on its host, else on all its IPv4 addresses.
class Watchdog final : public CommunicatorWatch {
 public:
  /// All ranks of `ranks` make one. `hosts` are theirs; the line goes to `error_output`. Throws CommunicationError where rank 0 can't be reached.
  Watchdog(Communicator& ranks, std::vector<std::string> hosts, const WatchTimeouts& timeouts, int error_output);
  /// Without leave() the other ranks take this one for dead.
  ~Watchdog() override;
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  Watchdog(Watchdog&&) = delete;
  Watchdog& operator=(Watchdog&&) = delete;

  void entered(std::string_view operation) override;
  void left() override;
  void working(std::string_view on, std::optional<std::int64_t> step) override;

  /// This rank begins to train: from when all do, the timeout of communication holds and not that of the start.
  void agreed();
  /// This rank's work ended by an exception, of which the others don't know. Rank 0 prints what explains most, and the process ends meanwhile;
  /// returns only where nothing comes of it.
  void fail(const Thrown& thrown);
  /// This rank's work is done, as that of all others is or will be: says goodbye, and returns when rank 0 has heard it of all.
  void leave();

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

/// Ends the process with a line where it isn't destroyed in time: for what can't be interrupted, and comes before there is a Watchdog.
class StartTimer {
 public:
  /// Says `message` where it is to say anything; it may be empty.
  StartTimer(std::chrono::milliseconds timeout, std::string message);
  ~StartTimer();
  StartTimer(const StartTimer&) = delete;
  StartTimer& operator=(const StartTimer&) = delete;
  StartTimer(StartTimer&&) = delete;
  StartTimer& operator=(StartTimer&&) = delete;

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace lathe
