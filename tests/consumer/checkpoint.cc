#include <lathe/checkpoint/safetensors.h>
#include <lathe/runtime/error.h>

int main() {
  const auto header = lathe::parse_safetensors_header(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8, "a file");
  try {
    lathe::parse_safetensors_header("[]", 0, "another file");
  } catch (const lathe::FormatError& error) {
    return error.path() == "another file" && header.tensors.size() == 1 ? 0 : 1;
  }
  return 1;
}
