#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/linear_products.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

/// Those of a linear function with the words as its weight [V, C], whose results have room for a multiple of columns.
LinearSizes sizes_of(std::int64_t rows, const Tensor& words) {
  return {.rows = rows,
          .in = words.channels(),
          .out = words.rows(),
          .stride = (words.rows() + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple};
}

/// d_bias[v] = sum_r d_logits[r, v] for v < out: summed over whole rows, of which the padding's sums are left.
template <class T, class Stream>
void bias_gradient(Stream stream, const Backward& b, LinearSizes s) {
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
                    s.out * size_of(dtype_of<A>()));
  } else {
    add(stream, Add<A>{.y = d_bias, .a = d_bias, .b = sums.data<A>(), .count = s.out});
  }
}

}  // namespace

void prepare_decode(const Tensor& words, std::int64_t rows) {
  on(words, [&]<class T>(auto stream) { prepare_linear_products<T>(stream, sizes_of(rows, words), Bias::added); });
}

Tensor decode(Tape& tape, const Tensor& x, const Tensor& words, const Tensor& bias) {
  const LinearSizes sizes = sizes_of(x.rows(), words);
  expect_shape("decode", "words", words, Shape{sizes.out, x.channels()});
  expect_shape_or_empty("decode", "bias", bias, Shape{sizes.out});
  Tensor logits = Tensor::like(x, Shape{sizes.rows, sizes.stride});
  on(x, [&]<class T>(auto stream) {
    multiply(stream, *x.device(),
             linear_forward_product<T>(sizes, x.data<T>(), words.data<T>(), bias.data<T>(), logits.data<T>()));
  });
  tape.record({.name = "decode", .inputs = {x, words, bias}, .outputs = {logits}, .saved = {x, words}},
              [sizes](const Backward& b) {
                on(b.saved(0), [&]<class T>(auto stream) {
                  linear_products_backward<T>(stream, b, sizes);
                  if (b.use(2) != Use::skip) bias_gradient<T>(stream, b, sizes);
                });
              });
  return logits;
}

}  // namespace lathe
