// A kernel with a planted fault for each detector, and its sound twin: the fault is found in every order, with the whole message in the
// forward one, and the twin passes in all.
#include <functional>

#include "tests/kernels/emulation/device.h"

namespace lathe::test {
namespace {

using namespace emulation::cuda;  // NOLINT(google-build-using-namespace): the API under its own names

/// "barrier_missed_kernel<true>, block (0, 0, 0), thread (40, 0, 0)".
std::string at(const std::string& name, int thread, int block = 0) {
  return name + "_kernel<true>, block (" + std::to_string(block) + ", 0, 0), thread (" + std::to_string(thread) + ", 0, 0)";
}

const std::string kNoBarrier = ": no barrier lies between";

class Detectors : public EmulatedDevice {
 protected:
  using Run = std::function<void(Planted)>;

  void expect(const std::string& message, const Run& run) const {
    EXPECT_EQ(fault([&] { run(Planted::fault); }), "emulation: " + message);
    const std::string kind = "emulation: " + message.substr(0, message.find(": ") + 2);
    for (const emulation::Settings& orders : all_orders()) {
      emulation::configure(orders);
      const std::string found = fault([&] { run(Planted::fault); });
      EXPECT_TRUE(found.starts_with(kind)) << found << "\nexpected " << kind;
      EXPECT_EQ(fault([&] { run(Planted::sound); }), "");
    }
    emulation::configure({});
  }
  void expect(const std::string& message, void (*run)(CudaStream, Planted, float*)) const {
    expect(message, [&](Planted planted) { run({}, planted, y_); });
  }
};

TEST_F(Detectors, BarrierMissed) {
  expect("barrier: " + at("barrier_missed", 40) + ": has ended while others wait in __syncthreads at " +
             line_of("barrier_missed") + ", which every thread of the block must reach",
         run_barrier_missed);
}

TEST_F(Detectors, BarrierDiverged) {
  expect("barrier: " + at("barrier_diverged", 32) + ": has reached __syncthreads at " + line_of("barrier_diverged_second") +
             " while others wait in __syncthreads at " + line_of("barrier_diverged_first"),
         run_barrier_diverged);
}

TEST_F(Detectors, LaneAbsentFromAShuffle) {
  expect("warp: " + at("lane_absent", 38) + ": waits in a shuffle at " + line_of("lane_absent") +
             " with the mask 0xffffffff for thread (37, 0, 0), which has ended",
         run_lane_absent);
}

TEST_F(Detectors, LaneThatWaitsElsewhere) {
  expect("warp: " + at("lane_waits", 0) + ": waits in a shuffle at " + line_of("lane_waits_shuffle") +
             " with the mask 0x0000ffff for thread (15, 0, 0), which waits in __syncthreads at " + line_of("lane_waits_barrier"),
         run_lane_waits);
}

TEST_F(Detectors, ShuffleFromOutsideOfTheMask) {
  expect("warp: " + at("lane_outside_mask", 15) + ": takes in a shuffle at " + line_of("lane_outside_mask") +
             " the value of lane 20, which is not in the mask 0x0000ffff",
         run_lane_outside_mask);
}

TEST_F(Detectors, ShufflesDiverged) {
  expect("warp: " + at("shuffles_diverged", 1) + ": has reached a shuffle at " + line_of("shuffles_diverged_second") +
             " while other lanes of its warp wait in a shuffle at " + line_of("shuffles_diverged_first"),
         run_shuffles_diverged);
}

TEST_F(Detectors, RaceInSharedMemory) {
  expect("race: " + at("race_shared", 31) + ": writes 4 bytes at " + line_of("race_shared_write") +
             ": byte 124 of 'tile' of 256 bytes in shared memory, collides with the read by " + at("race_shared", 63) + " at " +
             line_of("race_shared_read") + kNoBarrier,
         run_race_shared);
}

TEST_F(Detectors, RaceInSharedMemoryAfterARead) {
  expect("race: " + at("race_shared_write_after_read", 31) + ": reads 4 bytes at " + line_of("race_after_read_read") +
             ": byte 252 of 'tile' of 256 bytes in shared memory, collides with the write by " +
             at("race_shared_write_after_read", 63) + " at " + line_of("race_after_read_write") + kNoBarrier,
         run_race_shared_write_after_read);
}

TEST_F(Detectors, RaceWithinAWarp) {
  expect("race: " + at("race_shared_warp", 1) + ": writes 4 bytes at " + line_of("race_warp_write") +
             ": byte 4 of 'tile' of 256 bytes in shared memory, collides with the read by " + at("race_shared_warp", 0) + " at " +
             line_of("race_warp_read") + kNoBarrier,
         run_race_shared_warp);
}

TEST_F(Detectors, RaceWithinHalfWarps) {
  expect("race: " + at("race_half_warps", 1) + ": writes 4 bytes at " + line_of("race_half_write") +
             ": byte 0 of 'tile' of 16 bytes in shared memory, collides with the read by " + at("race_half_warps", 0) + " at " +
             line_of("race_half_read") + kNoBarrier,
         run_race_half_warps);
}

TEST_F(Detectors, RaceInGlobalMemory) {
  expect("race: " + at("race_global", 32) + ": writes 4 bytes at " + line_of("race_global_write") +
             ": @, byte 128 of 'y' of 1024 bytes, collides with the read by " + at("race_global", 0) + " at " +
             line_of("race_global_read") + kNoBarrier,
         run_race_global);
}

TEST_F(Detectors, RaceInGlobalMemoryAfterARead) {
  expect("race: " + at("race_global_write_after_read", 32) + ": reads 4 bytes at " + line_of("race_global_after_read") +
             ": @, byte 0 of 'y' of 1024 bytes, collides with the write by " + at("race_global_write_after_read", 0) + " at " +
             line_of("race_global_after_write") + kNoBarrier,
         run_race_global_write_after_read);
}

TEST_F(Detectors, RaceBetweenBlocks) {
  expect("race: " + at("race_between_blocks", 63, 1) + ": writes 4 bytes at " + line_of("race_blocks") +
             ": @, byte 252 of 'y' of 1024 bytes, collides with the write by " + at("race_between_blocks", 63) + " at " +
             line_of("race_blocks") + kNoBarrier,
         run_race_between_blocks);
}

TEST_F(Detectors, RaceBetweenBlocksAfterARead) {
  expect("race: " + at("race_between_blocks_write_after_read", 0, 1) + ": reads 4 bytes at " + line_of("race_blocks_read") +
             ": @, byte 0 of 'y' of 1024 bytes, collides with the write by " + at("race_between_blocks_write_after_read", 0) +
             " at " + line_of("race_blocks_write") + kNoBarrier,
         run_race_between_blocks_write_after_read);
}

TEST_F(Detectors, RaceWithAnAtomic) {
  expect("race: " + at("race_atomic", 0) + ": updates atomically 4 bytes at " + line_of("race_atomic_add") +
             ": byte 0 of 'sum' of 4 bytes in shared memory, collides with the read by " + at("race_atomic", 63) + " at " +
             line_of("race_atomic_read") + kNoBarrier,
         run_race_atomic);
}

TEST_F(Detectors, RaceOfNeighboursInAWord) {
  expect("race: " + at("race_bf16", 1) + ": writes 2 bytes at " + line_of("race_bf16") +
             ": @, byte 0 of 'y' of 1024 bytes, collides with the write by " + at("race_bf16", 0) + " at " +
             line_of("race_bf16") + kNoBarrier,
         [&](Planted planted) { run_race_bf16({}, planted, reinterpret_cast<Bf16*>(y_)); });
}

TEST_F(Detectors, ReadBeforeWrite) {
  expect("uninitialised: " + at("unwritten_static", 4) + ": reads 4 bytes at " + line_of("unwritten_static") +
             ": byte 20 of 'tile' of 256 bytes in shared memory, was never written by this block",
         run_unwritten_static);
  expect("uninitialised: " + at("unwritten_dynamic", 4) + ": reads 4 bytes at " + line_of("unwritten_dynamic") +
             ": byte 20 of dynamic shared memory, was never written by this block",
         run_unwritten_dynamic);
  expect("uninitialised: " + at("unwritten_block", 63, 1) + ": reads 4 bytes at " + line_of("unwritten_block") +
             ": byte 0 of 'kept' of 4 bytes in shared memory, was never written by this block",
         run_unwritten_block);
  float* fresh = nullptr;
  ASSERT_EQ(cudaMalloc(&fresh, 256), cudaSuccess);
  emulation::name_memory(fresh, 256, "fresh");
  EXPECT_EQ(fault([&] { run_double({}, y_, fresh, 64); }),
            "emulation: uninitialised: double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
                ": @, byte 0 of 'fresh' of 256 bytes, was never written");
  EXPECT_EQ(fault([&] { run_double({}, fresh, y_, 64); }), "");
  EXPECT_EQ(fault([&] { run_double({}, y_, fresh, 64); }), "");
  cudaFree(fresh);
}

TEST_F(Detectors, OutOfBounds) {
  expect("out of bounds: " + at("beyond_static", 0) + ": reads 4 bytes at " + line_of("beyond_static") +
             ": @, is in no variable of shared memory",
         run_beyond_static);
  expect("out of bounds: " + at("beyond_dynamic", 63) + ": writes 4 bytes at " + line_of("beyond_dynamic") +
             ": byte 256 of dynamic shared memory, is behind the block's 256 bytes of dynamic shared memory",
         run_beyond_dynamic);
  expect("out of bounds: double_kernel, block (4, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
             ": @, 0 bytes behind the end of 'x' of 1024 bytes, is in no allocation",
         [&](Planted planted) { run_double({}, y_, x_, planted == Planted::fault ? kCount + 1 : kCount); });
}

TEST_F(Detectors, UseAfterFree) {
  float* gone = nullptr;
  ASSERT_EQ(cudaMalloc(&gone, 1024), cudaSuccess);
  emulation::name_memory(gone, 1024, "gone");
  cudaMemset(gone, 0, 1024);
  cudaFree(gone);
  EXPECT_EQ(fault([&] { run_double({}, y_, gone + 2, 64); }),
            "emulation: out of bounds: double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
                ": @, byte 8 of 'gone' of 1024 bytes, which was freed, is in no allocation");
}

TEST_F(Detectors, Misaligned) {
  expect("misaligned: " + at("misaligned", 0) + ": reads 16 bytes at " + line_of("misaligned") +
             ": @, byte 4 of 'y' of 1024 bytes, must be a multiple of 16 bytes",
         run_misaligned);
}

TEST_F(Detectors, AsynchronousCopyNotWaitedFor) {
  expect("asynchronous copy: " + at("async_not_waited", 0) + ": reads 4 bytes at " + line_of("async_not_waited_read") +
             ": byte 0 of dynamic shared memory, is the destination of the cp.async at " + line_of("async_not_waited_copy") +
             ", which has not been waited for",
         [&](Planted planted) { run_async_not_waited({}, planted, y_, x_); });
  // Waited for by the thread that copied, which is not enough for others.
  expect("race: " + at("async_no_barrier", 31) + ": writes 16 bytes at " + line_of("async_no_barrier_copy") +
             ": byte 496 of dynamic shared memory, collides with the read by " + at("async_no_barrier", 63) + " at " +
             line_of("async_no_barrier_read") + kNoBarrier,
         [&](Planted planted) { run_async_no_barrier({}, planted, y_, x_); });
}

TEST_F(Detectors, HostPointerInAKernel) {
  std::vector<float> host(64, 1.0F);
  expect("host pointer: double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
             ": @, is host memory, which no kernel can reach",
         [&](Planted planted) { run_double({}, y_, planted == Planted::fault ? host.data() : x_, 64); });
  expect("host pointer: " + at("local_of_another", 63) + ": reads 4 bytes at " + line_of("local_of_another") +
             ": @, is a local variable of another thread",
         run_local_of_another);
  EXPECT_EQ(fault([&] { cudaMemcpy(host.data(), x_, 4, cudaMemcpyHostToDevice); }),
            "emulation: host pointer: cudaMemcpyAsync from device to host memory, called as another kind of copy");
}

TEST_F(Detectors, HostCodeThatTouchesDeviceMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      static_cast<void>(*static_cast<volatile float*>(y_ + 3)),
      "^emulation: host code touches device memory: 0x[0-9a-f]+, byte 12 of 'y' of 1024 bytes; copy it to the host first\n$");
}

TEST_F(Detectors, LaunchesThatAGpuRefuses) {
  const auto refusal = [](Extent grid, Extent block, std::size_t shared) {
    return fault([&] { run_shape({}, grid, block, shared); });
  };
  const std::string prefix = "emulation: launch: nothing_kernel: ";
  EXPECT_EQ(refusal({1, 1, 1}, {1024, 1, 1}, 166'912), "");
  EXPECT_EQ(refusal({1, 65'535, 1}, {1, 1, 1}, 0), "");
  EXPECT_EQ(refusal({1, 1, 1}, {1, 16, 64}, 0), "");
  EXPECT_EQ(refusal({1, 1, 1}, {1025, 1, 1}, 0), prefix + "a block of 1025 threads; a GPU takes 1024");
  EXPECT_EQ(refusal({1, 1, 1}, {32, 33, 1}, 0), prefix + "a block of 1056 threads; a GPU takes 1024");
  EXPECT_EQ(refusal({1, 1, 1}, {32, 0, 1}, 0), prefix + "a block without threads");
  EXPECT_EQ(refusal({1, 1, 1}, {1, 1, 65}, 0), prefix + "a block of 65 threads along z; a GPU takes 64");
  EXPECT_EQ(refusal({1, 65'536, 1}, {1, 1, 1}, 0),
            prefix + "a grid of 1 x 65536 x 1 blocks; a GPU takes 2147483647 along x and 65535 along y and z");
  EXPECT_EQ(refusal({1, 1, 65'536}, {1, 1, 1}, 0),
            prefix + "a grid of 1 x 1 x 65536 blocks; a GPU takes 2147483647 along x and 65535 along y and z");
  EXPECT_EQ(refusal({0x80000000U, 1, 1}, {1, 1, 1}, 0),
            prefix + "a grid of 2147483648 x 1 x 1 blocks; a GPU takes 2147483647 along x and 65535 along y and z");
  EXPECT_EQ(refusal({1, 1, 1}, {1, 1, 1}, 166'913),
            prefix + "166913 bytes of shared memory, 0 of them static; a block of sm_80 has 166912");
  expect("launch: static_shared_kernel<49153>: 49153 bytes of static shared memory; a block has 49152, and more is dynamic",
         run_static_shared_too_large);
  expect("launch: arguments_kernel<4104>: 4104 bytes of arguments; a launch takes 4096", run_large_arguments);
}

TEST_F(Detectors, MemoryFreedTwiceOrNever) {
  float* a = nullptr;
  float* b = nullptr;
  ASSERT_EQ(cudaMalloc(&a, 100), cudaSuccess);
  ASSERT_EQ(cudaMallocHost(&b, 100), cudaSuccess);
  emulation::name_memory(a, 100, "a");
  EXPECT_EQ(fault([&] { cudaFree(a + 1); }),
            "emulation: memory: what is freed is not the beginning of an allocation: @, byte 4 of 'a' of 100 bytes");
  EXPECT_EQ(
      fault([] { emulation::expect_nothing_alive(); }),
      "emulation: memory: never freed: @, byte 0 of 'y' of 1024 bytes; @, byte 0 of 'x' of 1024 bytes; @, byte 0 of 'a' of 100 "
      "bytes; 1 blocks of pinned memory");
  cudaFree(a);
  cudaFreeHost(b);
  EXPECT_EQ(fault([&] { cudaFree(a); }), "emulation: memory: freed twice: @, byte 0 of 'a' of 100 bytes, which was freed");
  EXPECT_EQ(fault([&] { cudaFreeHost(b); }), "emulation: memory: cudaFreeHost of what is not pinned memory, or was freed");
}

}  // namespace
}  // namespace lathe::test
