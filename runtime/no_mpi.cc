#include "lathe/runtime/error.h"
#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/mpi_session.h"

namespace lathe {
namespace {

[[noreturn]] void refuse() {
  throw UsageError("this build of Lathe has no MPI, and is one process: build it with LATHE_MPI=ON (Debian: libopenmpi-dev)");
}

}  // namespace

bool has_mpi() noexcept { return false; }

std::string mpi_library() { return ""; }

MpiSession::MpiSession() { refuse(); }
// NOLINTNEXTLINE(modernize-use-equals-default): where there is MPI, it does something
MpiSession::~MpiSession() {}
// NOLINTNEXTLINE(readability-convert-member-functions-to-static): as above
void MpiSession::abort(int /*status*/) { refuse(); }

std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& /*options*/) { refuse(); }

}  // namespace lathe
