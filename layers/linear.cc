#include "lathe/kernels/matmul.h"
#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

/// Gives the product its workspace and runs it.
template <class T>
void multiply(CpuStream stream, Device& device, Matmul<T> product) {
  const Workspace workspace(device, matmul_workspace(stream, product));
  product.workspace = workspace.data();
  matmul(stream, product);
}

}  // namespace

Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const std::int64_t rows = x.rows();
  const std::int64_t in = x.channels();
  const std::int64_t out = weight.rows();
  expect_shape("linear", "weight", weight, Shape{out, in});
  expect_shape_or_empty("linear", "bias", bias, Shape{out});
  Tensor y = Tensor::like(x, Shape{rows, out});
  on(x, [&]<class T>(CpuStream stream) {
    multiply(stream, *x.device(),
             Matmul<T>{.c = y.data<T>(),
                       .a = x.data<T>(),
                       .b = weight.data<T>(),
                       .bias = bias.data<T>(),
                       .use = Use::write,
                       .transpose_a = Transpose::no,
                       .transpose_b = Transpose::yes,
                       .m = rows,
                       .n = out,
                       .k = in,
                       .lda = in,
                       .ldb = in,
                       .ldc = out,
                       .workspace = nullptr});
  });
  tape.record({.name = "linear", .inputs = {x, weight, bias}, .outputs = {y}, .saved = {x, weight}},
              [rows, in, out](const Backward& b) {
                on(b.saved(0), [&]<class T>(CpuStream stream) {
                  const T* d_y = b.d_output<T>(0);
                  if (b.use(0) != Use::skip) {
                    multiply(stream, b.device(),
                             Matmul<T>{.c = b.d_input<T>(0),
                                       .a = d_y,
                                       .b = b.saved(1).data<T>(),
                                       .bias = nullptr,
                                       .use = b.use(0),
                                       .transpose_a = Transpose::no,
                                       .transpose_b = Transpose::no,
                                       .m = rows,
                                       .n = in,
                                       .k = out,
                                       .lda = out,
                                       .ldb = in,
                                       .ldc = in,
                                       .workspace = nullptr});
                  }
                  if (b.use(1) != Use::skip) {
                    multiply(stream, b.device(),
                             Matmul<T>{.c = b.d_input<T>(1),
                                       .a = d_y,
                                       .b = b.saved(0).data<T>(),
                                       .bias = nullptr,
                                       .use = b.use(1),
                                       .transpose_a = Transpose::yes,
                                       .transpose_b = Transpose::no,
                                       .m = out,
                                       .n = in,
                                       .k = rows,
                                       .lda = out,
                                       .ldb = in,
                                       .ldc = in,
                                       .workspace = nullptr});
                  }
                  if (b.use(2) != Use::skip) {
                    const Workspace workspace(b.device(), column_sum_workspace<T>(rows, out));
                    column_sum(stream, ColumnSum<T>{.y = b.d_input<Accumulator<T>>(2),
                                                    .use = b.use(2),
                                                    .x = d_y,
                                                    .workspace = workspace.data(),
                                                    .tokens = rows,
                                                    .channels = out});
                  }
                });
              });
  return y;
}

}  // namespace lathe
