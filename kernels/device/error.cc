#include "lathe/kernels/device/error.h"

#include <source_location>
#include <string>
#include <string_view>

#include "lathe/kernels/device/check.h"

namespace lathe {

void throw_cuda_error(int status, const char* name, const char* text, std::source_location where) {
  // The file as the source tree names it: what stands before its room is the machine's own.
  std::string_view file = where.file_name();
  for (const std::string_view room : {"kernels/", "runtime/", "layers/"}) {
    const auto begin = file.rfind(room);
    if (begin != std::string_view::npos) {
      file.remove_prefix(begin);
      break;
    }
  }
  throw CudaError(status, std::string(file) + ":" + std::to_string(where.line()) + ": " + name + " (" + std::to_string(status) +
                              "): " + text);
}

}  // namespace lathe
