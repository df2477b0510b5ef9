#include "lathe/kernels/matmul.h"
#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/product.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

/// Shapes of a decoder: x [rows, channels], words [vocabulary, channels], logits [rows, stride].
struct Sizes {
  std::int64_t rows, channels, vocabulary, stride;
};

/// d_bias[v] = sum_r d_logits[r, v] for v < V: summed over whole rows, of which the padding's sums are left.
template <class T, class Stream>
void bias_gradient(Stream stream, const Backward& b, Sizes s) {
  using A = Accumulator<T>;
  const Tensor sums = Tensor::empty(b.d_output(0).device(), dtype_of<A>(), Shape{s.stride});
  const Workspace workspace(b.device(), column_sum_workspace<T>(s.rows, s.stride));
  column_sum(stream, ColumnSum<T>{.y = sums.data<A>(),
                                  .use = Use::write,
                                  .x = b.d_output<T>(0),
                                  .workspace = workspace.data(),
                                  .tokens = s.rows,
                                  .channels = s.stride});
  A* d_bias = b.d_input<A>(2);
  if (b.use(2) == Use::write) {
    b.device().copy(reinterpret_cast<std::byte*>(d_bias), reinterpret_cast<const std::byte*>(sums.data<A>()),
                    s.vocabulary * size_of(dtype_of<A>()));
  } else {
    add(stream, Add<A>{.y = d_bias, .a = d_bias, .b = sums.data<A>(), .count = s.vocabulary});
  }
}

}  // namespace

Tensor decode(Tape& tape, const Tensor& x, const Tensor& words, const Tensor& bias) {
  const Sizes sizes{.rows = x.rows(),
                    .channels = x.channels(),
                    .vocabulary = words.rows(),
                    .stride = (words.rows() + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple};
  expect_shape("decode", "words", words, Shape{sizes.vocabulary, sizes.channels});
  expect_shape_or_empty("decode", "bias", bias, Shape{sizes.vocabulary});
  Tensor logits = Tensor::like(x, Shape{sizes.rows, sizes.stride});
  on(x, [&]<class T>(auto stream) {
    multiply(stream, *x.device(),
             Matmul<T>{.c = logits.data<T>(),
                       .a = x.data<T>(),
                       .b = words.data<T>(),
                       .bias = bias.data<T>(),
                       .use = Use::write,
                       .transpose_a = Transpose::no,
                       .transpose_b = Transpose::yes,
                       .m = sizes.rows,
                       .n = sizes.vocabulary,
                       .k = sizes.channels,
                       .lda = sizes.channels,
                       .ldb = sizes.channels,
                       .ldc = sizes.stride,
                       .workspace = nullptr});
  });
  tape.record({.name = "decode", .inputs = {x, words, bias}, .outputs = {logits}, .saved = {x, words}},
              [sizes](const Backward& b) {
                on(b.saved(0), [&]<class T>(auto stream) {
                  using A = Accumulator<T>;
                  if (b.use(0) != Use::skip) {
                    multiply(stream, b.device(),
                             Matmul<T>{.c = b.d_input<T>(0),
                                       .a = b.d_output<T>(0),
                                       .b = b.saved(1).data<T>(),
                                       .bias = nullptr,
                                       .use = b.use(0),
                                       .transpose_a = Transpose::no,
                                       .transpose_b = Transpose::no,
                                       .m = sizes.rows,
                                       .n = sizes.channels,
                                       .k = sizes.vocabulary,
                                       .lda = sizes.stride,
                                       .ldb = sizes.channels,
                                       .ldc = sizes.channels,
                                       .workspace = nullptr});
                  }
                  if (b.use(1) != Use::skip) {
                    multiply(stream, b.device(),
                             Matmul<T, A>{.c = b.d_input<A>(1),
                                          .a = b.d_output<T>(0),
                                          .b = b.saved(0).data<T>(),
                                          .bias = nullptr,
                                          .use = b.use(1),
                                          .transpose_a = Transpose::yes,
                                          .transpose_b = Transpose::no,
                                          .m = sizes.vocabulary,
                                          .n = sizes.channels,
                                          .k = sizes.rows,
                                          .lda = sizes.stride,
                                          .ldb = sizes.channels,
                                          .ldc = sizes.channels,
                                          .workspace = nullptr});
                  }
                  if (b.use(2) != Use::skip) bias_gradient<T>(stream, b, sizes);
                });
              });
  return logits;
}

}  // namespace lathe
