// A whole BERT that trains on a CUDA device, emulated or real: the losses of the CPU.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/optim/adamw.h"
#include "lathe/runtime/random.h"
#include "lathe/runtime/tape.h"
#include "lathe/text/packing.h"
#include "lathe/training/upload.h"
#include "tests/training/tiny_bert.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe {
namespace {

constexpr std::int64_t kSteps = 20;
constexpr std::uint32_t kSeed = 7;

/// The losses of training a classifier for so many steps.
std::vector<double> losses(const DeviceRef& device, DType dtype, const Members& members, double learning_rate,
                           std::int64_t steps = kSteps) {
  ParameterSet parameters;
  const BertClassifier model(parameters, tiny(), 2, 0.1);
  const ParameterArena arena(device, dtype, parameters);
  for (const Parameter& parameter : parameters.all()) ParameterArena::initialise(parameter, 3, 0.05);
  AdamWOptimizer optimizer(arena, {});
  Tape tape(device);
  arena.watch(tape, Use::write);
  const Data data = make_data();
  PackedBatch packed;
  std::vector<double> found;
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto chosen = members(step);
    pack_sequences(data.samples, chosen, data.labels, packed);
    round_up_tokens(packed);
    const RandomKey key{.seed = kSeed, .step = static_cast<std::uint32_t>(step)};
    const Batch batch =
        upload(device, dtype, packed, {.random_key = &key, .loss_denominator = static_cast<double>(chosen.size())});
    const Tensor loss = cross_entropy_loss(tape, model.forward(tape, batch), batch, {});
    tape.backward(loss);
    optimizer.step(learning_rate);
    float value = 0.0F;
    loss.copy_to<float>(std::span(&value, 1));
    found.push_back(value);
  }
  EXPECT_EQ(optimizer.last().updates, steps);
  return found;
}

DeviceRef cpu() { return Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}); }
DeviceRef cuda() { return Device::cuda({}); }

class CudaStep : public testing::Test {
#ifdef LATHE_EMULATED
 protected:
  void TearDown() override { EXPECT_NO_THROW(emulation::expect_nothing_alive()); }
#endif
};

TEST_F(CudaStep, Fp32HasTheLossesOfTheCpu) {
  const auto expected = losses(cpu(), DType::f32, varying, 1e-3);
  const auto actual = losses(cuda(), DType::f32, varying, 1e-3);
  for (std::size_t step = 0; step < expected.size(); ++step)
    EXPECT_NEAR(actual[step], expected[step], 1e-4) << "step " << step + 1;
}

TEST_F(CudaStep, Bf16HasTheLossesOfTheCpuToTwoPercent) {
  const auto expected = losses(cpu(), DType::f32, varying, 1e-3);
  const auto actual = losses(cuda(), DType::bf16, varying, 1e-3);
  for (std::size_t step = 0; step < expected.size(); ++step)
    EXPECT_NEAR(actual[step], expected[step], 0.02 * expected[step]) << "step " << step + 1;
}

TEST_F(CudaStep, LearnsABatchThatIsRepeated) {
  const auto same = [](std::int64_t) { return varying(0); };
  const auto found = losses(cuda(), DType::bf16, same, 1e-3);
  EXPECT_LT(found.back(), 0.9 * found.front());
}

#ifdef LATHE_EMULATED
TEST_F(CudaStep, GivesTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  using emulation::Order;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto expected = losses(cuda(), dtype, varying, 1e-3, 2);
    const emulation::Settings before = emulation::settings();
    for (const Order order : {Order::reverse, Order::random}) {
      emulation::Settings other = before;
      other.threads = other.blocks = other.streams = order;
      emulation::configure(other);
      EXPECT_EQ(losses(cuda(), dtype, varying, 1e-3, 2), expected) << to_string(dtype);
    }
    emulation::configure(before);
  }
}
#endif

}  // namespace
}  // namespace lathe
