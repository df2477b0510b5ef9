// Graphs and the memory of steps on the CUDA device, emulated or real.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "lathe/kernels/reduce.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/graph.h"
#include "lathe/runtime/tensor.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/fault.h"
#endif

namespace lathe {
namespace {

constexpr std::int64_t kCount = 1000;

Tensor constant(const DeviceRef& device, float value) {
  return Tensor::from<float>(device, std::vector<float>(kCount, value), Shape{kCount});
}

void add_to(const Tensor& y, const Tensor& a, const Tensor& b) {
  on(y,
     [&]<class T>(auto stream) { add(stream, Add<T>{.y = y.data<T>(), .a = a.data<T>(), .b = b.data<T>(), .count = y.size()}); });
}

/// All of a tensor's elements, which are equal.
float value_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  tensor.copy_to<float>(values);
  EXPECT_EQ(std::ranges::count(values, values.front()), std::ssize(values));
  return values.front();
}

TEST(CudaGraph, ReplaysWhatWasCapturedOnWhatIsThereNow) {
  const DeviceRef device = Device::cuda({});
  const Tensor input = constant(device, 1.0F);
  const Tensor sum = constant(device, 0.0F);
  const auto work = [&] {
    const StepMemory memory(device);
    const Tensor twice = Tensor::like(input);
    add_to(twice, input, input);
    add_to(sum, sum, twice);
  };
  const Graph graph = Graph::capture(device, work);
  EXPECT_EQ(value_of(sum), 0.0F) << "capturing runs nothing";
  graph.replay();
  EXPECT_EQ(value_of(sum), 2.0F);
  input.copy_from<float>(std::vector<float>(kCount, 5.0F));
  graph.replay();
  graph.replay();
  EXPECT_EQ(value_of(sum), 22.0F);
  work();
  EXPECT_EQ(value_of(sum), 32.0F) << "the device's stream goes on as before";
#ifdef LATHE_EMULATED
  EXPECT_NO_THROW(graph.expect_same_as(Graph::capture(device, work)));
  const Tensor other = constant(device, 0.0F);
  EXPECT_THROW(graph.expect_same_as(Graph::capture(device,
                                                   [&] {
                                                     const StepMemory memory(device);
                                                     const Tensor twice = Tensor::like(input);
                                                     add_to(twice, input, other);
                                                     add_to(sum, sum, twice);
                                                   })),
               emulation::Fault);
#endif
}

TEST(CudaGraph, RefusesWhatWouldHappenOnlyOnce) {
  const DeviceRef device = Device::cuda({});
  const Tensor tensor = constant(device, 1.0F);
  std::vector<float> values(kCount, 2.0F);
  EXPECT_THROW(static_cast<void>(Graph::capture(device, [&] { tensor.copy_from<float>(values); })), LogicError);
  EXPECT_THROW(static_cast<void>(Graph::capture(device, [&] { tensor.copy_to<float>(values); })), LogicError);
  EXPECT_THROW(static_cast<void>(Graph::capture(device, [&] { device->synchronize(); })), LogicError);
  EXPECT_THROW(static_cast<void>(Graph::capture(device, [&] { throw std::runtime_error("a fault of the caller's"); })),
               std::runtime_error);
  EXPECT_EQ(value_of(tensor), 1.0F) << "the device is as it was";
}

TEST(CudaStepMemory, IsApartFromWhatLivesLonger) {
  const DeviceRef device = Device::cuda({});
  std::vector<std::byte*> of_steps;
  const auto step = [&] {
    const StepMemory memory(device);
    const Storage a = device->allocate(3000);
    const Storage b = device->allocate(1 << 20);
    return std::vector<std::byte*>{a.data(), b.data()};
  };
  const auto first = step();
  // What is made between steps would have got the freed blocks.
  const Storage between = device->allocate(3000);
  EXPECT_EQ(std::ranges::count(first, between.data()), 0);
  EXPECT_EQ(step(), first);
}

TEST(CudaStepMemory, CountsToTheDevicesLimit) {
  const DeviceRef device = Device::cuda({.index = 0, .limit_bytes = 1 << 20});
  const Storage lasting = device->allocate(512 << 10);
  const StepMemory memory(device);
  EXPECT_THROW(static_cast<void>(device->allocate(600 << 10)), OutOfMemoryError);
}

}  // namespace
}  // namespace lathe
