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

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/runtime_api.h"
#include "lathe/kernels/emulation/settings.h"
#endif

namespace lathe {
namespace {

constexpr std::int64_t kVocabulary = 300;
constexpr std::int64_t kSteps = 20;
constexpr std::uint32_t kSeed = 7;

BertSettings tiny() {
  return {.vocabulary = kVocabulary,
          .hidden_size = 64,
          .layers = 2,
          .heads = 2,
          .feed_forward = 128,
          .positions = 64,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-12,
          .hidden_dropout = 0.1,
          .attention_dropout = 0.1};
}

/// Sequences of 1 to 64 tokens, whose class is that of their second token, an even number or an odd one.
struct Data {
  TokenizedSamples samples;
  std::vector<std::int32_t> labels;
};
Data make_data() {
  const RandomNumbers random(11, RandomUse::split, 0);
  std::uint64_t draw = 0;
  Data data;
  for (const std::int64_t length : {3, 64, 9, 17, 2, 33, 5, 12, 40, 7, 21, 4, 15, 1, 8, 27}) {
    for (std::int64_t i = 0; i < length; ++i) {
      data.samples.ids.push_back(i == 0 ? 1 : static_cast<std::int32_t>(2 + random.bits(draw++) % (kVocabulary - 2)));
      data.samples.types.push_back(i > length / 2 ? 1 : 0);
    }
    data.labels.push_back(length > 1 ? data.samples.ids[data.samples.ids.size() - static_cast<std::size_t>(length) + 1] % 2 : 0);
    data.samples.offsets.push_back(static_cast<std::int64_t>(data.samples.ids.size()));
  }
  return data;
}

/// Which samples a step sees.
using Members = std::function<std::array<std::int32_t, 6>(std::int64_t)>;
/// Some 120 tokens a step, other ones each time.
std::array<std::int32_t, 6> varying(std::int64_t step) {
  std::array<std::int32_t, 6> members{};
  for (std::size_t i = 0; i < members.size(); ++i)
    members[i] = static_cast<std::int32_t>((6 * step + 5 * static_cast<std::int64_t>(i)) % 16);
  return members;
}

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

/// The gradients of one step by parameter, in fp32.
std::vector<std::vector<float>> gradients(const DeviceRef& device, DType dtype, std::vector<std::string>& names) {
  ParameterSet parameters;
  const BertClassifier model(parameters, tiny(), 2, 0.1);
  const ParameterArena arena(device, dtype, parameters);
  // What bf16 holds, so that all begin with the same.
  for (const Parameter& parameter : parameters.all()) {
    ParameterArena::initialise(parameter, 3, 0.2);
    std::vector<float> values(static_cast<std::size_t>(parameter.shape.size()));
    get_values(parameter, values);
    for (float& value : values) value = static_cast<float>(Bf16(value));
    set_values(parameter, values);
  }
  Tape tape(device);
  arena.watch(tape, Use::write);
  const Data data = make_data();
  PackedBatch packed;
  pack_sequences(data.samples, varying(0), data.labels, packed);
  round_up_tokens(packed);
  const RandomKey key{.seed = kSeed, .step = 0};
  const Batch batch = upload(device, dtype, packed, {.random_key = &key, .loss_denominator = 6.0});
  tape.backward(cross_entropy_loss(tape, model.forward(tape, batch), batch, {}));
  std::vector<std::vector<float>> found;
  names.clear();
  for (const Parameter& parameter : parameters.all()) {
    found.emplace_back(static_cast<std::size_t>(parameter.shape.size()));
    parameter.gradient.copy_to<float>(found.back());
    names.push_back(parameter.name);
  }
  return found;
}

/// |a - b| and |b| by parameter: expects the first to be at most `tolerance` of the second, or of a ten-thousandth of all gradients'.
void expect_same_gradients(DType dtype, const DeviceRef& device, const DeviceRef& reference, double tolerance) {
  std::vector<std::string> names;
  const auto expected = gradients(reference, DType::f32, names);
  const auto actual = gradients(device, dtype, names);
  const auto norm = [](const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return std::sqrt(sum);
  };
  double all = 0.0;
  for (const auto& gradient : expected) all = std::hypot(all, norm(gradient, std::vector<float>(gradient.size())));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double length = norm(expected[i], std::vector<float>(expected[i].size()));
    const double distance = norm(actual[i], expected[i]);
    EXPECT_LE(distance, tolerance * std::max(length, 1e-4 * all)) << names[i] << " of norm " << length;
  }
}

DeviceRef cpu() { return Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}); }
DeviceRef cuda() { return Device::cuda({}); }

class CudaStep : public testing::Test {
#ifdef LATHE_EMULATED
 protected:
  void TearDown() override { EXPECT_NO_THROW(emulation::expect_nothing_alive()); }
#endif
};

TEST_F(CudaStep, TheGradientsAreTheCpusButForRounding) {
  expect_same_gradients(DType::f32, cuda(), cpu(), 1e-4);
  expect_same_gradients(DType::bf16, cuda(), cpu(), 0.04);
}

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
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto found = losses(cuda(), dtype, same, 1e-3);
    EXPECT_LT(found.back(), 0.9 * found.front()) << to_string(dtype);
  }
}

#ifdef LATHE_EMULATED
TEST_F(CudaStep, GivesTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  using emulation::Order;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto expected = losses(cuda(), dtype, varying, 1e-3, 3);
    const emulation::Settings before = emulation::settings();
    for (const Order order : {Order::reverse, Order::random}) {
      emulation::Settings other = before;
      other.threads = other.blocks = other.streams = order;
      emulation::configure(other);
      EXPECT_EQ(losses(cuda(), dtype, varying, 1e-3, 3), expected) << to_string(dtype);
    }
    emulation::configure(before);
  }
}
#endif

}  // namespace
}  // namespace lathe
