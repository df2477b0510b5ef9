#pragma once
// Ranks with a GPU each, whose tensors NCCL moves.
#include <chrono>
#include <memory>
#include <string>

#include "lathe/runtime/communicator.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether this build has NCCL, or the emulation's twin of it.
bool has_nccl() noexcept;

/// "NCCL 2.28.9", whichever was loaded; "NCCL emulated"; empty in a build without.
std::string nccl_library();

struct NcclOptions {
  /// How long ranks wait for each other at the beginning.
  std::chrono::seconds start_timeout{1800};
};

/// Called by all ranks of `bootstrap`, which sends NCCL's id and does all that is of host memory (barrier, broadcast, gather), and must outlive it.
/// Each rank has a device of its own: NCCL refuses two ranks on one GPU. Collectives of tensors are enqueued in a stream beside the device's and
/// return at once, but for the first ones, for which NCCL sets up connections. They stay out of graphs: none may be called while the device captures.
///
/// Between GPUs NCCL sums in an order of its own, which depends on the number of ranks and how they are connected; it is the same from run to run on
/// the same machines with the same settings and version. So all ranks get the same bits from all_reduce_sum, but reduce_scatter_sum may differ from it
/// in the last ones. bf16 is summed in fp32 and rounded once here too, by way of fp32 copies, which take twice the tensor's memory: what is
/// summed often should be fp32. In the emulated build sums are in rank order, as the contract says.
///
/// wait() watches NCCL's asynchronous errors; where there is one, or an exception ends the program's work, the communicator is aborted, so that
/// nothing on this rank waits for the others any longer.
///
/// Throws UsageError in a build without NCCL, LogicError for a device that is no CUDA device, CommunicationError where NCCL fails or the ranks
/// don't meet within the timeout.
std::unique_ptr<Communicator> make_nccl_communicator(const DeviceRef& device, Communicator& bootstrap,
                                                     const NcclOptions& options);

}  // namespace lathe
