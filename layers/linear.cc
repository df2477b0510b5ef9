#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/linear_products.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

LinearSizes sizes_of(std::int64_t rows, const Tensor& weight) {
  return {.rows = rows, .in = weight.channels(), .out = weight.rows(), .stride = weight.rows()};
}

}  // namespace

void prepare_linear(const Tensor& weight, std::int64_t rows) {
  on(weight, [&]<class T>(auto stream) {
    for (const Bias bias : {Bias::none, Bias::added}) prepare_linear_products<T>(stream, sizes_of(rows, weight), bias);
  });
}

Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const LinearSizes sizes = sizes_of(x.rows(), weight);
  expect_shape("linear", "weight", weight, Shape{sizes.out, x.channels()});
  expect_shape_or_empty("linear", "bias", bias, Shape{sizes.out});
  Tensor y = Tensor::like(x, Shape{sizes.rows, sizes.out});
  on(x, [&]<class T>(auto stream) {
    multiply(stream, *x.device(), linear_forward_product<T>(sizes, x.data<T>(), weight.data<T>(), bias.data<T>(), y.data<T>()));
  });
  tape.record({.name = "linear", .inputs = {x, weight, bias}, .outputs = {y}, .saved = {x, weight}}, [sizes](const Backward& b) {
    on(b.saved(0), [&]<class T>(auto stream) {
      linear_products_backward<T>(stream, b, sizes);
      if (b.use(2) == Use::skip) return;
      const Workspace workspace(b.device(), column_sum_workspace<T>(sizes.rows, sizes.out));
      column_sum(stream, ColumnSum<T>{.y = b.d_input<Accumulator<T>>(2),
                                      .use = b.use(2),
                                      .x = b.d_output<T>(0),
                                      .workspace = workspace.data(),
                                      .tokens = sizes.rows,
                                      .channels = sizes.out});
    });
  });
  return y;
}

}  // namespace lathe
