// AdamW on a CUDA device, emulated or real: as on the CPU, with an fp32 master behind bf16, and without waiting.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lathe/optim/adamw.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/random.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/queue.h"
#endif

namespace lathe {
namespace {

/// A matrix of two blocks, which decays, and a bias, which doesn't.
class Model {
 public:
  Model(const DeviceRef& device, DType dtype)
      : matrix_(set_.add({.name = "w", .shape = {50, 30}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}})),
        bias_(set_.add({.name = "b", .shape = {50}, .decay = Decay::no, .initial = Initial::ones, .file_names = {}})),
        arena_(device, dtype, set_),
        optimizer_(arena_, {.weight_decay = 0.1, .max_norm = 2.0}) {
    for (const Parameter& parameter : set_.all()) ParameterArena::initialise(parameter, 3, 0.5);
  }
  /// A step with gradients of its own; `factor` multiplies them.
  void step(std::uint32_t number, float factor) {
    for (const Parameter* parameter : {&matrix_, &bias_}) {
      const RandomNumbers random(number, RandomUse::initial_weights, stream_of(parameter->name));
      std::vector<float> gradient(static_cast<std::size_t>(parameter->shape.size()));
      for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = factor * static_cast<float>(random.normal(i));
      parameter->gradient.copy_from<float>(gradient);
    }
    optimizer_.step(0.01);
  }
  std::vector<float> weights() const {
    std::vector<float> values(static_cast<std::size_t>(matrix_.shape.size()));
    get_values(matrix_, values);
    return values;
  }
  std::vector<float> biases() const {
    std::vector<float> values(static_cast<std::size_t>(bias_.shape.size()));
    get_values(bias_, values);
    return values;
  }
  const Parameter& matrix() const { return matrix_; }
  const ParameterArena& arena() const { return arena_; }
  AdamWOptimizer& optimizer() { return optimizer_; }

 private:
  ParameterSet set_;
  Parameter& matrix_;
  Parameter& bias_;
  ParameterArena arena_;
  AdamWOptimizer optimizer_;
};

DeviceRef cuda() { return Device::cuda({.index = 0, .limit_bytes = 1 << 22}); }

TEST(CudaAdamW, IsTheCpusButForRounding) {
  Model on_cpu(Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22}), DType::f32);
  Model on_cuda(cuda(), DType::f32);
  EXPECT_EQ(on_cuda.weights(), on_cpu.weights()) << "they begin alike";
  for (std::uint32_t number = 1; number <= 6; ++number) {
    const float factor = number == 3 ? std::numeric_limits<float>::infinity() : 0.1F * static_cast<float>(number);
    on_cpu.step(number, factor);
    on_cuda.step(number, factor);
    const OptimizerStep expected = on_cpu.optimizer().last();
    const OptimizerStep actual = on_cuda.optimizer().last();
    EXPECT_EQ(actual.updates, expected.updates);
    EXPECT_EQ(actual.step, static_cast<std::int32_t>(number));
    EXPECT_EQ(actual.skip, number == 3 ? 1 : 0);
    EXPECT_EQ(actual.skips, number < 3 ? 0 : 1);
    EXPECT_EQ(actual.first_skip, number < 3 ? -1 : 3);
    if (number != 3) {
      EXPECT_NEAR(actual.norm, expected.norm, 1e-6 * expected.norm);
    }
    EXPECT_NEAR(actual.scale, expected.scale, 1e-6 * expected.scale);
  }
  const auto expect_near = [](const std::vector<float>& actual, const std::vector<float>& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 1e-6) << "element " << i;
  };
  expect_near(on_cuda.weights(), on_cpu.weights());
  expect_near(on_cuda.biases(), on_cpu.biases());
  EXPECT_NE(on_cuda.weights(), Model(cuda(), DType::f32).weights()) << "something was learned";
}

TEST(CudaAdamW, UpdatesAnFp32MasterAndWritesItsNearestBf16) {
  Model full(cuda(), DType::f32);
  Model mixed(cuda(), DType::bf16);
  EXPECT_EQ(mixed.arena().values().dtype(), DType::bf16);
  EXPECT_EQ(mixed.arena().master().dtype(), DType::f32);
  EXPECT_EQ(mixed.arena().gradients().dtype(), DType::f32);
  EXPECT_EQ(full.arena().master().id(), full.arena().values().id()) << "fp32 is its own master";
  for (std::uint32_t number = 0; number <= 4; ++number) {
    if (number > 0) full.step(number, 0.3F);
    if (number > 0) mixed.step(number, 0.3F);
    const std::vector<float> master = mixed.weights();
    EXPECT_EQ(master, full.weights()) << "the gradients are the same, and the master has their precision";
    std::vector<Bf16> working(master.size());
    mixed.matrix().value.copy_to<Bf16>(working);
    for (std::size_t i = 0; i < master.size(); ++i) ASSERT_EQ(working[i].bits, Bf16(master[i]).bits) << "step " << number;
  }
}

TEST(CudaAdamW, NeedsAnArenaForTraining) {
  ParameterSet set;
  set.add({.name = "w", .shape = {5}, .decay = Decay::yes, .initial = Initial::ones, .file_names = {}});
  ParameterArena arena(cuda(), DType::bf16, set, ArenaUse::inference);
  EXPECT_FALSE(arena.master());
  EXPECT_THROW(AdamWOptimizer(arena, {}), LogicError);
}

#ifdef LATHE_EMULATED
TEST(CudaAdamW, AStepWaitsForNothing) {
  const DeviceRef device = cuda();
  Model model(device, DType::bf16);
  device->synchronize();
  const emulation::Stream& stream = *device->cuda_stream().handle;
  const std::uint64_t before = stream.finished;
  for (int step = 0; step < 4; ++step) model.optimizer().step(0.01);
  EXPECT_EQ(stream.finished, before) << "the device has yet to begin";
  EXPECT_GE(stream.queue.size(), 4U * 4U) << "an upload and three kernels a step";
  device->synchronize();
  EXPECT_EQ(model.optimizer().last().updates, 4);
}
#endif

}  // namespace
}  // namespace lathe
