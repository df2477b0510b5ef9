#pragma once
// Shape checks of the functions. Internal to layers/.
#include <string_view>

#include "lathe/runtime/tensor.h"

namespace lathe {

/// Throws LogicError, "function: operand is [2, 3], expected [3, 3]", where `x` has another shape or is missing.
void expect_shape(std::string_view function, std::string_view operand, const Tensor& x, const Shape& shape);

/// As above, but an empty tensor is fine.
void expect_shape_or_empty(std::string_view function, std::string_view operand, const Tensor& x, const Shape& shape);

}  // namespace lathe
