// The gradients of a whole BERT on a CUDA device, emulated or real, beside the CPU's, parameter by parameter.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/runtime/tape.h"
#include "lathe/training/upload.h"
#include "tests/training/tiny_bert.h"

namespace lathe {
namespace {

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
  const Data data = make_data(ClassToken::first);
  PackedBatch packed;
  pack_sequences(data.samples, varying(0), data.labels, 0, packed);
  round_up(packed);
  const RandomKey key{.seed = 7, .step = 0};
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

TEST(CudaGradients, AreTheCpusButForRounding) {
  expect_same_gradients(DType::f32, cuda(), cpu(), 1e-4);
  expect_same_gradients(DType::bf16, cuda(), cpu(), 0.04);
}

}  // namespace
}  // namespace lathe
