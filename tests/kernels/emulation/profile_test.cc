// What the profile counts of kernels whose traffic can be counted by hand.
#include "lathe/kernels/emulation/profile.h"

#include "tests/kernels/emulation/device.h"
#include "tests/kernels/emulation/profiled.h"

namespace lathe::test {
namespace {

using emulation::GlobalTraffic;
using emulation::KernelProfile;
using emulation::SharedTraffic;

class Profile : public EmulatedDevice {
 protected:
  void SetUp() override {
    EmulatedDevice::SetUp();
    in_ = allocate<float>(4096, "in");
    out_ = allocate<float>(4096, "out");
  }
  /// Of one launch; the same in every order.
  template <class Work>
  static KernelProfile profile(const Work& work) {
    KernelProfile result;
    for (const emulation::Settings& orders : all_orders()) {
      emulation::Settings settings = orders;
      settings.profile = true;
      emulation::configure(settings);
      EXPECT_EQ(fault(work), "");
      emulation::configure({});
      const auto all = emulation::take_profile();
      EXPECT_EQ(all.size(), 1U);
      if (all.size() != 1) return result;
      if (!result.kernel.empty()) {
        EXPECT_EQ(text(result), text(all[0]));
      }
      result = all[0];
    }
    EXPECT_EQ(result.launches, 1);
    return result;
  }
  static std::string text(const KernelProfile& profile) {
    std::string all;
    for (const auto& [name, traffic] : profile.tensors) all += name + " " + text(traffic) + "\n";
    for (const auto& [name, line] : profile.lines) {
      all += name + " " + text(line.global) + " " + text(line.shared) + " mma " + std::to_string(line.mma) + " barriers " +
             std::to_string(line.barriers) + "\n";
    }
    return all;
  }
  static std::string text(const GlobalTraffic& traffic) {
    return std::to_string(traffic.warp_accesses) + " accesses, read " + std::to_string(traffic.read_bytes) + ", written " +
           std::to_string(traffic.written_bytes) + ", used " + std::to_string(traffic.used_bytes) + " of " +
           std::to_string(traffic.sectors) + " sectors, atomics " + std::to_string(traffic.atomics) + ", wide " +
           std::to_string(traffic.narrowest) + "-" + std::to_string(traffic.widest);
  }
  static std::string text(const SharedTraffic& traffic) {
    return std::to_string(traffic.warp_accesses) + " accesses of " + std::to_string(traffic.bytes) + " bytes, " +
           std::to_string(traffic.wavefronts) + " wavefronts for " + std::to_string(traffic.ideal_wavefronts);
  }
  static std::string global_at(const KernelProfile& profile, const std::string& marker) {
    return text(profile.lines.at(line_of(marker, "profiled.cu")).global);
  }
  static std::string shared_at(const KernelProfile& profile, const std::string& marker) {
    return text(profile.lines.at(line_of(marker, "profiled.cu")).shared);
  }

  float* in_ = nullptr;
  float* out_ = nullptr;
};

TEST_F(Profile, AStrideOfEightFloatsUsesAnEighthOfItsSectors) {
  const auto counted = profile([&] { run_strided({}, out_, in_); });
  EXPECT_EQ(counted.kernel, "strided_kernel");
  EXPECT_EQ(counted.blocks, 1);
  EXPECT_EQ(global_at(counted, "strided_read"), "4 accesses, read 512, written 0, used 512 of 128 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(global_at(counted, "strided_write"), "4 accesses, read 0, written 512, used 512 of 16 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(counted.lines.size(), 2U);
  EXPECT_EQ(text(counted.tensors.at("in")), "4 accesses, read 512, written 0, used 512 of 128 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(text(counted.tensors.at("out")), "4 accesses, read 0, written 512, used 512 of 16 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(counted.tensors.size(), 2U);
}

TEST_F(Profile, AMisalignedWarpTouchesASectorMore) {
  const auto counted = profile([&] { run_shifted({}, out_, in_); });
  EXPECT_EQ(global_at(counted, "shifted_read"), "4 accesses, read 512, written 0, used 512 of 20 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(global_at(counted, "shifted_write"), "4 accesses, read 0, written 512, used 512 of 16 sectors, atomics 0, wide 4-4");
}

TEST_F(Profile, ATransposeConflictsWithoutPadding) {
  const auto plain = profile([&] { run_transpose({}, out_, in_); });
  EXPECT_EQ(plain.kernel, "transpose_kernel<32>");
  EXPECT_EQ(shared_at(plain, "transpose_write"), "32 accesses of 4096 bytes, 32 wavefronts for 32");
  EXPECT_EQ(shared_at(plain, "transpose_read"), "32 accesses of 4096 bytes, 1024 wavefronts for 32");
  const auto padded = profile([&] { run_padded_transpose({}, out_, in_); });
  EXPECT_EQ(shared_at(padded, "transpose_write"), "32 accesses of 4096 bytes, 32 wavefronts for 32");
  EXPECT_EQ(shared_at(padded, "transpose_read"), "32 accesses of 4096 bytes, 32 wavefronts for 32");
}

TEST_F(Profile, WideAccessesAreOneAndHaveTheKernelsOwnLine) {
  const auto four = profile([&] { run_float4({}, out_, in_); });
  EXPECT_EQ(four.kernel, "wide_kernel<float>");
  EXPECT_EQ(global_at(four, "wide_read"), "8 accesses, read 4096, written 0, used 4096 of 128 sectors, atomics 0, wide 16-16");
  EXPECT_EQ(global_at(four, "wide_write"), "8 accesses, read 0, written 4096, used 4096 of 128 sectors, atomics 0, wide 16-16");
  EXPECT_EQ(four.lines.size(), 2U);
  const auto eight = profile([&] { run_bf16x8({}, reinterpret_cast<Bf16*>(out_), reinterpret_cast<const Bf16*>(in_)); });
  EXPECT_EQ(global_at(eight, "wide_read"), "4 accesses, read 2048, written 0, used 2048 of 64 sectors, atomics 0, wide 16-16");
  EXPECT_EQ(global_at(eight, "wide_write"), "4 accesses, read 0, written 2048, used 2048 of 64 sectors, atomics 0, wide 16-16");
  EXPECT_EQ(eight.lines.size(), 2U);
}

TEST_F(Profile, AtomicsBarriersAndIdleLanes) {
  const auto counted = profile([&] { run_counted({}, out_); });
  // The lanes of a warp meet at one word: asked for 32 times, used once.
  EXPECT_EQ(global_at(counted, "counted_atomic"), "2 accesses, read 256, written 256, used 8 of 2 sectors, atomics 64, wide 4-4");
  EXPECT_EQ(global_at(counted, "counted_half"), "2 accesses, read 0, written 128, used 128 of 8 sectors, atomics 0, wide 4-4");
  EXPECT_EQ(counted.lines.at(line_of("counted_barrier", "profiled.cu")).barriers, 3);
}

TEST_F(Profile, CopiesAndMatricesOfATileConflictWithoutASwizzle) {
  const auto tile = [&](Banks banks) {
    return profile([&] { run_tile({}, banks, reinterpret_cast<std::uint32_t*>(out_), reinterpret_cast<const Bf16*>(in_)); });
  };
  const auto swizzled = tile(Banks::swizzled);
  // Eight copies of the warp, each of a sector's half in 32 rows.
  EXPECT_EQ(global_at(swizzled, "tile_copy"),
            "8 accesses, read 4096, written 0, used 4096 of 256 sectors, atomics 0, wide 16-16");
  EXPECT_EQ(shared_at(swizzled, "tile_copy"), "8 accesses of 4096 bytes, 32 wavefronts for 32");
  EXPECT_EQ(shared_at(swizzled, "tile_ldmatrix"), "4 accesses of 2048 bytes, 16 wavefronts for 16");
  const auto conflicting = tile(Banks::conflicting);
  EXPECT_EQ(shared_at(conflicting, "tile_copy"), "8 accesses of 4096 bytes, 256 wavefronts for 32");
  EXPECT_EQ(shared_at(conflicting, "tile_ldmatrix"), "4 accesses of 2048 bytes, 128 wavefronts for 16");
}

TEST_F(Profile, MatrixProductsAreCountedByWarp) {
  auto* a = reinterpret_cast<Bf16*>(in_);
  const auto counted = profile([&] { run_mma({}, out_, a, a); });
  EXPECT_EQ(counted.lines.at(line_of("mma", "profiled.cu")).mma, 1);
  emulation::configure({.profile = true});
  auto* square = allocate<Bf16>(128 * 128, "square");
  auto* product = allocate<float>(128 * 128, "product");
  EXPECT_EQ(fault([&] { run_gemm({}, product, square, square, 128); }), "");
  std::int64_t mma = 0;
  std::int64_t wavefronts = 0;
  std::int64_t ideal = 0;
  const auto profiles = emulation::take_profile();
  ASSERT_EQ(profiles.size(), 1U);
  for (const auto& [name, line] : profiles[0].lines) {
    mma += line.mma;
    wavefronts += line.shared.wavefronts;
    ideal += line.shared.ideal_wavefronts;
  }
  EXPECT_EQ(mma, 128 * 128 * 128 / (16 * 8 * 16));
  EXPECT_EQ(wavefronts, ideal);
}

}  // namespace
}  // namespace lathe::test
