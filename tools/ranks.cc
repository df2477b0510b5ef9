#include "tools/ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <thread>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "tools/failure.h"
#include "tools/launch.h"
#include "tools/signals.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

/// The first lines in which two texts differ.
std::pair<std::string, std::string> first_difference(std::string_view a, std::string_view b) {
  std::size_t line = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()) && a[i] == b[i]; ++i) {
    if (a[i] == '\n') line = i + 1;
  }
  const auto shown = [line](std::string_view text) {
    const std::string_view rest = text.substr(std::min(line, text.size()));
    return shortened(printable(rest.substr(0, rest.find('\n'))), 100);
  };
  return {shown(a), shown(b)};
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
  if (!has_mpi()) return "use a Lathe that was built with MPI (libopenmpi-dev), or start it without " + launch.launcher;
  if (launch.launcher == "srun") return "use srun --mpi=pmix";
  return "start it by the mpirun of " + mpi_library();
}

/// Throws in one process of a launch, and ends the others without a word.
[[noreturn]] void refuse(const Launch& launch, const std::string& message) {
  if (launch.rank.value_or(0) == 0) throw UsageError(message);
  // They can't wait for each other, and mpirun ends all as soon as one has failed: the first has this time to say why.
  std::this_thread::sleep_for(std::chrono::seconds(1));
  throw SaidElsewhere(2);
}

}  // namespace

Ranks::Ranks(const WatchTimeouts& timeouts) : timeouts_(timeouts) {
  const auto launch = announced_launch();
  if (!launch) {
    reports_.push_back(rank_report("", 0));
    return;
  }
  // A launcher that sees a rank end asks the others by SIGTERM to end, who then have a moment to say why.
  watch_stop_signals();
  std::optional<StartTimer> timer;
  if (has_mpi()) timer.emplace(timeouts.start, late_start(*launch, timeouts));
  std::int64_t found = 1;
  if (has_mpi() && (launch->connects || !mpi_library().starts_with("Open MPI"))) {
    session_ = std::make_unique<MpiSession>();
    host_ = make_mpi_communicator({});
    found = host_->size();
  }
  if (found < launch->tasks) {
    refuse(*launch, fmt::format("{} announces {} processes ({}={}), and {} of them know{} of each other: each would train alone "
                                "and write to the same --output; {}",
                                launch->launcher, launch->tasks, launch->variable, launch->tasks,
                                found == 1 ? "none" : std::to_string(found), found == 1 ? "s" : "", cure(*launch)));
  }
  for (const std::string& text : host_->gather(to_text(rank_report(place().host, place().local_rank))))
    reports_.push_back(parse_rank_report(text));
  agreeing_ = true;
  if (!first()) {
    be_silent();
  } else if (const auto fault = binding_fault(reports_, launch->launcher)) {
    print_warning(*fault);
  }
  std::vector<std::string> hosts;
  hosts.reserve(reports_.size());
  for (const RankReport& report : reports_) hosts.push_back(report.host);
  watchdog_.emplace(*host_, std::move(hosts), timeouts, first() ? STDERR_FILENO : error_output_);
  timer.reset();
  host_->set_watch(&*watchdog_);
}

Ranks::~Ranks() {
  if (error_output_ < 0) return;
  // What ends this rank alone must be read somewhere.
  if (std::uncaught_exceptions() > 0) ::dup2(error_output_, STDERR_FILENO);
  ::close(error_output_);
}

void Ranks::refuse_several(std::string_view command) {
  const auto launch = announced_launch();
  if (!launch) return;
  refuse(*launch,
         fmt::format("{} is the work of one process, and {} announces {} ({}={}): start it without {}; what several do by "
                     "themselves is started by `env -u {} lathe {}`",
                     command, launch->launcher, launch->tasks, launch->variable, launch->tasks, launch->launcher,
                     launch->variable, command));
}

void Ranks::be_silent() {
  error_output_ = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
  const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere < 0) return;
  ::dup2(nowhere, STDOUT_FILENO);
  ::dup2(nowhere, STDERR_FILENO);
  ::close(nowhere);
}

std::optional<int> Ranks::gather_failures(const std::exception_ptr& thrown, const std::string& facts) {
  agreeing_ = false;  // whatever comes of it, the others have had their word
  std::string mine = " " + facts;
  if (thrown) {
    const Failure failure = failure_of(thrown);
    mine = fmt::format("{}{}", failure.status, failure.message);
  }
  const std::vector<std::string> all = host_->gather(mine);
  const auto end = [this](int status, const std::string& message) {
    if (first()) print_error(message);
    host_->barrier();  // or the launcher ends rank 0, as soon as another one fails, before it has said why
    return status;
  };
  const auto named = [this](std::ptrdiff_t rank) {
    return fmt::format("rank {} (host {})", rank, printable(reports_[static_cast<std::size_t>(rank)].host));
  };
  const auto failed = std::ranges::find_if(all, [](const std::string& text) { return text.front() != ' '; });
  if (failed != all.end()) {
    const std::string message = failed->substr(1);
    return end(failed->front() - '0', failed == all.begin() ? message : named(failed - all.begin()) + ": " + message);
  }
  const auto differs = std::ranges::find_if(all, [&](const std::string& text) { return text != all.front(); });
  if (differs == all.end()) return std::nullopt;
  const auto [here, there] = first_difference(std::string_view(all.front()).substr(1), std::string_view(*differs).substr(1));
  return end(2, fmt::format("{} has another build, other settings or other files than {}: {}, and not {}",
                            named(differs - all.begin()), named(0), there, here));
}

int Ranks::end_together(const std::exception_ptr& thrown) { return gather_failures(thrown, "").value_or(1); }

void Ranks::agree(Part part, const std::string& facts) {
  if (host_ == nullptr) return;
  if (const auto status = gather_failures(nullptr, facts)) throw SaidElsewhere(*status);
  agreeing_ = part == Part::more;
  if (!agreeing_) watchdog_->agreed();
}

void Ranks::leave() {
  if (!watchdog_) return;
  host_->barrier();
  watchdog_->leave();
}

void Ranks::fail(const std::exception_ptr& thrown) {
  if (!watchdog_) return;
  const Failure failure = failure_of(thrown);
  watchdog_->fail({.status = failure.status, .consequence = is_consequence(thrown), .message = failure.message});
}

std::vector<std::string> Ranks::gather(const std::string& mine) {
  return host_ == nullptr ? std::vector{mine} : host_->gather(mine);
}

ThreadChoice Ranks::threads() const { return common_threads(reports_, static_cast<std::size_t>(place().rank)); }

std::optional<CpuTarget> Ranks::lowest_target() const { return lathe::lowest_target(reports_); }

int Ranks::gpu(int first) const { return choose_gpu(reports_, static_cast<std::size_t>(place().rank), first); }

std::string Ranks::transport(DeviceKind kind) const {
  if (host_ == nullptr) return "";
  return kind == DeviceKind::cuda ? nccl_library() : host_->transport();
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
