#pragma once
// MPI for programs that leave it to Lathe. A program that has initialised MPI itself needs none of this.
#include <string>

namespace [[gnu::visibility("default")]] lathe {

/// Whether this build has MPI.
bool has_mpi() noexcept;

/// "Open MPI v4.1.4", whichever was loaded; empty in a build without MPI. MPI need not be initialised.
std::string mpi_library();

/// Initialises MPI for the calling thread (MPI_THREAD_FUNNELED), and finalises it at the end, which waits for all ranks. Where MPI was
/// initialised before, it does neither. Outlives all communicators. While an exception passes, it leaves MPI as it is, since other ranks may
/// be waiting for this one: the program should end soon, with a status other than 0 or by abort(), and the launcher then ends the others.
class MpiSession {
 public:
  /// Throws UsageError in a build without MPI, and where MPI was finalised before; CommunicationError where MPI doesn't start.
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  MpiSession(MpiSession&&) = delete;
  MpiSession& operator=(MpiSession&&) = delete;

  /// Ends all ranks of the job, this one with `status`. For programs: nothing in Lathe's library calls it.
  [[noreturn]] void abort(int status);

 private:
  int exceptions_ = 0;  // that were passing when it was made
  bool owns_ = false;
};

}  // namespace lathe
