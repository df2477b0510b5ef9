#include <fmt/format.h>

#include <cstddef>

#include "lathe/kernels/cross_entropy.h"
#include "lathe/kernels/reduce.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"
#include "lathe/runtime/error.h"

namespace lathe {

Tensor cross_entropy_loss(Tape& tape, const Tensor& logits, const Batch& batch, const LossSettings& settings) {
  const std::int64_t rows = logits.rows();
  const std::int64_t stride = logits.channels();
  const std::int64_t classes = settings.classes == 0 ? stride : settings.classes;
  if (classes > stride) throw LogicError(fmt::format("cross_entropy_loss: {} classes in logits of {} columns", classes, stride));
  expect_shape("cross_entropy_loss", "labels", batch.label, Shape{rows});
  expect_shape_or_empty("cross_entropy_loss", "class weights", settings.class_weights, Shape{classes});
  if (batch.loss_scale.size() != 1 || !batch.loss_scale)
    throw LogicError("cross_entropy_loss: the batch has no loss_scale, which must be one number");
  Tensor loss;
  on(logits, [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    const Tensor row_loss = Tensor::empty(logits.device(), dtype_of<A>(), Shape{rows});
    loss = Tensor::empty(logits.device(), dtype_of<A>(), Shape{});
    cross_entropy(stream,
                  CrossEntropy<T>{.logits = logits.data<T>(),
                                  .loss = row_loss.data<A>(),
                                  .labels = batch.label.data<std::int32_t>(),
                                  .class_weights = settings.class_weights.data<T>(),
                                  .scale = batch.loss_scale.data<A>(),
                                  .label_smoothing = settings.label_smoothing,
                                  .gradient = tape.needs_gradient(logits) ? LogitsGradient::in_place : LogitsGradient::none,
                                  .rows = rows,
                                  .classes = classes,
                                  .stride = stride});
    sum(stream, Sum<A>{.y = loss.data<A>(), .x = row_loss.data<A>(), .count = rows});
  });
  tape.record(
      {.name = "cross_entropy_loss", .inputs = {logits}, .outputs = {loss}, .saved = {logits}, .in_place = {logits}},
      [](const Backward& b) {
        if (b.d_output(0).size() != 0)
          throw LogicError("cross_entropy_loss: the loss takes no upstream gradient; its factor is the batch's loss_scale");
        if (b.use(0) == Use::skip) return;
        on(b.saved(0), [&]<class T>(auto stream) {
          T* d_logits = b.d_input<T>(0);
          const T* gradient = b.saved(0).data<T>();
          if (b.use(0) == Use::write) {
            b.device().copy(reinterpret_cast<std::byte*>(d_logits), reinterpret_cast<const std::byte*>(gradient),
                            b.saved(0).bytes());
          } else {
            add(stream, Add<T>{.y = d_logits, .a = d_logits, .b = gradient, .count = b.saved(0).size()});
          }
        });
      });
  return loss;
}

}  // namespace lathe
