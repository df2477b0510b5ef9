#include <lathe/runtime/error.h>
#include <lathe/runtime/tensor.h>

#include <array>

int main() {
  const auto device = lathe::Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 20});
  const std::array<float, 2> values = {1.0F, 2.0F};
  const auto tensor = lathe::Tensor::from<float>(device, values, {2});
  try {
    tensor.data<double>();  // of a float tensor
  } catch (const lathe::LogicError&) {
    return tensor.data<float>()[1] == 2.0F ? 0 : 1;
  }
  return 1;
}
