// Scales numbers on the device. With an argument it gives the kernel a host pointer then, which the emulation refuses.
#include <lathe/runtime/error.h>
#include <lathe/runtime/tensor.h>

#include <cstdio>
#include <exception>
#include <vector>

#include "scale.h"

int main(int count, char**) {
  try {
    constexpr std::int64_t kCount = 1003;
    const lathe::DeviceRef device = lathe::Device::cuda({});
    const std::vector<float> numbers(kCount, 1.5F);
    const lathe::Tensor x = lathe::Tensor::from<float>(device, numbers, {kCount});
    const lathe::Tensor y = lathe::Tensor::like(x);
    consumer::scale(device->cuda_stream(), {.y = y.data<float>(), .x = x.data<float>(), .count = kCount, .factor = 2.0F});
    std::vector<float> result(kCount);
    y.copy_to<float>(result);
    for (const float value : result) {
      if (value != 3.0F) return 1;
    }
    if (count > 1) {
      consumer::scale(device->cuda_stream(), {.y = y.data<float>(), .x = numbers.data(), .count = kCount, .factor = 2.0F});
      device->synchronize();
    }
    std::printf("scaled on %s\n", device->name().c_str());
    return 0;
  } catch (const lathe::UsageError& unusable) {  // no GPU
    std::printf("%s\n", unusable.what());
    return 77;
  } catch (const std::exception& failure) {
    std::printf("%s\n", failure.what());
    return 3;
  }
}
