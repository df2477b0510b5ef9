// The CUDA device, emulated or real.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "lathe/kernels/reduce.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/graph.h"
#include "lathe/runtime/tensor.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe {
namespace {

std::vector<std::int32_t> counted(std::int64_t count) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(CudaDevice, TensorsGoThereAndComeBack) {
  const DeviceRef device = Device::cuda({});
  EXPECT_EQ(device->kind(), DeviceKind::cuda);
  EXPECT_THROW(device->cpu_stream(), LogicError);
  // More than all slots of the ring together, and not a multiple of one.
  const std::vector<std::int32_t> values = counted(2'500'007);
  const Tensor tensor = Tensor::from<std::int32_t>(device, values, Shape{2'500'007});
  std::vector<std::int32_t> back(values.size());
  tensor.copy_to<std::int32_t>(back);
  EXPECT_EQ(back, values);
  tensor.fill_zero();
  tensor.copy_to<std::int32_t>(back);
  EXPECT_EQ(std::ranges::count(back, 0), std::ssize(back));
}

TEST(CudaDevice, AnUploadsSourceMayChangeAtOnce) {
  const DeviceRef device = Device::cuda({});
  const Tensor tensor = Tensor::empty(device, DType::i32, Shape{1000});
  std::vector<std::int32_t> values = counted(1000);
  const std::vector<std::int32_t> expected = values;
  tensor.copy_from<std::int32_t>(values);
  std::ranges::fill(values, -1);
  std::vector<std::int32_t> back(values.size());
  tensor.copy_to<std::int32_t>(back);
  EXPECT_EQ(back, expected);
}

TEST(CudaDevice, WhatIsStagedGoesWhereItWasMeantFor) {
  const DeviceRef device = Device::cuda({});
  // More often than the ring has slots, and once more than a slot holds.
  for (const std::int64_t count : {5, 700'000, 3, 1, 2, 4, 8, 16, 32, 700'000, 9}) {
    const Tensor tensor = Tensor::empty(device, DType::i32, Shape{count});
    const std::vector<std::int32_t> expected = counted(count);
    auto* const to = reinterpret_cast<std::byte*>(tensor.data<std::int32_t>());
    const std::span<std::byte> staged = device->stage(to, tensor.bytes());
    ASSERT_EQ(std::ssize(staged), tensor.bytes());
    std::ranges::copy(std::as_bytes(std::span(expected)), staged.begin());
    device->send(to, staged);
    std::vector<std::int32_t> back(expected.size());
    tensor.copy_to<std::int32_t>(back);
    EXPECT_EQ(back, expected);
  }
}

TEST(CudaDevice, SaysWhetherItCanBeHad) {
  EXPECT_FALSE(Device::why_no_cuda({}).has_value());
  EXPECT_NE(Device::why_no_cuda({.index = 99, .limit_bytes = 0})->find("GPU 99 was asked for"), std::string::npos);
  EXPECT_NE(cuda_backend(), CudaBackend::none);
  EXPECT_FALSE(Device::cuda({})->matrix_products().empty());
}

#ifdef LATHE_EMULATED
/// Why no GPU is taken of `machine`.
std::string reason_on(const emulation::Machine& machine) {
  emulation::Settings other = emulation::settings();
  other.machine = machine;
  const emulation::Settings before = emulation::configure(other);
  const std::string reason = Device::why_no_cuda({}).value_or("");
  EXPECT_THROW(static_cast<void>(Device::cuda({})), UsageError);
  emulation::configure(before);
  return reason;
}

TEST(CudaDevice, SaysWhatAMachineLacks) {
  EXPECT_EQ(reason_on({.driver = 0}), "no NVIDIA driver was found");
  EXPECT_EQ(reason_on({.driver = 12080}),
            "the NVIDIA driver is for CUDA 12.8, and this build of Lathe needs one for CUDA 13.0 or later");
  EXPECT_EQ(reason_on({.gpus = 0}), "no GPU was found");
  EXPECT_EQ(reason_on({.major = 7}), "GPU 0 (emulated sm_80) has compute capability 7.0; Lathe's kernels need 8.0 or later");
  EXPECT_FALSE(Device::why_no_cuda({}).has_value());
}
#endif

TEST(CudaDevice, TheSameSequenceGetsTheSameAddresses) {
  const DeviceRef device = Device::cuda({});
  const auto step = [&] {
    Storage a = device->allocate(1000);
    const Storage b = device->allocate(80 << 20);  // more than a piece
    const std::vector<std::byte*> addresses = {a.data(), b.data()};
    a = Storage();
    const Storage c = device->allocate(400);
    EXPECT_EQ(c.data(), addresses[0]) << "a freed hole that fits is used again";
    return addresses;
  };
  const auto first = step();
  EXPECT_EQ(step(), first);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first[1]) % 64, 0U);
}

TEST(CudaDevice, SaysHowMuchMemoryIsMissing) {
  const DeviceRef device = Device::cuda({.index = 0, .limit_bytes = 1 << 20});
  const Storage a = device->allocate(512 << 10);
  try {
    device->allocate(600 << 10);
    FAIL() << "more was given than there is";
  } catch (const OutOfMemoryError& failure) {
    EXPECT_EQ(failure.requested(), 600 << 10);
    EXPECT_LT(failure.available(), 600 << 10);
    EXPECT_NE(std::string(failure.what()).find("--batch-size"), std::string::npos) << failure.what();
  }
  EXPECT_NO_THROW(device->allocate(300 << 10));
}

TEST(CudaDevice, ARehearsalTakesNoneOfItsMemory) {
  const DeviceRef device = Device::cuda({.index = 0, .limit_bytes = 1 << 20});
  const DeviceRef rehearsal = Device::rehearsal(device);
  EXPECT_EQ(rehearsal->kind(), DeviceKind::cuda);
  EXPECT_THROW(rehearsal->cpu_stream(), LogicError);
  const Tensor lasting = Tensor::zeros(rehearsal, DType::f32, Shape{1 << 28});
  // What is captured is enqueued nowhere, and has its memory where steps have theirs.
  Tensor result;
  const Graph graph = Graph::capture(rehearsal, [&] {
    const StepMemory memory(rehearsal);
    result = Tensor::like(lasting);
    on(lasting, [&]<class T>(auto stream) {
      if constexpr (!std::is_same_v<T, double>)
        add(stream, Add<T>{.y = result.data<T>(), .a = lasting.data<T>(), .b = lasting.data<T>(), .count = lasting.size()});
    });
    EXPECT_THROW(rehearsal->upload(nullptr, std::as_bytes(std::span("x"))), LogicError);
  });
  graph.replay();
  rehearsal->synchronize();
  EXPECT_GE(rehearsal->memory().peak, 2 * lasting.bytes());
  EXPECT_EQ(device->memory().peak, 0);
}

TEST(CudaDevice, AnotherGpuThanThereIsIsRefused) {
  try {
    Device::cuda({.index = 99, .limit_bytes = 0});
    FAIL();
  } catch (const UsageError& failure) {
    EXPECT_TRUE(std::string(failure.what()).starts_with("GPU 99 was asked for, and there ")) << failure.what();
  }
}

#ifdef LATHE_EMULATED
TEST(CudaDevice, NothingIsLeftBehind) {
  {
    const DeviceRef device = Device::cuda({});
    const Storage a = device->allocate(1000);
  }
  EXPECT_NO_THROW(emulation::expect_nothing_alive());
}
#endif

}  // namespace
}  // namespace lathe
