#include "lathe/kernels/activation.h"

#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"

namespace lathe {

Tensor activate(Tape& tape, const Tensor& x, const Tensor& bias, Activation activation) {
  const std::int64_t rows = x.rows();
  const std::int64_t channels = x.channels();
  expect_shape_or_empty("activate", "bias", bias, Shape{channels});
  Tensor y = Tensor::like(x);
  on(x, [&]<class T>(auto stream) {
    activation_forward(stream, ActivationForward<T>{.y = y.data<T>(),
                                                    .x = x.data<T>(),
                                                    .bias = bias.data<T>(),
                                                    .activation = activation,
                                                    .tokens = rows,
                                                    .channels = channels});
  });
  tape.record({.name = "activate", .inputs = {x, bias}, .outputs = {y}, .saved = {x, bias}}, [=](const Backward& b) {
    on(b.saved(0), [&]<class T>(auto stream) {
      const Workspace workspace(b.device(), activation_backward_workspace<T>(rows, channels));
      activation_backward(stream, ActivationBackward<T>{.d_x = b.d_input<T>(0),
                                                        .use_x = b.use(0),
                                                        .d_bias = b.d_input<Accumulator<T>>(1),
                                                        .use_bias = b.use(1),
                                                        .d_y = b.d_output<T>(0),
                                                        .x = b.saved(0).data<T>(),
                                                        .bias = b.saved(1).data<T>(),
                                                        .activation = activation,
                                                        .workspace = workspace.data(),
                                                        .tokens = rows,
                                                        .channels = channels});
    });
  });
  return y;
}

}  // namespace lathe
