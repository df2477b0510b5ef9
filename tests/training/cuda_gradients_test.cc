// The gradients of a whole BERT on a CUDA device, emulated or real, beside the CPU's, parameter by parameter.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/runtime/tape.h"
#include "lathe/training/training_loop.h"
#include "lathe/training/upload.h"
#include "tests/training/tiny_bert.h"

namespace lathe {
namespace {

/// How a batch is given to the device.
enum class Given : std::uint8_t { exactly, in_its_bucket, in_micro_batches };

struct Gradients {
  std::vector<std::string> names;
  std::vector<std::vector<float>> values;
};

/// The gradients of one step by parameter, in fp32.
Gradients gradients(const DeviceRef& device, DType dtype, std::int64_t step = 0, Given given = Given::in_its_bucket) {
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
  const Data data = make_data(ClassToken::first);
  const RandomKey key{.seed = 7, .step = static_cast<std::uint32_t>(step)};
  Use use = Use::write;
  int parts = 0;
  const auto add_part = [&](std::span<const std::int32_t> members, std::int32_t first) {
    PackedBatch packed;
    pack_sequences(data.samples, members, data.labels, first, packed);
    if (given != Given::exactly) {
      const std::size_t tokens = packed.token.size();
      round_up(packed);
      EXPECT_TRUE(given != Given::in_its_bucket || packed.token.size() > tokens) << "nothing to round up";
    }
    Tape tape(device);
    arena.watch(tape, use);
    const Batch batch = upload(device, dtype, packed, {.random_key = &key, .loss_denominator = 6.0});
    tape.backward(cross_entropy_loss(tape, model.forward(tape, batch), batch, {}));
    use = Use::add;
    ++parts;
  };
  for_each_part(data.samples, varying(step), given == Given::in_micro_batches ? 50 : 0, add_part);
  EXPECT_EQ(parts > 1, given == Given::in_micro_batches);
  Gradients found;
  for (const Parameter& parameter : parameters.all()) {
    found.values.emplace_back(static_cast<std::size_t>(parameter.shape.size()));
    parameter.gradient.copy_to<float>(found.values.back());
    found.names.push_back(parameter.name);
  }
  return found;
}

/// |a - b| and |b| by parameter: expects the first to be at most `tolerance` of the second, or of a ten-thousandth of all gradients'.
void expect_same(const Gradients& actual, const Gradients& expected, double tolerance) {
  const auto norm = [](const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return std::sqrt(sum);
  };
  double all = 0.0;
  for (const auto& gradient : expected.values) all = std::hypot(all, norm(gradient, std::vector<float>(gradient.size())));
  EXPECT_GT(all, 0.0);
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    const double length = norm(expected.values[i], std::vector<float>(expected.values[i].size()));
    const double distance = norm(actual.values[i], expected.values[i]);
    EXPECT_LE(distance, tolerance * std::max(length, 1e-4 * all)) << expected.names[i] << " of norm " << length;
  }
}

DeviceRef cpu() { return Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}); }
DeviceRef cuda() { return Device::cuda({}); }

TEST(CudaGradients, AreTheCpusButForRounding) {
  const Gradients expected = gradients(cpu(), DType::f32);
  expect_same(gradients(cuda(), DType::f32), expected, 1e-4);
  expect_same(gradients(cuda(), DType::bf16), expected, 0.04);
}

TEST(CudaGradients, OfABucketAreThoseOfTheExactBatch) {
  for (const std::int64_t step : {0, 1, 2}) {
    SCOPED_TRACE(step);
    expect_same(gradients(cuda(), DType::f32, step), gradients(cuda(), DType::f32, step, Given::exactly), 1e-6);
  }
}

TEST(CudaGradients, OfMicroBatchesAreThoseOfTheBatch) {
  expect_same(gradients(cuda(), DType::f32, 0, Given::in_micro_batches), gradients(cuda(), DType::f32), 1e-6);
}

}  // namespace
}  // namespace lathe
