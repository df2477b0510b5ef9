#pragma once
// Gradients against central differences, for one's own functions as for Lathe's.
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "lathe/runtime/tape.h"

namespace [[gnu::visibility("default")]] lathe {

struct GradientCheck {
  /// Step of the differences, relative to max(1, |x|).
  double step = 1e-5;
  /// Largest |difference - gradient| / max(1, |difference|, |gradient|) that passes.
  double tolerance = 1e-6;
  /// Elements tried per input, spread evenly; all where 0.
  std::int64_t elements = 0;
};

/// Checks every input's gradient of `function` in fp64: the scalar sum(weights * output) with fixed pseudo-random weights is
/// differentiated by the tape three times (each input's gradient written, added to what was there, and, one input at a time,
/// skipped) and by central differences. `function` must be a pure function of the inputs and return one fp64 tensor. Returns an
/// empty string, or a description of the first disagreement: input, element, both values, and which of the three it was. NaN
/// never passes. Throws LogicError where an input isn't fp64.
std::string check_gradients(const std::function<Tensor(Tape&, std::span<const Tensor>)>& function, std::span<const Tensor> inputs,
                            const GradientCheck& options = {});

}  // namespace lathe
