// Sound kernels that a strict judge might take for wrong: in every order they pass and give the same.
#include <numeric>

#include "tests/kernels/emulation/device.h"

namespace lathe::test {
namespace {

class Sound : public EmulatedDevice {
 protected:
  template <class Check>
  void in_all_orders(const Check& check) {
    for (const emulation::Settings& orders : all_orders()) {
      emulation::configure(orders);
      emulation::cuda::cudaMemset(y_, 0, kCount * sizeof(float));
      check();
    }
  }
};

TEST_F(Sound, HalvesOfAWarpShuffleByThemselves) {
  std::vector<float> expected(32, 120.0F);
  std::fill(expected.begin() + 16, expected.end(), 376.0F);
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_half_warp_sums({}, y_); }), "");
    EXPECT_EQ(read(y_, 32), expected);
  });
}

TEST_F(Sound, AHalfMayMeetWhileTheOtherWaitsForAll) {
  std::vector<float> expected(32);
  for (unsigned lane = 0; lane < 32; ++lane) expected[lane] = static_cast<float>(lane < 16 ? lane + 16 : (lane - 16) ^ 1U);
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_overlapping_masks({}, y_); }), "");
    EXPECT_EQ(read(y_, 32), expected);
  });
}

TEST_F(Sound, Votes) {
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_vote_counts({}, y_); }), "");
    EXPECT_EQ(read(y_, 64), std::vector<float>(64, 8.0F));
  });
}

TEST_F(Sound, WarpsMayEndEarlyWhereNoBarrierFollows) {
  std::vector<float> expected(128, 0.0F);
  std::fill_n(expected.begin(), 64, 1.0F);
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_early_exit({}, y_); }), "");
    EXPECT_EQ(read(y_, 128), expected);
  });
}

TEST_F(Sound, BlocksOfThreeDimensions) {
  std::vector<float> expected(48);
  std::iota(expected.begin(), expected.end(), 0.0F);
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_block_index({}, y_); }), "");
    EXPECT_EQ(read(y_, 48), expected);
  });
}

TEST_F(Sound, ABlockOfAThousandThreads) {
  auto* sums = allocate<float>(1024, "sums");
  in_all_orders([&] {
    EXPECT_EQ(fault([&] { run_thousand_sum({}, sums); }), "");
    EXPECT_EQ(read(sums, 1024), std::vector<float>(1024, 523'776.0F));
  });
}

TEST_F(Sound, AtomicsNeedNoBarrierAmongThemselves) {
  auto* counts = allocate<std::int32_t>(3, "counts");
  in_all_orders([&] {
    emulation::cuda::cudaMemset(counts, 0, 12);
    EXPECT_EQ(fault([&] { run_atomic_sums({}, y_, counts); }), "");
    EXPECT_EQ(read(y_, 1)[0], 128.0F);
    EXPECT_EQ(read(counts, 3), (std::vector<std::int32_t>{256, 256, 63}));
  });
}

}  // namespace
}  // namespace lathe::test
