#pragma once
// The three products of y = x weight^T + bias. Internal to layers/.
#include <cstdint>

#include "lathe/kernels/matmul.h"
#include "lathe/layers/product.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/tape.h"
#include "lathe/runtime/tensor.h"

namespace lathe {

/// Shapes: x [rows, in], weight [out, in], y [rows, out] with `stride` elements between its rows.
struct LinearSizes {
  std::int64_t rows, in, out, stride;
};

/// y = x weight^T + bias.
template <class T>
Matmul<T> linear_forward_product(LinearSizes s, const T* x, const T* weight, const T* bias, T* y) {
  return {.c = y,
          .a = x,
          .b = weight,
          .bias = bias,
          .use = Use::write,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::yes,
          .m = s.rows,
          .n = s.out,
          .k = s.in,
          .lda = s.in,
          .ldb = s.in,
          .ldc = s.stride,
          .workspace = nullptr};
}

/// d_x = d_y weight.
template <class T>
Matmul<T> linear_input_product(LinearSizes s, Use use, const T* d_y, const T* weight, T* d_x) {
  return {.c = d_x,
          .a = d_y,
          .b = weight,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::no,
          .m = s.rows,
          .n = s.in,
          .k = s.out,
          .lda = s.stride,
          .ldb = s.in,
          .ldc = s.in,
          .workspace = nullptr};
}

/// d_weight = d_y^T x, in the accumulator's type, as the gradient arena has it.
template <class T>
Matmul<T, Accumulator<T>> linear_weight_product(LinearSizes s, Use use, const T* d_y, const T* x, Accumulator<T>* d_weight) {
  return {.c = d_weight,
          .a = d_y,
          .b = x,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::yes,
          .transpose_b = Transpose::no,
          .m = s.out,
          .n = s.in,
          .k = s.rows,
          .lda = s.stride,
          .ldb = s.in,
          .ldc = s.in,
          .workspace = nullptr};
}

/// Whether a function's product has a bias.
enum class Bias : std::uint8_t { none, added };

/// Chooses the products' plans, so that nothing is chosen where a step is captured.
template <class T, class Stream>
void prepare_linear_products(Stream stream, LinearSizes s, Bias bias) {
  static constexpr T kAny{};  // only whether there is a bias matters
  const T* const added = bias == Bias::none ? nullptr : &kAny;
  static_cast<void>(matmul_workspace(stream, linear_forward_product<T>(s, nullptr, nullptr, added, nullptr)));
  for (const Use use : {Use::write, Use::add}) {
    static_cast<void>(matmul_workspace(stream, linear_input_product<T>(s, use, nullptr, nullptr, nullptr)));
    static_cast<void>(matmul_workspace(stream, linear_weight_product<T>(s, use, nullptr, nullptr, nullptr)));
  }
}

/// Of a function recorded with the inputs x, weight and bias, of which x and weight are saved: their gradients but for the bias', as far as they are
/// asked for.
template <class T, class Stream>
void linear_products_backward(Stream stream, const Backward& b, LinearSizes s) {
  const T* const d_y = b.d_output<T>(0);
  if (b.use(0) != Use::skip) {
    multiply(stream, b.device(), linear_input_product<T>(s, b.use(0), d_y, b.saved(1).data<T>(), b.d_input<T>(0)));
  }
  if (b.use(1) != Use::skip) {
    multiply(stream, b.device(), linear_weight_product<T>(s, b.use(1), d_y, b.saved(0).data<T>(), b.d_input<Accumulator<T>>(1)));
  }
}

}  // namespace lathe
