#include "lathe/runtime/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

class TensorTest : public testing::Test {
 protected:
  DeviceRef device_ = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 20});
};

TEST_F(TensorTest, ShapesCountElements) {
  EXPECT_EQ((Shape{2, 3, 4}.size()), 24);
  EXPECT_EQ((Shape{2, 3, 4}.rows()), 6);
  EXPECT_EQ((Shape{2, 3, 4}.channels()), 4);
  EXPECT_EQ(Shape{}.size(), 1);
  EXPECT_EQ((Shape{0, 7}.size()), 0);
  EXPECT_EQ(to_string(Shape{2, 3}), "[2, 3]");
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), LogicError);
  EXPECT_THROW((Shape{-1}), LogicError);
}

TEST_F(TensorTest, CopiesToAndFromTheHost) {
  const std::array<float, 4> values = {1, 2, 3, 4};
  const Tensor x = Tensor::from<float>(device_, values, Shape{2, 2});
  std::array<float, 4> back{};
  x.copy_to<float>(back);
  EXPECT_EQ(back, values);
  EXPECT_THROW(Tensor::from<float>(device_, values, Shape{3}), LogicError);
  std::array<float, 3> few{};
  EXPECT_THROW(x.copy_to<float>(few), LogicError);
  EXPECT_THROW(x.data<double>(), LogicError);
  EXPECT_EQ(Tensor().data<float>(), nullptr);
}

TEST_F(TensorTest, ReshapesKeepIdentityAndViewsDoNot) {
  const Tensor x = Tensor::zeros(device_, DType::f32, Shape{4, 3});
  const Tensor same = x.reshape(Shape{12});
  const Tensor part = x.view(3, Shape{2, 3});
  EXPECT_EQ(same.id(), x.id());
  EXPECT_NE(part.id(), x.id());
  part.data<float>()[0] = 5;
  EXPECT_EQ(x.data<float>()[3], 5);
  EXPECT_TRUE(part.overlaps(x));
  EXPECT_FALSE(part.overlaps(x.view(0, Shape{3})));
  EXPECT_FALSE(part.overlaps(Tensor::like(x)));
  EXPECT_THROW(x.view(10, Shape{3}), LogicError);
  EXPECT_THROW(x.reshape(Shape{5}), LogicError);
}

TEST_F(TensorTest, FunctionsRefuseIntegers) {
  const Tensor ids = Tensor::zeros(device_, DType::i32, Shape{3});
  EXPECT_THROW(on(ids, []<class T>(auto) {}), LogicError);
}

TEST_F(TensorTest, LiesWithinAPieceOfMemory) {
  const Storage memory = device_->allocate(64);
  const Tensor numbers = Tensor::within(memory, 8, DType::f32, Shape{3});
  const Tensor others = Tensor::within(memory, 24, DType::f64, Shape{5});
  EXPECT_EQ(reinterpret_cast<std::byte*>(numbers.data<float>()), memory.data() + 8);
  EXPECT_NE(numbers.id(), others.id());
  EXPECT_FALSE(numbers.overlaps(others));
  EXPECT_TRUE(numbers.overlaps(Tensor::within(memory, 16, DType::f32, Shape{1})));
  EXPECT_THROW(Tensor::within(memory, 24, DType::f64, Shape{6}), LogicError) << "too large";
  EXPECT_THROW(Tensor::within(memory, 4, DType::f64, Shape{1}), LogicError) << "between two elements";
  EXPECT_THROW(Tensor::within(memory, -8, DType::f64, Shape{1}), LogicError);
}

TEST_F(TensorTest, ComesToTheHostInFp32) {
  const std::vector<Bf16> short_values = {Bf16(1.5F), Bf16(-0.1F)};
  std::vector<float> floats(2);
  Tensor::from<Bf16>(device_, short_values, Shape{2}).copy_to_floats(floats);
  EXPECT_EQ(floats[0], 1.5F);
  EXPECT_EQ(floats[1], static_cast<float>(Bf16(-0.1F)));
  const std::vector<float> values = {0.1F, 7.0F};
  Tensor::from<float>(device_, values, Shape{2}).copy_to_floats(floats);
  EXPECT_EQ(floats, values);
  EXPECT_THROW(Tensor::zeros(device_, DType::f64, Shape{2}).copy_to_floats(floats), LogicError);
}

}  // namespace
}  // namespace lathe
