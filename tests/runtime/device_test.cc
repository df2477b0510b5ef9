#include "lathe/runtime/device.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "lathe/kernels/cpu_target.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

DeviceRef small_device(std::int64_t bytes = 1 << 20) {
  return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = bytes});
}

TEST(Device, AlignsBlocksAndKeepsThemApart) {
  const DeviceRef device = small_device();
  const Storage a = device->allocate(1);
  const Storage b = device->allocate(100);
  const Storage c = device->allocate(0);
  for (const Storage* s : {&a, &b, &c}) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(s->data()) % 64, 0U);
  EXPECT_GE(b.data() - a.data(), 64 + 1) << "a guard lies between blocks";
  EXPECT_GE(c.data() - b.data(), 64 + 100);
}

TEST(Device, GivesTheSameAddressesToTheSameSequence) {
  const DeviceRef device = small_device();
  const auto step = [&] {
    std::vector<std::byte*> addresses;
    Storage a = device->allocate(1000);
    Storage b = device->allocate(5000);
    addresses = {a.data(), b.data()};
    a = Storage();
    const Storage c = device->allocate(400);
    const Storage d = device->allocate(2000);
    addresses.push_back(c.data());
    addresses.push_back(d.data());
    return addresses;
  };
  const auto first = step();
  EXPECT_EQ(step(), first);
  EXPECT_EQ(step(), first);
  EXPECT_EQ(first[2], first[0]) << "a freed hole that fits is used again";
}

TEST(Device, JoinsFreedBlocksWhateverTheOrder) {
  const DeviceRef device = small_device(64 << 10);
  for (const auto& order : std::vector<std::vector<int>>{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}}) {
    std::vector<Storage> blocks;
    blocks.reserve(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) blocks.push_back(device->allocate(20 << 10));
    for (const int i : order) blocks[static_cast<std::size_t>(i)] = Storage();
    EXPECT_EQ(device->memory().now, 0);
    EXPECT_NO_THROW(device->allocate(60 << 10)) << "the whole range is one hole again";
  }
}

TEST(Device, CountsMemoryAndSaysWhatIsMissing) {
  const DeviceRef device = small_device(1 << 20);
  {
    const Storage a = device->allocate(512 << 10);
    EXPECT_GE(device->memory().now, 512 << 10);
    try {
      device->allocate(600 << 10);
      FAIL() << "more was given than there is";
    } catch (const OutOfMemoryError& failure) {
      EXPECT_NE(std::string(failure.what()).find("--batch-size"), std::string::npos) << failure.what();
    }
  }
  EXPECT_EQ(device->memory().now, 0);
  EXPECT_GE(device->memory().peak, 512 << 10);
}

#ifndef LATHE_HAS_CUDA
TEST(Device, IsTheOnlyOneWithoutACudaBackend) {
  EXPECT_EQ(cuda_backend(), CudaBackend::none);
  EXPECT_EQ(Device::why_no_cuda({}), "this build of Lathe has no CUDA backend");
  EXPECT_THROW(Device::cuda({}), UsageError);
}
#endif

TEST(Device, StagesInItsOwnMemoryOnTheCpu) {
  const DeviceRef device = small_device();
  const Storage block = device->allocate(64);
  const std::span<std::byte> staged = device->stage(block.data(), 64);
  EXPECT_EQ(staged.data(), block.data());
  staged[63] = std::byte{9};
  device->send(block.data(), staged);
  EXPECT_EQ(block.data()[63], std::byte{9});
}

TEST(Device, OutlivesItsNameThroughItsBlocks) {
  DeviceRef device = small_device();
  const Storage block = device->allocate(64);
  device.reset();
  block.data()[63] = std::byte{7};
  EXPECT_EQ(block.data()[63], std::byte{7});
}

TEST(Device, HandlesMayBeSharedBetweenThreads) {
  const DeviceRef device = small_device(16 << 20);
  const Storage shared = device->allocate(64);
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        Storage copy = shared;
        const Storage own = device->allocate(1 + i % 500);
        own.data()[0] = copy.data()[0];
        copy = own;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(device->memory().now, 128);
}

TEST(Device, ARehearsalCountsWhatTheDeviceWouldAndTakesNothing) {
  const DeviceRef device = small_device();
  const auto peak_on = [](const DeviceRef& place) {
    Storage a = place->allocate(1000);
    const Storage b = place->allocate(5000);
    a = Storage();
    const Storage c = place->allocate(300);
    return place->memory();
  };
  const DeviceRef rehearsal = Device::rehearsal(device);
  const MemoryUse counted = peak_on(rehearsal);
  EXPECT_EQ(device->memory().peak, 0);
  EXPECT_EQ(peak_on(device).peak, counted.peak);
  EXPECT_EQ(peak_on(device).now, counted.now);
  EXPECT_EQ(rehearsal->kind(), DeviceKind::cpu);
  EXPECT_EQ(rehearsal->name(), "cpu");
  // More than any machine has.
  const Storage huge = rehearsal->allocate(std::int64_t{1} << 39);
  EXPECT_GT(rehearsal->memory().now, std::int64_t{1} << 39);
  // Nothing is copied to what isn't there.
  const std::vector<std::byte> bytes(64, std::byte{7});
  rehearsal->upload(huge.data(), bytes);
  rehearsal->fill_zero(huge.data(), huge.bytes());
  rehearsal->copy(huge.data(), huge.data() + 64, 64);
  const std::span<std::byte> staged = rehearsal->stage(huge.data(), 64);
  staged[63] = std::byte{9};
  rehearsal->send(huge.data(), staged);
  std::vector<std::byte> back = bytes;
  rehearsal->download(back, huge.data());
  EXPECT_EQ(back, std::vector<std::byte>(64));
}

TEST(Device, SaysWhatIsAvailable) {
  const DeviceRef device = small_device(1 << 20);
  const std::int64_t before = device->available_memory();
  EXPECT_LE(before, 1 << 20);
  EXPECT_GT(before, 1 << 19);
  const Storage block = device->allocate(1 << 18);
  EXPECT_LE(device->available_memory(), before - (1 << 18));
  EXPECT_NO_THROW(device->allocate(device->available_memory() - 128));
}

TEST(Device, RefusesWhatTheProcessorCannotDo) {
  EXPECT_THROW(Device::cpu({.threads = 0, .target = {}, .reserved_bytes = 1 << 20}), UsageError);
  if (best_cpu_target() == CpuTarget::v3) {
    EXPECT_THROW(Device::cpu({.threads = 1, .target = CpuTarget::v4, .reserved_bytes = 1 << 20}), UsageError);
  }
  EXPECT_EQ(Device::cpu({.threads = 1, .target = CpuTarget::v3, .reserved_bytes = 1 << 20})->cpu_stream().target, CpuTarget::v3);
}

}  // namespace
}  // namespace lathe
