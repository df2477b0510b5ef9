// Loaded before all else into the ranks of a job (LD_PRELOAD), it makes one of them fail in the middle of its work. LATHE_FAULT says how, LATHE_FAULT_RANK
// which, LATHE_FAULT_AFTER names a file before which nothing happens, and LATHE_FAULT_MARK one that is made when it does.
#include <dlfcn.h>
#include <fcntl.h>
#include <mpi.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
  return value == nullptr ? "" : value;
}

/// Whether this rank is to fail now in the way `fault`, and hasn't yet.
bool is_due(std::string_view fault) {
  static bool done = false;
  if (done || variable("LATHE_FAULT") != fault || variable("LATHE_FAULT_RANK") != variable("OMPI_COMM_WORLD_RANK")) return false;
  if (::access(variable("LATHE_FAULT_AFTER").data(), F_OK) != 0) return false;
  done = true;
  ::close(::open(variable("LATHE_FAULT_MARK").data(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  return true;
}

}  // namespace

/// While a rank computes: an optimizer's step asks for powers, and little else does.
extern "C" __attribute__((visibility("default"))) double pow(double base, double exponent) {
  if (is_due("exit")) ::_exit(3);
  if (is_due("kill")) ::raise(SIGKILL);
  if (is_due("stop")) ::raise(SIGSTOP);
  if (is_due("compute")) {
    for (std::atomic<unsigned> rounds{0};; ++rounds) {
    }
  }
  if (is_due("full disk")) {
    // What is larger than that can't be written any more, as the next model can't.
    constexpr rlim_t kBytes = 30'000;
    const rlimit limit = {.rlim_cur = kBytes, .rlim_max = kBytes};
    ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  static const auto real = reinterpret_cast<double (*)(double, double)>(::dlsym(RTLD_NEXT, "pow"));
  return real(base, exponent);
}

/// What rank 0 tells of where it listens has come, and this rank doesn't join until LATHE_FAULT_UNTIL is there.
extern "C" __attribute__((visibility("default"))) int MPI_Bcast(  // NOLINT(readability-identifier-naming): MPI's name
    void* data, int count, MPI_Datatype type, int root, MPI_Comm ranks) {
  const int result = PMPI_Bcast(data, count, type, root, ranks);
  if (count > static_cast<int>(sizeof(std::int64_t)) && is_due("late")) {
    while (::access(variable("LATHE_FAULT_UNTIL").data(), F_OK) != 0) ::usleep(10'000);
  }
  return result;
}

/// When a rank comes to a collective function.
extern "C" __attribute__((visibility("default"))) int MPI_Allgather(  // NOLINT(readability-identifier-naming): MPI's name
    const void* from, int count, MPI_Datatype type, void* to, int counts, MPI_Datatype types, MPI_Comm ranks) {
  if (is_due("throw")) throw std::runtime_error("a planted failure");
  return PMPI_Allgather(from, count, type, to, counts, types, ranks);
}
