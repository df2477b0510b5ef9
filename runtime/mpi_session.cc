#include "lathe/runtime/mpi_session.h"

#include <mpi.h>

#include <array>
#include <cstddef>
#include <exception>
#include <string_view>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/error.h"

namespace lathe {

bool has_mpi() noexcept { return true; }

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "MPI";
  // Implementations say more than their name and version, behind a comma or on further lines; MPICH has a tab between the two.
  std::string name(std::string_view(text.data(), static_cast<std::size_t>(length)));
  name.resize(std::min(name.find_first_of(",\n"), name.size()));
  for (char& c : name) {
    if (c == '\t') c = ' ';
  }
  return name;
}

MpiSession::MpiSession() : exceptions_(std::uncaught_exceptions()) {
  int initialised = 0;
  int finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (finalised != 0) throw UsageError("MPI was finalised, and can't be initialised again in the same process");
  if (initialised != 0) return;
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    throw CommunicationError("MPI_Init_thread", 0, "this", mpi_library() + " could not be initialised");
  }
  owns_ = true;
  if (provided < MPI_THREAD_FUNNELED) {
    MPI_Finalize();
    throw UsageError(mpi_library() + " allows no program with threads (MPI_THREAD_FUNNELED): use another MPI");
  }
}

MpiSession::~MpiSession() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (owns_ && finalised == 0 && std::uncaught_exceptions() == exceptions_) MPI_Finalize();
}

// NOLINTNEXTLINE(readability-convert-member-functions-to-static): only who has a session may end the job
void MpiSession::abort(int status) {
  MPI_Abort(MPI_COMM_WORLD, status);
  std::terminate();  // MPI_Abort doesn't return
}

}  // namespace lathe
