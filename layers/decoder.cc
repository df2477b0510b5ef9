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

/// logits = x words^T + bias.
template <class T>
Matmul<T> forward_product(Sizes s, const T* x, const T* words, const T* bias, T* logits) {
  return {.c = logits,
          .a = x,
          .b = words,
          .bias = bias,
          .use = Use::write,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::yes,
          .m = s.rows,
          .n = s.vocabulary,
          .k = s.channels,
          .lda = s.channels,
          .ldb = s.channels,
          .ldc = s.stride,
          .workspace = nullptr};
}

/// d_x = d_logits words.
template <class T>
Matmul<T> input_product(Sizes s, Use use, const T* d_logits, const T* words, T* d_x) {
  return {.c = d_x,
          .a = d_logits,
          .b = words,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::no,
          .transpose_b = Transpose::no,
          .m = s.rows,
          .n = s.channels,
          .k = s.vocabulary,
          .lda = s.stride,
          .ldb = s.channels,
          .ldc = s.channels,
          .workspace = nullptr};
}

/// d_words = d_logits^T x.
template <class T>
Matmul<T, Accumulator<T>> words_product(Sizes s, Use use, const T* d_logits, const T* x, Accumulator<T>* d_words) {
  return {.c = d_words,
          .a = d_logits,
          .b = x,
          .bias = nullptr,
          .use = use,
          .transpose_a = Transpose::yes,
          .transpose_b = Transpose::no,
          .m = s.vocabulary,
          .n = s.channels,
          .k = s.rows,
          .lda = s.stride,
          .ldb = s.channels,
          .ldc = s.channels,
          .workspace = nullptr};
}

Sizes sizes_of(std::int64_t rows, const Tensor& words) {
  return {.rows = rows,
          .channels = words.channels(),
          .vocabulary = words.rows(),
          .stride = (words.rows() + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple};
}

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

void prepare_decode(const Tensor& words, std::int64_t rows) {
  const Sizes sizes = sizes_of(rows, words);
  on(words, [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    const T* const bias = words.data<T>();  // only whether there is one matters
    static_cast<void>(matmul_workspace(stream, forward_product<T>(sizes, nullptr, nullptr, bias, nullptr)));
    for (const Use use : {Use::write, Use::add}) {
      static_cast<void>(matmul_workspace(stream, input_product<T>(sizes, use, nullptr, nullptr, nullptr)));
      static_cast<void>(matmul_workspace(stream, words_product<T>(sizes, use, nullptr, nullptr, static_cast<A*>(nullptr))));
    }
  });
}

Tensor decode(Tape& tape, const Tensor& x, const Tensor& words, const Tensor& bias) {
  const Sizes sizes = sizes_of(x.rows(), words);
  expect_shape("decode", "words", words, Shape{sizes.vocabulary, x.channels()});
  expect_shape_or_empty("decode", "bias", bias, Shape{sizes.vocabulary});
  Tensor logits = Tensor::like(x, Shape{sizes.rows, sizes.stride});
  on(x, [&]<class T>(auto stream) {
    multiply(stream, *x.device(), forward_product<T>(sizes, x.data<T>(), words.data<T>(), bias.data<T>(), logits.data<T>()));
  });
  tape.record(
      {.name = "decode", .inputs = {x, words, bias}, .outputs = {logits}, .saved = {x, words}}, [sizes](const Backward& b) {
        on(b.saved(0), [&]<class T>(auto stream) {
          const T* d_logits = b.d_output<T>(0);
          if (b.use(0) != Use::skip) {
            multiply(stream, b.device(), input_product<T>(sizes, b.use(0), d_logits, b.saved(1).data<T>(), b.d_input<T>(0)));
          }
          if (b.use(1) != Use::skip) {
            multiply(stream, b.device(),
                     words_product<T>(sizes, b.use(1), d_logits, b.saved(0).data<T>(), b.d_input<Accumulator<T>>(1)));
          }
          if (b.use(2) != Use::skip) bias_gradient<T>(stream, b, sizes);
        });
      });
  return logits;
}

}  // namespace lathe
