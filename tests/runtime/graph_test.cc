// Steps on a device that captures nothing.
#include "lathe/runtime/graph.h"

#include <gtest/gtest.h>

#include "lathe/runtime/error.h"
#include "lathe/runtime/tensor.h"

namespace lathe {
namespace {

TEST(GraphOnTheCpu, IsRefused) {
  const DeviceRef device = Device::cpu({});
  EXPECT_THROW(static_cast<void>(Graph::capture(device, [] {})), LogicError);
}

TEST(StepMemoryOnTheCpu, TensorsMayOutliveTheStep) {
  const DeviceRef device = Device::cpu({});
  Tensor kept;
  {
    const StepMemory step(device);
    EXPECT_THROW(const StepMemory second(device), LogicError);
    kept = Tensor::zeros(device, DType::f32, Shape{8});
  }
  const Tensor later = Tensor::zeros(device, DType::f32, Shape{8});
  EXPECT_FALSE(later.overlaps(kept));
  EXPECT_NE(later.data<float>(), kept.data<float>());
  EXPECT_NO_THROW(const StepMemory third(device));
}

}  // namespace
}  // namespace lathe
