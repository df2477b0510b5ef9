#include "lathe/runtime/error.h"
#include "lathe/runtime/nccl_communicator.h"

namespace lathe {

bool has_nccl() noexcept { return false; }

std::string nccl_library() { return ""; }

std::unique_ptr<Communicator> make_nccl_communicator(const DeviceRef& /*device*/, Communicator& /*bootstrap*/,
                                                     const NcclOptions& /*options*/) {
  throw UsageError(
      "this build of Lathe has no NCCL: build it with LATHE_CUDA=ON and LATHE_MPI=ON where both are found (Debian: libnccl-dev)");
}

}  // namespace lathe
