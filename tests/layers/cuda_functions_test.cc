// Functions on a CUDA device, emulated or real, against the CPU in fp64: values, and the gradients of a weighted sum.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lathe/layers/bert.h"
#include "lathe/layers/functions.h"
#include "lathe/runtime/random.h"
#include "tests/layers/small_batch.h"

namespace lathe {
namespace {

using Function = std::function<Tensor(Tape&, std::span<const Tensor>, const Batch&)>;

/// Normal numbers that bf16 holds, so that all devices begin with the same.
std::vector<double> numbers(std::int64_t count, std::uint32_t stream) {
  const RandomNumbers random(1, RandomUse::initial_weights, stream);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(Bf16(random.normal(i)));
  return values;
}

template <class T>
Tensor place(const DeviceRef& device, const std::vector<double>& values, const Shape& shape) {
  std::vector<T> converted(values.size());
  std::ranges::transform(values, converted.begin(), [](double x) { return static_cast<T>(x); });
  return Tensor::from<T>(device, converted, shape);
}

template <class T>
std::vector<double> fetch(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  tensor.copy_to<T>(values);
  std::vector<double> converted(values.size());
  std::ranges::transform(values, converted.begin(), [](T x) { return static_cast<double>(x); });
  return converted;
}

/// An input of a function: a parameter's gradient is of the accumulator's type, an activation's of its own.
struct Input {
  Shape shape;
  bool parameter;
};

/// The output, and the gradient of each input, where the output's gradient is given numbers.
template <class T>
std::vector<std::vector<double>> evaluate(const DeviceRef& device, const Function& function, const std::vector<Input>& inputs) {
  using A = Accumulator<T>;
  const Batch batch = small_batch(device, dtype_of<T>(), RandomKey{.seed = 9, .step = 4});
  Tape tape(device);
  std::vector<Tensor> tensors;
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    tensors.push_back(place<T>(device, numbers(inputs[i].shape.size(), static_cast<std::uint32_t>(i)), inputs[i].shape));
    gradients.push_back(Tensor::empty(device, inputs[i].parameter ? dtype_of<A>() : dtype_of<T>(), inputs[i].shape));
    tape.watch(tensors[i], gradients[i]);
  }
  const Tensor y = function(tape, tensors, batch);
  std::vector<std::vector<double>> results;
  if (y.shape().rank() == 0) {  // a loss
    tape.backward(y);
    results.push_back(fetch<A>(y));
  } else {
    tape.backward(y, place<T>(device, numbers(y.size(), 99), y.shape()));
    results.push_back(fetch<T>(y));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    results.push_back(inputs[i].parameter ? fetch<A>(gradients[i]) : fetch<T>(gradients[i]));
  }
  return results;
}

template <class T>
class CudaFunctions : public testing::Test {
 protected:
  /// Expects of each result that it is the CPU's in fp64 but for rounding: in norm, at most `tolerance` of its own norm or of a
  /// ten-thousandth of all.
  void expect_same(const std::string& name, const Function& function, const std::vector<Input>& inputs) {
    SCOPED_TRACE(name);
    const auto expected = evaluate<double>(cpu_, function, inputs);
    const auto actual = evaluate<T>(cuda_, function, inputs);
    double all = 0.0;
    for (const auto& result : expected) {
      for (const double x : result) all += x * x;
    }
    // A function or two of T's rounding in a row.
    const double tolerance = std::is_same_v<T, float> ? 2e-6 : 1.0 / 128.0;
    for (std::size_t r = 0; r < expected.size(); ++r) {
      ASSERT_EQ(actual[r].size(), expected[r].size());
      double distance = 0.0;
      double norm = 0.0;
      for (std::size_t i = 0; i < expected[r].size(); ++i) {
        distance += std::pow(actual[r][i] - expected[r][i], 2);
        norm += expected[r][i] * expected[r][i];
      }
      EXPECT_LE(std::sqrt(distance), tolerance * std::max(std::sqrt(norm), 1e-4 * std::sqrt(all)))
          << (r == 0 ? "the output" : "the gradient of input " + std::to_string(r - 1));
      EXPECT_GT(norm, 0.0);
    }
  }

  DeviceRef cpu_ = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26});
  DeviceRef cuda_ = Device::cuda({.index = 0, .limit_bytes = 1 << 22});
};
using Types = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(CudaFunctions, Types);

TYPED_TEST(CudaFunctions, AreTheCpusButForRounding) {
  this->expect_same("linear", [](Tape& tape, auto in, const Batch&) { return linear(tape, in[0], in[1], in[2]); },
                    {{{9, 16}, false}, {{24, 16}, true}, {{24}, true}});
  this->expect_same("activate",
                    [](Tape& tape, auto in, const Batch&) { return activate(tape, in[0], in[1], Activation::gelu_erf); },
                    {{{9, 24}, false}, {{24}, true}});
  this->expect_same("dropout",
                    [](Tape& tape, auto in, const Batch& batch) {
                      return dropout(tape, in[0], batch, RowKind::tokens, {.site = 3, .probability = 0.4});
                    },
                    {{{9, 16}, false}});
  this->expect_same("layer_norm",
                    [](Tape& tape, auto in, const Batch& batch) {
                      return layer_norm(tape, in[0], in[1], in[2], in[3], in[4], 1e-5, batch, RowKind::tokens,
                                        {.site = 1, .probability = 0.3});
                    },
                    {{{9, 16}, false}, {{16}, true}, {{9, 16}, false}, {{16}, true}, {{16}, true}});
  this->expect_same("attend",
                    [](Tape& tape, auto in, const Batch& batch) {
                      return attend(tape, in[0], batch, {.heads = 2, .mask = AttentionMask::full, .layer = 1, .dropout = 0.3});
                    },
                    {{{9, 48}, false}});
  this->expect_same("attend, on tensor cores where it is bf16",
                    [](Tape& tape, auto in, const Batch& batch) {
                      return attend(tape, in[0], batch, {.heads = 2, .mask = AttentionMask::causal, .layer = 0, .dropout = 0.2});
                    },
                    {{{9, 192}, false}});
  this->expect_same("gather_rows", [](Tape& tape, auto in, const Batch& batch) { return gather_rows(tape, in[0], batch); },
                    {{{9, 16}, false}});
  this->expect_same("embed",
                    [](Tape& tape, auto in, const Batch& batch) {
                      return embed(tape, {.words = in[0], .positions = in[1], .types = in[2], .gamma = in[3], .beta = in[4]},
                                   batch, 1e-5, {.site = 0, .probability = 0.2});
                    },
                    {{{6, 16}, true}, {{7, 16}, true}, {{2, 16}, true}, {{16}, true}, {{16}, true}});
}

TYPED_TEST(CudaFunctions, MaskedLanguageModelsHeadAndLoss) {
  // Gathered rows, a tied decoder whose table is also the embedding's, the loss: the table's gradient is written, then added to.
  this->expect_same("decoder",
                    [](Tape& tape, auto in, const Batch& batch) {
                      const Tensor tokens =
                          embed(tape, {.words = in[0], .positions = in[1], .types = {}, .gamma = {}, .beta = {}}, batch, 1e-5,
                                {.site = 0, .probability = 0.0});
                      const Tensor logits = decode(tape, gather_rows(tape, tokens, batch), in[0], in[2]);
                      return cross_entropy_loss(tape, logits, batch, {.label_smoothing = 0.1, .class_weights = {}, .classes = 6});
                    },
                    {{{6, 16}, true}, {{7, 16}, true}, {{6}, true}});
}

}  // namespace
}  // namespace lathe
