#pragma once
// Ranks that MPI has started, with tensors in host memory.
#include <cstdint>
#include <memory>
#include <optional>

#include "lathe/runtime/communicator.h"

namespace [[gnu::visibility("default")]] lathe {

struct MpiOptions {
  /// MPI_Comm_c2f() of the ranks' MPI_Comm, which is duplicated, so that nothing of Lathe's meets with the program's own messages. MPI_COMM_WORLD
  /// where empty. A number stands for it, so that this header needs none of MPI's.
  std::optional<int> borrowed;
  /// Bytes that go from one rank to another at once: with more, less time goes into messages, and each rank needs `size` times as much memory.
  std::int64_t piece_bytes = std::int64_t{1} << 20;
};

/// Called by all ranks of the MPI_Comm. Every call of its functions returns when it is done. All-reduce is a reduce-scatter, in which each rank
/// gets its share of the others' elements and sums them, and an all-gather. Errors are thrown (MPI_ERRORS_RETURN): a caller's error handlers
/// are left as they are. Throws UsageError in a build without MPI, LogicError where MPI isn't initialised, or finalised, or lets no thread but
/// the first one in and this is another (as every later call does), and CommunicationError where MPI fails.
std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options);

}  // namespace lathe
