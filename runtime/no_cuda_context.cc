#include "lathe/runtime/cuda_context.h"
#include "lathe/runtime/error.h"

namespace lathe {

CudaBackend cuda_backend() noexcept { return CudaBackend::none; }

std::optional<std::string> CudaContext::obstacle(const Device::CudaOptions&) { return "this build of Lathe has no CUDA backend"; }

int CudaContext::visible_gpus() { return 0; }

std::vector<std::string> CudaContext::visible_uuids() { return {}; }

std::unique_ptr<CudaContext> CudaContext::create(const Device::CudaOptions&) {
  throw UsageError("this build of Lathe has no CUDA backend: use --device cpu, or build with LATHE_CUDA=ON");
}

}  // namespace lathe
