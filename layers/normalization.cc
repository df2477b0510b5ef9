#include "lathe/kernels/layernorm.h"
#include "lathe/layers/dropout.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"
#include "lathe/runtime/error.h"

namespace lathe {

Tensor layer_norm(Tape& tape, const Tensor& x, const Tensor& bias, const Tensor& residual, const Tensor& gamma,
                  const Tensor& beta, double epsilon, const Batch& batch, RowKind kind, DropoutSite site) {
  const std::int64_t rows = x.rows();
  const std::int64_t channels = x.channels();
  expect_shape_or_empty("layer_norm", "bias", bias, Shape{channels});
  expect_shape_or_empty("layer_norm", "residual", residual, x.shape());
  expect_shape("layer_norm", "gamma", gamma, Shape{channels});
  expect_shape("layer_norm", "beta", beta, Shape{channels});
  const Dropout settings = dropout_of(batch, kind, site);
  if (settings.threshold != 0) {
    expect_shape("layer_norm", "sample numbers", dropout_tensors(batch, kind).sample, Shape{rows});
    if (residual && residual.id() == x.id())
      throw LogicError("layer_norm: x and residual are one tensor, which dropout doesn't cover");
  }
  const bool plain = !bias && !residual && settings.threshold == 0;
  Tensor y = Tensor::like(x);
  const Tensor z = plain ? x : Tensor::like(x);
  Tensor mean;
  Tensor rstd;
  on(x, [&]<class T>(auto stream) {
    mean = Tensor::empty(x.device(), dtype_of<Accumulator<T>>(), Shape{rows});
    rstd = Tensor::like(mean);
    layernorm_forward(stream, LayerNormForward<T>{.y = y.data<T>(),
                                                  .z = plain ? nullptr : z.data<T>(),
                                                  .mean = mean.data<Accumulator<T>>(),
                                                  .rstd = rstd.data<Accumulator<T>>(),
                                                  .x = x.data<T>(),
                                                  .bias = bias.data<T>(),
                                                  .residual = residual.data<T>(),
                                                  .gamma = gamma.data<T>(),
                                                  .beta = beta.data<T>(),
                                                  .dropout = settings,
                                                  .epsilon = epsilon,
                                                  .tokens = rows,
                                                  .channels = channels});
  });
  const DropoutTensors tensors = settings.threshold == 0 ? DropoutTensors{} : dropout_tensors(batch, kind);
  tape.record({.name = "layer_norm",
               .inputs = {x, residual, bias, gamma, beta},
               .outputs = {y},
               .saved = {z, mean, rstd, gamma, tensors.key, tensors.sample, tensors.position}},
              [=](const Backward& b) {
                on(b.saved(0), [&]<class T>(auto stream) {
                  using A = Accumulator<T>;
                  const Workspace workspace(b.device(), layernorm_backward_workspace<T>(rows, channels));
                  layernorm_backward(stream,
                                     LayerNormBackward<T>{.d_x = b.d_input<T>(0),
                                                          .use_x = b.use(0),
                                                          .d_residual = b.d_input<T>(1),
                                                          .use_residual = b.use(1),
                                                          .d_bias = b.d_input<A>(2),
                                                          .use_bias = b.use(2),
                                                          .d_gamma = b.d_input<A>(3),
                                                          .use_gamma = b.use(3),
                                                          .d_beta = b.d_input<A>(4),
                                                          .use_beta = b.use(4),
                                                          .d_y = b.d_output<T>(0),
                                                          .z = b.saved(0).data<T>(),
                                                          .mean = b.saved(1).data<A>(),
                                                          .rstd = b.saved(2).data<A>(),
                                                          .gamma = b.saved(3).data<T>(),
                                                          .dropout = dropout_from(b.saved(4), b.saved(5), b.saved(6), site),
                                                          .workspace = workspace.data(),
                                                          .tokens = rows,
                                                          .channels = channels});
                });
              });
  return y;
}

}  // namespace lathe
