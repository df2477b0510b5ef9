#pragma once
// The communicators that one contract test is run for.
#include <cstdint>
#include <memory>
#include <string>

#include "lathe/runtime/communicator.h"
#include "lathe/runtime/device.h"

namespace lathe::test {

/// A kind of communicator, for all ranks of this run.
struct CommunicatorCase {
  std::string name;
  /// `piece_bytes` go at once, where the kind cuts data into pieces.
  std::unique_ptr<Communicator> (*make)(const DeviceRef& device, std::int64_t piece_bytes);
  DeviceRef (*make_device)();
};

/// How many ranks MPI started (--mpi); 0 for a process without MPI. Set before tests are made: those that need ranks aren't made without.
int& mpi_ranks();

/// 1 where the next wait for MPI's messages is to fail, in the network's place (mpi_communicator_test.cc). It is 0 again then.
int& failures();

constexpr std::int64_t kUsualPiece = std::int64_t{1} << 20;

}  // namespace lathe::test
