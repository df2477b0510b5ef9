#include "lathe/runtime/nccl_twin.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/kernels/emulation/host_operation.h"
#include "lathe/runtime/rank_order_sum.h"

namespace lathe::emulation {
namespace {

using namespace nccl;  // NOLINT(google-build-using-namespace): NCCL's names are written as its users write them
using namespace cuda;  // NOLINT(google-build-using-namespace): likewise

enum class Collective : std::uint8_t { all_reduce, reduce, reduce_scatter, broadcast, all_gather };

struct Call {
  Collective collective{};
  const void* from = nullptr;
  void* to = nullptr;
  std::size_t count = 0;
  ncclDataType_t type{};
  int root = -1;

  std::size_t bytes() const { return count * (type == ncclFloat32 ? sizeof(float) : sizeof(std::uint16_t)); }
};

/// Where the next call's data begin among a rank's, so that they are aligned.
std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// What is to begin together in one stream.
using Calls = std::vector<Call>;

}  // namespace

class NcclComm {
 public:
  NcclComm(int ranks, int rank, const ncclUniqueId& id) : size(ranks), own_rank(rank), id_(id) {}

  /// Begins to meet the others.
  void start() {
    if (size == 1) {
      ready_ = true;
      return;
    }
    check(MPI_Comm_idup(MPI_COMM_WORLD, &comm, &request_));
  }

  ncclResult_t progress();

  void fail(ncclResult_t result, std::string text) {
    if (error_ != ncclSuccess) return;
    error_ = result;
    last_error = std::move(text);
  }
  bool check(int status) {
    if (status == MPI_SUCCESS) return true;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(status, text.data(), &length);
    fail(ncclRemoteError, std::string(text.data(), static_cast<std::size_t>(length)));
    return false;
  }
  bool is_ready() const { return ready_ && error_ == ncclSuccess && !aborted; }
  bool in_progress() const { return request_ != MPI_REQUEST_NULL; }

  int size, own_rank;
  MPI_Comm comm = MPI_COMM_NULL;
  bool aborted = false;
  std::string last_error;
  /// What has been called, and is put into its stream when the caller has asked for the second time whether it is.
  std::vector<std::pair<cudaStream_t, Calls>> called;
  int asked = 0;

 private:
  ncclUniqueId id_;
  std::vector<ncclUniqueId> ids_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  bool ready_ = false;
  ncclResult_t error_ = ncclSuccess;
};

namespace {

std::map<ncclComm_t, std::shared_ptr<NcclComm>>& alive() {
  static std::map<ncclComm_t, std::shared_ptr<NcclComm>> value;
  return value;
}

std::shared_ptr<NcclComm> find(ncclComm_t comm) {
  const auto found = alive().find(comm);
  return found == alive().end() ? nullptr : found->second;
}

/// What MPI may still write to, though nobody waits for it any more.
template <class Kept>
void keep_for_ever(Kept kept) {
  static std::vector<Kept> all;
  all.push_back(std::move(kept));
}

/// Calls that begin together: all ranks' data come to all, and each takes out of them what is its own.
class Exchange {
 public:
  Exchange(std::shared_ptr<NcclComm> comm, Calls calls) : comm_(std::move(comm)), calls_(std::move(calls)) {}
  ~Exchange() {
    if (request_ == MPI_REQUEST_NULL) return;
    keep_for_ever(std::move(headers_));
    keep_for_ever(std::move(mine_));
    keep_for_ever(std::move(all_));
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  Exchange(Exchange&&) = delete;
  Exchange& operator=(Exchange&&) = delete;

  std::vector<MemorySpan> reads() const {
    std::vector<MemorySpan> spans;
    for (const Call& call : calls_) {
      if (call.collective != Collective::broadcast || call.root == comm_->own_rank)
        spans.push_back({call.from, bytes_from(call)});
    }
    return spans;
  }
  std::vector<MemorySpan> writes() const {
    std::vector<MemorySpan> spans;
    for (const Call& call : calls_) {
      if (call.collective != Collective::reduce || call.root == comm_->own_rank) spans.push_back({call.to, bytes_to(call)});
    }
    return spans;
  }

  bool ready() {
    if (comm_->aborted) return true;
    switch (stage_) {
      case Stage::waiting_in_stream:
        begin();
        return stage_ == Stage::complete;
      case Stage::headers:
        if (has_come()) compare_headers();
        return false;
      case Stage::data:
        if (has_come()) stage_ = Stage::complete;
        return stage_ == Stage::complete;
      case Stage::stuck:
        return false;
      case Stage::complete:
        return true;
    }
    return false;
  }

  void run() {
    if (comm_->aborted) return;
    std::size_t at = 0;
    for (const Call& call : calls_) {
      take(call, at);
      at += aligned(bytes_from(call));
    }
  }

 private:
  enum class Stage : std::uint8_t { waiting_in_stream, headers, data, stuck, complete };

  std::size_t bytes_from(const Call& call) const {
    return call.bytes() * (call.collective == Collective::reduce_scatter ? static_cast<std::size_t>(comm_->size) : 1);
  }
  std::size_t bytes_to(const Call& call) const {
    return call.bytes() * (call.collective == Collective::all_gather ? static_cast<std::size_t>(comm_->size) : 1);
  }

  void begin() {
    std::string text;
    for (const Call& call : calls_) {
      const std::size_t at = mine_.size();
      mine_.resize(at + aligned(bytes_from(call)));
      std::memcpy(mine_.data() + at, call.from, bytes_from(call));
      text += fmt::format("{} {} {} {};", static_cast<int>(call.collective), call.count, static_cast<int>(call.type), call.root);
    }
    if (comm_->size == 1) {
      all_ = mine_;
      stage_ = Stage::complete;
      return;
    }
    header_ = std::hash<std::string>{}(text);
    headers_.resize(static_cast<std::size_t>(comm_->size));
    const bool begun =
        comm_->check(MPI_Iallgather(&header_, 1, MPI_UINT64_T, headers_.data(), 1, MPI_UINT64_T, comm_->comm, &request_));
    stage_ = begun ? Stage::headers : Stage::stuck;
  }

  void compare_headers() {
    if (std::ranges::count(headers_, header_) != std::ssize(headers_) ||
        mine_.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      comm_->fail(ncclInvalidUsage, "the ranks have enqueued different collectives, or 2 GiB at once");
      stage_ = Stage::stuck;
      return;
    }
    all_.resize(mine_.size() * headers_.size());
    const int bytes = static_cast<int>(mine_.size());
    const bool begun =
        comm_->check(MPI_Iallgather(mine_.data(), bytes, MPI_BYTE, all_.data(), bytes, MPI_BYTE, comm_->comm, &request_));
    stage_ = begun ? Stage::data : Stage::stuck;
  }

  bool has_come() {
    int done = 0;
    if (!comm_->check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE))) stage_ = Stage::stuck;
    return done != 0 && stage_ != Stage::stuck;
  }

  const std::byte* of_rank(int rank, std::size_t at) const {
    return all_.data() + static_cast<std::size_t>(rank) * mine_.size() + at;
  }

  /// The result of a call whose data begin at byte `at` of each rank's.
  void take(const Call& call, std::size_t at) const {
    switch (call.collective) {
      case Collective::broadcast:
        std::memcpy(call.to, of_rank(call.root, at), call.bytes());
        return;
      case Collective::all_gather:
        for (int r = 0; r < comm_->size; ++r)
          std::memcpy(static_cast<std::byte*>(call.to) + static_cast<std::size_t>(r) * call.bytes(), of_rank(r, at),
                      call.bytes());
        return;
      case Collective::reduce:
        if (call.root == comm_->own_rank) sum(call, at);
        return;
      case Collective::reduce_scatter:
        sum(call, at + static_cast<std::size_t>(comm_->own_rank) * call.bytes());
        return;
      case Collective::all_reduce:
        sum(call, at);
        return;
    }
  }

  void sum(const Call& call, std::size_t at) const {
    std::vector<const float*> terms;
    terms.reserve(static_cast<std::size_t>(comm_->size));
    for (int r = 0; r < comm_->size; ++r) terms.push_back(reinterpret_cast<const float*>(of_rank(r, at)));
    sum_in_rank_order<float>(static_cast<float*>(call.to), terms, static_cast<std::int64_t>(call.count));
  }

  std::shared_ptr<NcclComm> comm_;
  Calls calls_;
  Stage stage_ = Stage::waiting_in_stream;
  std::uint64_t header_ = 0;
  std::vector<std::uint64_t> headers_;
  std::vector<std::byte> mine_, all_;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

void enqueue(const std::shared_ptr<NcclComm>& comm, cudaStream_t stream, Calls calls) {
  auto exchange = std::make_shared<Exchange>(comm, std::move(calls));
  HostOperation operation{.name = "a collective of NCCL",
                          .reads = exchange->reads(),
                          .writes = exchange->writes(),
                          .run = [exchange] { exchange->run(); },
                          .ready = [exchange] { return exchange->ready(); }};
  enqueue_host_operation(stream, std::move(operation));
}

struct OpenGroup {
  int depth = 0;
  std::vector<std::pair<ncclComm_t, std::pair<cudaStream_t, Calls>>> calls;
};
OpenGroup& group() {
  static OpenGroup value;
  return value;
}

/// Takes a call. Its answer is ncclInProgress, as of a communicator that isn't blocking, and it is in its stream only once the caller has been told
/// otherwise: who doesn't ask is found out.
ncclResult_t accept(ncclComm_t handle, cudaStream_t stream, const Call& call) {
  const auto comm = find(handle);
  if (comm == nullptr) return ncclInvalidArgument;
  if (!comm->is_ready() || (group().depth == 0 && !comm->called.empty())) {
    comm->last_error = "a call before the last one was over";
    return ncclInvalidUsage;
  }
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone) {
    comm->last_error = "the twin takes no collectives in a graph";
    return ncclInvalidUsage;
  }
  if (call.root >= comm->size) return ncclInvalidArgument;
  if (group().depth == 0) {
    comm->called.push_back({stream, {call}});
    return ncclInProgress;
  }
  for (auto& [of, part] : group().calls) {
    if (of == handle && part.first == stream) {
      part.second.push_back(call);
      return ncclSuccess;
    }
  }
  group().calls.push_back({handle, {stream, {call}}});
  return ncclSuccess;
}

bool sums(ncclDataType_t type, ncclRedOp_t operation) { return type == ncclFloat32 && operation == ncclSum; }

}  // namespace

ncclResult_t NcclComm::progress() {
  if (error_ != ncclSuccess) return error_;
  if (request_ != MPI_REQUEST_NULL) {
    int done = 0;
    if (!check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE))) return error_;
    if (done == 0) return ncclInProgress;
    if (ids_.empty()) {
      check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
      ids_.resize(static_cast<std::size_t>(size));
      check(MPI_Iallgather(&id_, sizeof(id_), MPI_BYTE, ids_.data(), sizeof(id_), MPI_BYTE, comm, &request_));
      return error_ == ncclSuccess ? ncclInProgress : error_;
    }
    for (const ncclUniqueId& other : ids_) {
      if (std::memcmp(&other, &id_, sizeof(id_)) != 0) fail(ncclInvalidArgument, "the ranks have different ids");
    }
    ready_ = error_ == ncclSuccess;
    return error_;
  }
  if (called.empty()) return ncclSuccess;
  if (++asked < 2) return ncclInProgress;
  asked = 0;
  for (auto& [stream, calls] : std::exchange(called, {})) enqueue(alive().at(this), stream, std::move(calls));
  return ncclSuccess;
}

namespace nccl {

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInternalError:
      return "internal error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

const char* ncclGetLastError(ncclComm_t handle) {
  const auto comm = find(handle);
  return comm == nullptr ? "" : comm->last_error.c_str();
}

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::random_device random;
  *id = {};
  for (char& c : std::span(id->internal).first<16>()) c = static_cast<char>(random());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  *handle = nullptr;
  if (ranks < 1 || rank < 0 || rank >= ranks || config->blocking != 0) return ncclInvalidArgument;
  if (ranks > 1) {
    int flag = 0;
    MPI_Initialized(&flag);
    if (flag == 0) return ncclInvalidUsage;
    int world = 0;
    int own = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    if (world != ranks || own != rank) return ncclInvalidUsage;
  }
  auto comm = std::make_shared<NcclComm>(ranks, rank, id);
  *handle = comm.get();
  alive()[*handle] = comm;
  comm->start();
  return ranks > 1 ? ncclInProgress : ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error) {
  const auto comm = find(handle);
  if (comm == nullptr) return ncclInvalidArgument;
  *error = comm->progress();
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) { return find(handle) == nullptr ? ncclInvalidArgument : ncclSuccess; }

ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  const auto comm = find(handle);
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->comm != MPI_COMM_NULL) MPI_Comm_free(&comm->comm);
  alive().erase(handle);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
  const auto comm = find(handle);
  if (comm == nullptr) return ncclInvalidArgument;
  comm->aborted = true;
  if (comm->in_progress()) keep_for_ever(comm);
  alive().erase(handle);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group().depth == 0) return ncclInvalidUsage;
  if (--group().depth > 0 || group().calls.empty()) return ncclSuccess;
  for (auto& [handle, part] : std::exchange(group().calls, {})) {
    if (const auto comm = find(handle)) comm->called.push_back(std::move(part));
  }
  return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  if (!sums(type, operation)) return ncclInvalidArgument;
  return accept(comm, stream, {.collective = Collective::all_reduce, .from = from, .to = to, .count = count, .type = type});
}

ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  if (!sums(type, operation)) return ncclInvalidArgument;
  return accept(comm, stream,
                {.collective = Collective::reduce, .from = from, .to = to, .count = count, .type = type, .root = root});
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count_each, ncclDataType_t type, ncclRedOp_t operation,
                               ncclComm_t comm, cudaStream_t stream) {
  if (!sums(type, operation)) return ncclInvalidArgument;
  return accept(comm, stream,
                {.collective = Collective::reduce_scatter, .from = from, .to = to, .count = count_each, .type = type});
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return accept(comm, stream,
                {.collective = Collective::broadcast, .from = from, .to = to, .count = count, .type = type, .root = root});
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count_each, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return accept(comm, stream, {.collective = Collective::all_gather, .from = from, .to = to, .count = count_each, .type = type});
}

}  // namespace nccl
}  // namespace lathe::emulation
