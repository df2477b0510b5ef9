#pragma once
// The least function that saves its inputs.
#include "lathe/runtime/tape.h"

namespace lathe {

/// y = a * b, element-wise: a function with two inputs that saves both, written plainly.
inline Tensor multiply(Tape& tape, const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::like(a);
  for (std::int64_t i = 0; i < a.size(); ++i) y.data<double>()[i] = a.data<double>()[i] * b.data<double>()[i];
  tape.record({.name = "multiply", .inputs = {a, b}, .outputs = {y}, .saved = {a, b}}, [](const Backward& back) {
    for (std::size_t input = 0; input < 2; ++input) {
      if (back.use(input) == Use::skip) continue;
      const double* other = back.saved(1 - input).data<double>();
      for (std::int64_t i = 0; i < back.saved(0).size(); ++i) {
        const double d = back.d_output<double>(0)[i] * other[i];
        double& target = back.d_input<double>(input)[i];
        target = back.use(input) == Use::add ? target + d : d;
      }
    }
  });
  return y;
}

}  // namespace lathe
