#pragma once
// The part of NCCL that Lathe uses, under its own names, for the emulated device: what NCCL documents, done over MPI. Internal to runtime/.
//
// An operation takes its turn in its stream. When it is the next there, its data go to all ranks by MPI's nonblocking functions, and it runs once all ranks'
// have come: no rank waits for another but in its streams, as on GPUs. Sums are in rank order. Ranks that enqueue different things, which
// NCCL can't tell, get an asynchronous error. The ranks are those of MPI_COMM_WORLD, or one alone.
#include <cstddef>

#include "lathe/kernels/device/runtime_api.h"

namespace lathe::emulation {

class NcclComm;

// NOLINTBEGIN(readability-identifier-naming): NCCL's own names
namespace nccl {

enum ncclResult_t : int {
  ncclSuccess,
  ncclUnhandledCudaError,
  ncclSystemError,
  ncclInternalError,
  ncclInvalidArgument,
  ncclInvalidUsage,
  ncclRemoteError,
  ncclInProgress
};
enum ncclDataType_t : int { ncclFloat32 = 7, ncclBfloat16 = 9 };
enum ncclRedOp_t : int { ncclSum };

using ncclComm_t = NcclComm*;

struct ncclUniqueId {
  char internal[128];
};
struct ncclConfig_t {
  int blocking;
};
inline constexpr ncclConfig_t NCCL_CONFIG_INITIALIZER{.blocking = 1};

const char* ncclGetErrorString(ncclResult_t result);
const char* ncclGetLastError(ncclComm_t handle);
ncclResult_t ncclGetVersion(int* version);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);

/// Takes config->blocking = 0 alone.
ncclResult_t ncclCommInitRankConfig(ncclComm_t* handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error);
ncclResult_t ncclCommFinalize(ncclComm_t handle);
ncclResult_t ncclCommDestroy(ncclComm_t handle);
ncclResult_t ncclCommAbort(ncclComm_t handle);

ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
// Of fp32, ncclSum alone.
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation, int root,
                        ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count_each, ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count_each, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream);

}  // namespace nccl
// NOLINTEND(readability-identifier-naming)

}  // namespace lathe::emulation
