#include "lathe/layers/shapes.h"

#include <fmt/format.h>

#include "lathe/runtime/error.h"

namespace lathe {

void expect_shape(std::string_view function, std::string_view operand, const Tensor& x, const Shape& shape) {
  if (!x) throw LogicError(fmt::format("{}: {} is missing, expected {}", function, operand, to_string(shape)));
  if (x.shape() != shape)
    throw LogicError(fmt::format("{}: {} is {}, expected {}", function, operand, to_string(x.shape()), to_string(shape)));
}

void expect_shape_or_empty(std::string_view function, std::string_view operand, const Tensor& x, const Shape& shape) {
  if (x) expect_shape(function, operand, x, shape);
}

}  // namespace lathe
