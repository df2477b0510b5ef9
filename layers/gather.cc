#include "lathe/kernels/gather.h"

#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"

namespace lathe {

Tensor gather_rows(Tape& tape, const Tensor& x, const Batch& batch) {
  const std::int64_t tokens = batch.tokens();
  const std::int64_t channels = x.channels();
  expect_shape("gather_rows", "x", x, Shape{tokens, channels});
  Tensor y = Tensor::like(x, Shape{batch.rows(), channels});
  on(x, [&]<class T>(auto stream) {
    gather_forward(stream, GatherForward<T>{.y = y.data<T>(),
                                            .x = x.data<T>(),
                                            .row_token = batch.row_token.data<std::int32_t>(),
                                            .rows = batch.rows(),
                                            .channels = channels});
  });
  tape.record({.name = "gather_rows", .inputs = {x}, .outputs = {y}, .saved = {batch.token_row}}, [=](const Backward& b) {
    on(b.d_output(0), [&]<class T>(auto stream) {
      gather_backward(stream, GatherBackward<T>{.d_x = b.d_input<T>(0),
                                                .use = b.use(0),
                                                .d_y = b.d_output<T>(0),
                                                .token_row = b.saved(0).data<std::int32_t>(),
                                                .tokens = tokens,
                                                .channels = channels});
    });
  });
  return y;
}

}  // namespace lathe
