#include "lathe/runtime/gradient_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Function = std::function<Tensor(Tape&, std::span<const Tensor>)>;

/// Weights in (-1, 1) that no symmetry of a function can hide behind: the fractional parts of multiples of the golden ratio.
std::vector<double> weights_for(std::int64_t count) {
  std::vector<double> weights(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = 2.0 * std::fmod(0.618033988749894848 * static_cast<double>(i + 1), 1.0) - 1.0;
  return weights;
}

double weighted_output(const Function& function, std::span<const Tensor> inputs) {
  Tape tape(inputs[0].device(), Recording::off);
  const Tensor output = function(tape, inputs);
  const std::vector<double> weights = weights_for(output.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) sum += weights[i] * output.data<double>()[i];
  return sum;
}

/// The gradients by the tape; inputs for which `wanted` is false aren't watched.
std::vector<Tensor> taped_gradients(const Function& function, std::span<const Tensor> inputs, Use first, double before,
                                    const std::function<bool(std::size_t)>& wanted) {
  Tape tape(inputs[0].device());
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    gradients.push_back(Tensor::like(inputs[i]));
    std::fill_n(gradients.back().data<double>(), gradients.back().size(), before);
    if (wanted(i)) tape.watch(inputs[i], gradients.back(), first);
  }
  const Tensor output = function(tape, inputs);
  tape.backward(output, Tensor::from<double>(output.device(), weights_for(output.size()), output.shape()));
  return gradients;
}

bool agrees(double difference, double gradient, double tolerance) {
  // Written so that NaN on either side fails.
  return std::abs(difference - gradient) <= tolerance * std::max({1.0, std::abs(difference), std::abs(gradient)});
}

}  // namespace

std::string check_gradients(const Function& function, std::span<const Tensor> inputs, const GradientCheck& options) {
  for (const Tensor& x : inputs) {
    if (x.dtype() != DType::f64) throw LogicError("gradients are checked in fp64");
  }
  constexpr double kBefore = 0.75;
  const auto all = [](std::size_t) { return true; };
  const std::vector<Tensor> written = taped_gradients(function, inputs, Use::write, std::nan(""), all);
  const std::vector<Tensor> added = taped_gradients(function, inputs, Use::add, kBefore, all);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::optional<std::vector<Tensor>> others;
    if (inputs.size() > 1) others = taped_gradients(function, inputs, Use::write, kBefore, [&](std::size_t j) { return j != i; });
    const std::int64_t count = inputs[i].size();
    const std::int64_t stride = options.elements > 0 ? std::max<std::int64_t>(1, count / options.elements) : 1;
    for (std::int64_t e = 0; e < count; e += stride) {
      double& x = inputs[i].data<double>()[e];
      const double value = x;
      const double step = options.step * std::max(1.0, std::abs(value));
      x = value + step;
      const double above = weighted_output(function, inputs);
      x = value - step;
      const double below = weighted_output(function, inputs);
      x = value;
      const double difference = (above - below) / (2.0 * step);
      const double gradient = written[i].data<double>()[e];
      if (!agrees(difference, gradient, options.tolerance)) {
        return fmt::format("input {}, element {}: gradient {:.9g}, central difference {:.9g}", i, e, gradient, difference);
      }
      if (!agrees(gradient + kBefore, added[i].data<double>()[e], options.tolerance)) {
        return fmt::format("input {}, element {}: {:.9g} plus gradient {:.9g}, where gradients are added, became {:.9g}", i, e,
                           kBefore, gradient, added[i].data<double>()[e]);
      }
    }
    if (!others) continue;
    for (std::size_t j = 0; j < inputs.size(); ++j) {
      for (std::int64_t e = 0; e < inputs[j].size(); ++e) {
        const double expected = j == i ? kBefore : written[j].data<double>()[e];
        if (!agrees(expected, (*others)[j].data<double>()[e], options.tolerance)) {
          return fmt::format("input {}, element {}: {:.9g} instead of {:.9g} where input {} is skipped", j, e,
                             (*others)[j].data<double>()[e], expected, i);
        }
      }
    }
  }
  return "";
}

}  // namespace lathe
