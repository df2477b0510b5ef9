#include "lathe/runtime/host_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>

#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

TEST(HostMemory, IsSomethingAndNotMoreThanThereIs) {
  const std::int64_t available = available_host_memory();
  EXPECT_GT(available, 1 << 20);
  EXPECT_LT(available, std::int64_t{1} << 50) << "Linux tells";
}

TEST(HostMemory, ATensorThatTheSystemHasNoMemoryForIsRefusedBeforeItIsTouched) {
  // Half as much again as there is: addresses there would be, since the device reserves twice the memory.
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 4 * available_host_memory()});
  const std::int64_t bytes = available_host_memory() + available_host_memory() / 2;
  try {
    device->allocate(bytes);
    FAIL() << "memory that isn't there was given out";
  } catch (const OutOfMemoryError& failure) {
    EXPECT_EQ(failure.requested(), bytes);
    EXPECT_GT(failure.available(), 0);
    EXPECT_LT(failure.available(), bytes);
  }
  EXPECT_NO_THROW(device->allocate(1 << 20)) << "what there is can be had afterwards";
}

TEST(HostMemory, AddressesAreCountedUnderALimit) {
  EXPECT_EQ(available_addresses(), std::numeric_limits<std::int64_t>::max());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // All that a process can have, since the sanitizers' shadow takes terabytes.
    constexpr std::int64_t kLimit = std::int64_t{1} << 47U;
    constexpr std::int64_t kTaken = std::int64_t{1} << 30U;
    const rlimit limit = {kLimit, kLimit};
    if (::setrlimit(RLIMIT_AS, &limit) != 0) ::_exit(2);
    const std::int64_t left = available_addresses();
    if (left <= 0 || left >= kLimit) ::_exit(3);
    if (::mmap(nullptr, kTaken, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) ::_exit(4);
    ::_exit(available_addresses() <= left - kTaken ? 0 : 5);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace lathe
