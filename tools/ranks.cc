#include "tools/ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "tools/launch.h"
#include "tools/signals.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

/// Another rank's failure, as that rank would have told it.
class RankFailure : public Error {
 public:
  RankFailure(const std::string& message, int status) : Error(message), status_(status) {}
  int exit_status() const noexcept override { return status_; }

 private:
  int status_;
};

/// Exit status and message of an exception, as main() would have them.
struct Failure {
  int status = 1;
  std::string message;
};
Failure failure_of(const std::exception_ptr& thrown, const std::string& on_host) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& failure) {
    return {.status = failure.exit_status(), .message = on_host + failure.what()};
  } catch (const std::bad_alloc&) {
    return {.status = 2, .message = on_host + "no memory left"};
  } catch (const std::system_error& failure) {
    return {.status = 2, .message = on_host + message_line(failure.what())};
  } catch (const std::exception& failure) {
    return {.status = 1, .message = on_host + "a fault of Lathe: " + message_line(failure.what())};
  }
}

/// The processors that this process may use, as text to compare.
std::string affinity() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return "";
  std::string text;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) text += fmt::format("{},", i);
  }
  return text;
}

/// The first line in which two texts differ, as the second has it.
std::string first_difference(std::string_view a, std::string_view b) {
  std::size_t line = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()) && a[i] == b[i]; ++i) {
    if (a[i] == '\n') line = i + 1;
  }
  const std::string_view rest = b.substr(std::min(line, b.size()));
  return shortened(printable(rest.substr(0, rest.find('\n'))), 100);
}

/// Whether another rank's end may be why.
bool is_consequence(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const CommunicationError&) {
    return true;
  } catch (...) {
    return false;
  }
}

/// What the first rank says, and the others don't, where not all ranks have called MPI in time.
std::string late_start(const Launch& launch, const WatchTimeouts& timeouts) {
  if (launch.rank.value_or(0) != 0) return "";
  return fmt::format("not all of the {} processes of {} have begun with MPI {} s after the start (--start-timeout)", launch.tasks,
                     launch.launcher, static_cast<double>(timeouts.start.count()) / 1000.0);
}

/// The cure of ranks that don't find each other.
std::string cure(const Launch& launch) {
  if (!has_mpi()) return "build Lathe with MPI (libopenmpi-dev), or start it without " + launch.launcher;
  if (launch.launcher == "srun") return "use srun --mpi=pmix";
  return "start it by the mpirun of " + mpi_library();
}

}  // namespace

Ranks::Ranks(const WatchTimeouts& timeouts) : timeouts_(timeouts) {
  const auto launch = announced_launch();
  if (!launch) return;
  // A launcher that sees a rank end asks the others by SIGTERM to end, who then have a moment to say why.
  watch_stop_signals();
  std::optional<StartTimer> timer;
  if (has_mpi()) timer.emplace(timeouts.start, late_start(*launch, timeouts));
  std::int64_t found = 1;
  if (has_mpi()) {
    session_ = std::make_unique<MpiSession>();
    host_ = make_mpi_communicator({});
    found = host_->size();
  }
  if (found < launch->tasks) {
    throw UsageError(
        fmt::format("{} announces {} processes ({}={}), and {} of them know{} of each other: each would train alone "
                    "and write to the same --output; {}",
                    launch->launcher, launch->tasks, launch->variable, launch->tasks, found == 1 ? "none" : std::to_string(found),
                    found == 1 ? "s" : "", cure(*launch)));
  }
  const std::string mine = host_->place().host + "\n" + affinity();
  const std::vector<std::string> all = host_->gather(mine);
  sharing_ = static_cast<int>(std::ranges::count(all, mine));
  std::vector<std::string> hosts;
  hosts.reserve(all.size());
  for (const std::string& text : all) hosts.push_back(text.substr(0, text.find('\n')));
  agreeing_ = true;
  if (!first()) silence();
  watchdog_.emplace(*host_, std::move(hosts), timeouts, first() ? STDERR_FILENO : error_output_);
  timer.reset();
  host_->set_watch(&*watchdog_);
}

void Ranks::silence() {
  error_output_ = ::dup(STDERR_FILENO);
  const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere < 0) return;
  ::dup2(nowhere, STDOUT_FILENO);
  ::dup2(nowhere, STDERR_FILENO);
  ::close(nowhere);
}

Ranks::~Ranks() {
  if (error_output_ < 0) return;
  // What ends this rank alone must be read somewhere.
  if (std::uncaught_exceptions() > 0) ::dup2(error_output_, STDERR_FILENO);
  ::close(error_output_);
}

void Ranks::gather_failures(const std::exception_ptr& thrown, const std::string& facts) {
  agreeing_ = false;  // whatever comes of it, the others have had their word
  std::string mine = " " + facts;
  if (thrown) {
    const Failure failure = failure_of(thrown, fmt::format("(host {}): ", printable(host_->place().host)));
    mine = fmt::format("{}{}", failure.status, failure.message);
  }
  const std::vector<std::string> all = host_->gather(mine);
  shared_ = true;
  const auto failed = std::ranges::find_if(all, [](const std::string& text) { return text.front() != ' '; });
  if (failed != all.end()) {
    const int status = failed->front() - '0';
    if (!first()) throw SaidElsewhere(status);
    if (failed == all.begin()) std::rethrow_exception(thrown);
    throw RankFailure(fmt::format("rank {} {}", failed - all.begin(), failed->substr(1)), status);
  }
  const auto differs = std::ranges::find_if(all, [&](const std::string& text) { return text != all.front(); });
  shared_ = differs != all.end();
  if (!shared_) return;
  if (!first()) throw SaidElsewhere(2);
  throw MismatchError(fmt::format("rank {} has another build, other settings or other files than rank 0: {}",
                                  differs - all.begin(), first_difference(all.front(), *differs)));
}

void Ranks::agree(Part part, const std::string& facts) {
  if (host_ == nullptr) return;
  gather_failures(nullptr, facts);
  agreeing_ = part == Part::more;
  if (!agreeing_) watchdog_->agreed();
}

void Ranks::leave() {
  if (!watchdog_) return;
  host_->barrier();
  watchdog_->leave();
}

void Ranks::end_by(const std::exception_ptr& thrown) {
  if (!watchdog_) return;
  if (shared_) {
    // A launcher may end all when one has ended: so rank 0 speaks first.
    const Failure failure = first() ? failure_of(thrown, "") : Failure{};
    if (first()) print_error(failure.message);
    watchdog_->leave();
    if (first()) throw SaidElsewhere(failure.status);
    return;
  }
  const Failure failure = failure_of(thrown, "");
  watchdog_->fail({.status = failure.status, .consequence = is_consequence(thrown), .message = failure.message});
}

ThreadChoice Ranks::threads() const {
  ThreadChoice choice = default_threads();
  if (sharing_ > 1) {
    choice.threads = std::max(1, choice.threads / sharing_);
    choice.reason += fmt::format(", shared by {} ranks", sharing_);
  }
  return choice;
}

Communicator* Ranks::communicator(const DeviceRef& device) {
  if (host_ == nullptr) return nullptr;
  if (device->kind() == DeviceKind::cpu) return host_.get();
  if (gpus_ == nullptr) {
    gpus_ = make_nccl_communicator(device, *host_, {.start_timeout = std::chrono::ceil<std::chrono::seconds>(timeouts_.start)});
    gpus_->set_watch(&*watchdog_);
  }
  return gpus_.get();
}

}  // namespace lathe
