#include "lathe/kernels/matmul.h"
#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/product.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

/// The three products of a linear function, without their operands. Shapes: x [rows, in], weight [out, in], y [rows, out].
struct Sizes {
  std::int64_t rows, in, out;
};

/// y = x weight^T.
template <class T>
Matmul<T> forward_product(Sizes s) {
  return {.c = nullptr,
          .a = nullptr,
          .b = nullptr,
          .bias = nullptr,
          .use = Use::write,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::yes,
          .m = s.rows,
          .n = s.out,
          .k = s.in,
          .lda = s.in,
          .ldb = s.in,
          .ldc = s.out,
          .workspace = nullptr};
}

/// d_x = d_y weight.
template <class T>
Matmul<T> input_product(Sizes s, Use use) {
  return {.c = nullptr,
          .a = nullptr,
          .b = nullptr,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::no,
          .m = s.rows,
          .n = s.in,
          .k = s.out,
          .lda = s.out,
          .ldb = s.in,
          .ldc = s.in,
          .workspace = nullptr};
}

/// d_weight = d_y^T x, in the accumulator's type, as the gradient arena has it.
template <class T>
Matmul<T, Accumulator<T>> weight_product(Sizes s, Use use) {
  return {.c = nullptr,
          .a = nullptr,
          .b = nullptr,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::yes,
          .transpose_b = Transpose::no,
          .m = s.out,
          .n = s.in,
          .k = s.rows,
          .lda = s.out,
          .ldb = s.in,
          .ldc = s.in,
          .workspace = nullptr};
}

/// Runs the product c = op(a) op(b) + bias.
template <class Stream, class T, class C>
void multiply(Stream stream, Device& device, Matmul<T, C> product, C* c, const T* a, const T* b, const C* bias) {
  product.c = c;
  product.a = a;
  product.b = b;
  product.bias = bias;
  multiply(stream, device, product);
}

}  // namespace

void prepare_linear(const Tensor& weight, std::int64_t rows) {
  const Sizes sizes{.rows = rows, .in = weight.channels(), .out = weight.rows()};
  on(weight, [&]<class T>(auto stream) {
    Matmul<T> with_bias = forward_product<T>(sizes);
    with_bias.bias = weight.data<T>();  // only whether there is one matters
    for (const Matmul<T>& product :
         {forward_product<T>(sizes), with_bias, input_product<T>(sizes, Use::write), input_product<T>(sizes, Use::add)}) {
      static_cast<void>(matmul_workspace(stream, product));
    }
    for (const Use use : {Use::write, Use::add}) static_cast<void>(matmul_workspace(stream, weight_product<T>(sizes, use)));
  });
}

Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Sizes sizes{.rows = x.rows(), .in = x.channels(), .out = weight.rows()};
  expect_shape("linear", "weight", weight, Shape{sizes.out, sizes.in});
  expect_shape_or_empty("linear", "bias", bias, Shape{sizes.out});
  Tensor y = Tensor::like(x, Shape{sizes.rows, sizes.out});
  on(x, [&]<class T>(auto stream) {
    multiply(stream, *x.device(), forward_product<T>(sizes), y.data<T>(), x.data<T>(), weight.data<T>(), bias.data<T>());
  });
  tape.record({.name = "linear", .inputs = {x, weight, bias}, .outputs = {y}, .saved = {x, weight}}, [sizes](const Backward& b) {
    on(b.saved(0), [&]<class T>(auto stream) {
      const T* d_y = b.d_output<T>(0);
      using A = Accumulator<T>;
      if (b.use(0) != Use::skip)
        multiply(stream, b.device(), input_product<T>(sizes, b.use(0)), b.d_input<T>(0), d_y, b.saved(1).data<T>(),
                 static_cast<const T*>(nullptr));
      if (b.use(1) != Use::skip)
        multiply(stream, b.device(), weight_product<T>(sizes, b.use(1)), b.d_input<A>(1), d_y, b.saved(0).data<T>(),
                 static_cast<const A*>(nullptr));
      if (b.use(2) != Use::skip) {
        const Workspace workspace(b.device(), column_sum_workspace<T>(sizes.rows, sizes.out));
        column_sum(stream, ColumnSum<T>{.y = b.d_input<Accumulator<T>>(2),
                                        .use = b.use(2),
                                        .x = d_y,
                                        .workspace = workspace.data(),
                                        .tokens = sizes.rows,
                                        .channels = sizes.out});
      }
    });
  });
  return y;
}

}  // namespace lathe
