#include "lathe/layers/dropout.h"

#include <fmt/format.h>

#include "lathe/layers/shapes.h"
#include "lathe/runtime/error.h"

namespace lathe {

DropoutTensors dropout_tensors(const Batch& batch, RowKind rows) {
  const bool tokens = rows == RowKind::tokens;
  return {.key = batch.random_key,
          .sample = tokens ? batch.sample : batch.row_sample,
          .position = tokens ? batch.position : batch.row_position};
}

Dropout dropout_from(const Tensor& key, const Tensor& sample, const Tensor& position, DropoutSite site) {
  if (!(site.probability >= 0.0 && site.probability < 1.0))
    throw LogicError(fmt::format("a dropout probability of {} isn't in [0, 1)", site.probability));
  static_assert(sizeof(RandomKey) == 2 * sizeof(std::int32_t));
  return {.key = reinterpret_cast<const RandomKey*>(key.data<std::int32_t>()),
          .sample = sample.data<std::int32_t>(),
          .position = position.data<std::int32_t>(),
          .site = site.site,
          .threshold = key ? dropout_threshold(site.probability) : 0U};
}

Dropout dropout_of(const Batch& batch, RowKind rows, DropoutSite site) {
  const DropoutTensors tensors = dropout_tensors(batch, rows);
  return dropout_from(tensors.key, tensors.sample, tensors.position, site);
}

Tensor dropout(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows, DropoutSite site) {
  const Dropout settings = dropout_of(batch, rows, site);
  if (settings.threshold == 0) return x;
  const std::int64_t tokens = x.rows();
  const std::int64_t channels = x.channels();
  const DropoutTensors tensors = dropout_tensors(batch, rows);
  expect_shape("dropout", "sample numbers", tensors.sample, Shape{tokens});
  Tensor y = Tensor::like(x);
  on(x, [&]<class T>(auto stream) {
    dropout_forward(stream, DropoutForward<T>{
                                .y = y.data<T>(), .x = x.data<T>(), .dropout = settings, .tokens = tokens, .channels = channels});
  });
  tape.record({.name = "dropout", .inputs = {x}, .outputs = {y}, .saved = {tensors.key, tensors.sample, tensors.position}},
              [=](const Backward& b) {
                on(b.d_output(0), [&]<class T>(auto stream) {
                  dropout_backward(stream, DropoutBackward<T>{.d_x = b.d_input<T>(0),
                                                              .use = b.use(0),
                                                              .d_y = b.d_output<T>(0),
                                                              .dropout = dropout_from(b.saved(0), b.saved(1), b.saved(2), site),
                                                              .tokens = tokens,
                                                              .channels = channels});
                });
              });
  return y;
}

}  // namespace lathe
