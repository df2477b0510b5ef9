#include "lathe/runtime/parameters.h"

#include <gtest/gtest.h>

#include "lathe/runtime/error.h"
#include "lathe/runtime/tape.h"

namespace lathe {
namespace {

TEST(Parameters, LieInReverseOrderAtBlockBoundaries) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22});
  ParameterSet set;
  const Parameter& first =
      set.add({.name = "first", .shape = {1500}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}});
  const Parameter& second =
      set.add({.name = "second", .shape = {10, 10}, .decay = Decay::no, .initial = Initial::ones, .file_names = {"a", "b"}});
  EXPECT_EQ(set.size(), 1600);
  EXPECT_EQ(first.file_names, std::vector<std::string>{"first"});
  EXPECT_THROW(set.add({.name = "first", .shape = {1}, .decay = Decay::no, .initial = Initial::zeros, .file_names = {}}),
               LogicError);
  const ParameterArena arena(device, DType::f32, set);
  ASSERT_EQ(arena.blocks().size(), 3U);
  EXPECT_EQ(second.value.data<float>(), arena.values().data<float>());
  EXPECT_EQ(first.value.data<float>(), arena.values().data<float>() + kArenaBlock);
  EXPECT_EQ(first.gradient.data<float>(), arena.gradients().data<float>() + kArenaBlock);
  EXPECT_EQ(arena.blocks()[0].tensor, 0);
  EXPECT_EQ(arena.blocks()[0].group, 1);
  EXPECT_EQ(arena.blocks()[2].tensor, 1);
  EXPECT_EQ(arena.blocks()[2].group, 0);
  for (std::int64_t i = 100; i < kArenaBlock; ++i) ASSERT_EQ(arena.values().data<float>()[i], 0.0F) << "padding is zero";

  ParameterArena::initialise(first, 1, 0.02);
  ParameterArena::initialise(second, 1, 0.02);
  EXPECT_EQ(second.value.data<float>()[99], 1.0F);
  const float drawn = first.value.data<float>()[1499];
  EXPECT_NE(drawn, 0.0F);
  ParameterArena::initialise(first, 2, 0.02);
  EXPECT_NE(first.value.data<float>()[1499], drawn);
}

TEST(Parameters, AreSetAndGotInFp32) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22});
  ParameterSet set;
  const Parameter& p = set.add({.name = "p", .shape = {3}, .decay = Decay::yes, .initial = Initial::zeros, .file_names = {}});
  const ParameterArena arena(device, DType::f32, set);
  EXPECT_EQ(p.master.id(), p.value.id());
  const std::vector<float> values = {1.0F, 0.1F, -3.0F};
  set_values(p, values);
  std::vector<float> back(3);
  get_values(p, back);
  EXPECT_EQ(back, values);
  EXPECT_EQ(p.value.data<float>()[1], 0.1F);
}

TEST(Parameters, OfBf16HaveAMasterThatCanBeAwayOrInTheGradientsMemory) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22});
  ParameterSet set;
  const Parameter& p = set.add({.name = "p", .shape = {3}, .decay = Decay::yes, .initial = Initial::zeros, .file_names = {}});
  set.add({.name = "q", .shape = {1025}, .decay = Decay::yes, .initial = Initial::zeros, .file_names = {}});
  ParameterArena arena(device, DType::bf16, set);
  const auto got = [&] {
    std::vector<float> values(3);
    get_values(p, values);
    return values;
  };
  const std::vector<float> values = {1.0F, 0.1F, -3.0F};
  const std::vector<float> rounded = {1.0F, static_cast<float>(Bf16(0.1F)), -3.0F};
  set_values(p, values);
  const std::int64_t whole = device->memory().now;
  arena.release_master();
  EXPECT_FALSE(arena.master());
  EXPECT_FALSE(p.master);
  EXPECT_LE(device->memory().now, whole - arena.gradients().bytes());
  EXPECT_EQ(got(), rounded);
  arena.own_master();
  EXPECT_FALSE(arena.master()) << "there is none to have";

  p.gradient.copy_from<float>(values);
  arena.lend_gradients();
  EXPECT_EQ(got(), values);
  EXPECT_LE(device->memory().now, whole - arena.gradients().bytes());
  arena.own_master();
  p.gradient.fill_zero();
  EXPECT_EQ(got(), values) << "it has memory of its own";
  EXPECT_EQ(device->memory().now, whole);

  ParameterSet full;
  full.add({.name = "p", .shape = {3}, .decay = Decay::yes, .initial = Initial::zeros, .file_names = {}});
  ParameterArena same(device, DType::f32, full);
  same.release_master();
  same.lend_gradients();
  EXPECT_EQ(same.master().id(), same.values().id()) << "fp32 is its own master";
}

TEST(Parameters, NeedNoGradientsToInfer) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22});
  ParameterSet set;
  const Parameter& p = set.add({.name = "p", .shape = {1024}, .decay = Decay::yes, .initial = Initial::zeros, .file_names = {}});
  const ParameterArena arena(device, DType::f32, set, ArenaUse::inference);
  EXPECT_FALSE(p.gradient);
  EXPECT_LT(device->memory().peak, 2 * 1024 * 4);
}

}  // namespace
}  // namespace lathe
