#include <lathe/layers/functions.h>

#include <array>

int main() {
  const auto device = lathe::Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 20});
  const std::array<float, 2> values = {-1.0F, 2.0F};
  const auto x = lathe::Tensor::from<float>(device, values, {1, 2});
  lathe::Tape tape(device);
  const auto y = lathe::activate(tape, x, {}, lathe::Activation::relu);
  return y.data<float>()[0] == 0.0F && y.data<float>()[1] == 2.0F ? 0 : 1;
}
