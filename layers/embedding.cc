#include "lathe/kernels/embedding.h"

#include "lathe/layers/dropout.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"

namespace lathe {
namespace {

/// What backward keeps, in the order in which it is saved.
namespace saved {
enum : std::size_t {
  z,
  mean,
  rstd,
  gamma,
  order,
  split_start,
  segment_split,
  segment_row,
  cu_seqlens,
  type,
  random_key,
  sample,
  position
};
}  // namespace saved

}  // namespace

Tensor embed(Tape& tape, const EmbeddingTables& tables, const Batch& batch, double epsilon, DropoutSite site,
             std::int32_t first_position) {
  const std::int64_t tokens = batch.tokens();
  const std::int64_t channels = tables.words.channels();
  expect_shape("embed", "positions", tables.positions, Shape{tables.positions.rows(), channels});
  if (tables.types) expect_shape("embed", "types", tables.types, Shape{tables.types.rows(), channels});
  expect_shape_or_empty("embed", "gamma", tables.gamma, Shape{channels});
  if (tables.gamma) expect_shape("embed", "beta", tables.beta, Shape{channels});
  Tensor y = Tensor::like(tables.words, Shape{tokens, channels});
  Tensor z;
  Tensor mean;
  Tensor rstd;
  on(tables.words, [&]<class T>(auto stream) {
    if (tables.gamma) {
      z = Tensor::like(y);
      mean = Tensor::empty(y.device(), dtype_of<Accumulator<T>>(), Shape{tokens});
      rstd = Tensor::like(mean);
    }
    embedding_forward(stream, EmbeddingForward<T>{.y = y.data<T>(),
                                                  .z = z.data<T>(),
                                                  .mean = mean.data<Accumulator<T>>(),
                                                  .rstd = rstd.data<Accumulator<T>>(),
                                                  .words = tables.words.data<T>(),
                                                  .positions = tables.positions.data<T>(),
                                                  .types = tables.types.data<T>(),
                                                  .token = batch.token.data<std::int32_t>(),
                                                  .position = batch.position.data<std::int32_t>(),
                                                  .type = batch.type.data<std::int32_t>(),
                                                  .gamma = tables.gamma.data<T>(),
                                                  .beta = tables.beta.data<T>(),
                                                  .dropout = dropout_of(batch, RowKind::tokens, site),
                                                  .epsilon = epsilon,
                                                  .tokens = tokens,
                                                  .channels = channels});
  });
  const std::int64_t vocabulary = tables.words.rows();
  const std::int64_t positions = tables.positions.rows();
  const std::int64_t types = tables.types ? tables.types.rows() : 0;
  tape.record(
      {.name = "embed",
       .inputs = {tables.words, tables.positions, tables.types, tables.gamma, tables.beta},
       .outputs = {y},
       .saved = {z, mean, rstd, tables.gamma, batch.order, batch.split_start, batch.segment_split, batch.segment_row,
                 batch.cu_seqlens, batch.type, batch.random_key, batch.sample, batch.position}},
      [=](const Backward& b) {
        const Tensor& d_y = b.d_output(0);
        on(d_y, [&]<class T>(auto stream) {
          using A = Accumulator<T>;
          const Tensor d_z = Tensor::like(d_y);
          {
            const Workspace workspace(b.device(), layernorm_backward_workspace<T>(tokens, channels));
            embedding_norm_backward(
                stream, EmbeddingNormBackward<T>{.d_z = d_z.data<T>(),
                                                 .d_gamma = b.d_input<A>(3),
                                                 .use_gamma = b.use(3),
                                                 .d_beta = b.d_input<A>(4),
                                                 .use_beta = b.use(4),
                                                 .d_y = d_y.data<T>(),
                                                 .z = b.saved(saved::z).data<T>(),
                                                 .mean = b.saved(saved::mean).data<A>(),
                                                 .rstd = b.saved(saved::rstd).data<A>(),
                                                 .gamma = b.saved(saved::gamma).data<T>(),
                                                 .dropout = dropout_from(b.saved(saved::random_key), b.saved(saved::sample),
                                                                         b.saved(saved::position), site),
                                                 .workspace = workspace.data(),
                                                 .tokens = tokens,
                                                 .channels = channels});
          }
          const std::int64_t splits = b.saved(saved::split_start).size() - 1;
          const Workspace workspace(b.device(), embedding_backward_workspace<T>(tokens, splits, channels, types));
          embedding_backward(
              stream, EmbeddingBackward<T>{.d_words = b.d_input<A>(0),
                                           .use_words = b.use(0),
                                           .d_positions = b.d_input<A>(1),
                                           .use_positions = b.use(1),
                                           .d_types = b.d_input<A>(2),
                                           .use_types = b.use(2),
                                           .d_z = d_z.data<T>(),
                                           .segments = {.order = b.saved(saved::order).data<std::int32_t>(),
                                                        .split_start = b.saved(saved::split_start).data<std::int32_t>(),
                                                        .segment_split = b.saved(saved::segment_split).data<std::int32_t>(),
                                                        .segment_row = b.saved(saved::segment_row).data<std::int32_t>(),
                                                        .splits = splits,
                                                        .segments = b.saved(saved::segment_row).size()},
                                           .cu_seqlens = b.saved(saved::cu_seqlens).data<std::int32_t>(),
                                           .type = b.saved(saved::type).data<std::int32_t>(),
                                           .first_position = first_position,
                                           .workspace = workspace.data(),
                                           .tokens = tokens,
                                           .sequences = b.saved(saved::cu_seqlens).size() - 1,
                                           .channels = channels,
                                           .vocabulary = vocabulary,
                                           .positions = positions,
                                           .types = types});
        });
      });
  return y;
}

}  // namespace lathe
