// fp32 products of a build without oneDNN. Eigen prepares nothing.
#include <Eigen/src/Core/util/Macros.h>

#include <string>

#include "lathe/kernels/matmul.h"
#include "lathe/kernels/matmul_backend.h"

namespace lathe {

class MatmulPlans::Implementation {};

MatmulPlans::MatmulPlans() = default;
MatmulPlans::~MatmulPlans() = default;

const char* MatmulPlans::library() {
  static const std::string text = "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) +
                                  "." + std::to_string(EIGEN_MINOR_VERSION);
  return text.c_str();
}

std::int64_t fp32_matmul_workspace(CpuStream stream, const Matmul<float>& args) { return eigen_matmul_workspace(stream, args); }
void fp32_matmul(CpuStream stream, const Matmul<float>& args) { eigen_matmul(stream, args); }

}  // namespace lathe
