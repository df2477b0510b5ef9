#include "tools/command_line/version.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <stdexcept>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/matmul.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/mpi_session.h"
#include "lathe/runtime/nccl_communicator.h"

namespace lathe {
namespace {

std::string processor() {
  try {
    return fmt::format("this processor uses {}", name(best_cpu_target()));
  } catch (const std::runtime_error&) {
    return "this processor has neither";
  }
}

std::string_view backends() {
  switch (cuda_backend()) {
    case CudaBackend::none:
      return "cpu";
    case CudaBackend::gpu:
      return "cpu, cuda";
    case CudaBackend::emulated:
      return "cpu, cuda emulated on the cpu";
  }
  return "?";
}

std::string processes() {
  if (has_mpi()) return "several, by " + mpi_library() + (has_nccl() ? " and " + nccl_library() : "");
  return "one, as this build has no MPI";
}

}  // namespace

std::string version_text() {
  return fmt::format(
      "lathe {}, matrix products by {}\n"
      "build: {}\n"
      "instruction sets: {}, {}; {}\n"
      "backends: {}\n"
      "processes: {}\n"
      "libraries: {}, utf8proc {}.{}.{}\n",
      LATHE_VERSION, MatmulPlans::library(), LATHE_BUILD, name(CpuTarget::v3), name(CpuTarget::v4), processor(), backends(),
      processes(), LATHE_LIBRARIES, UTF8PROC_VERSION_MAJOR, UTF8PROC_VERSION_MINOR, UTF8PROC_VERSION_PATCH);
}

}  // namespace lathe
