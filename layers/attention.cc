#include "lathe/kernels/attention.h"

#include <fmt/format.h>

#include <cmath>

#include "lathe/kernels/dropout.h"
#include "lathe/layers/functions.h"
#include "lathe/layers/shapes.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

AttentionDropout dropout_of(const Tensor& key, const Tensor& sequence_sample, const AttentionSettings& settings) {
  return {.key = reinterpret_cast<const RandomKey*>(key.data<std::int32_t>()),
          .sample = sequence_sample.data<std::int32_t>(),
          .layer = settings.layer,
          .threshold = key ? dropout_threshold(settings.dropout) : 0U};
}

AttentionTiles tiles_of(const Tensor& sequence, const Tensor& first, std::int64_t rows) {
  return {.sequence = sequence.data<std::int32_t>(),
          .first = first.data<std::int32_t>(),
          .count = sequence ? sequence.size() : 0,
          .rows = rows};
}

}  // namespace

Tensor attend(Tape& tape, const Tensor& qkv, const Batch& batch, const AttentionSettings& settings) {
  const std::int64_t tokens = qkv.rows();
  const std::int64_t channels = qkv.channels() / 3;
  expect_shape("attend", "qkv", qkv, Shape{batch.tokens(), 3 * channels});
  if (settings.heads < 1 || channels % settings.heads != 0)
    throw LogicError(fmt::format("attend: {} channels don't make {} heads", channels, settings.heads));
  const std::int64_t head_size = channels / settings.heads;
  if (head_size < 1 || head_size > kMaxHeadSize)
    throw LogicError(fmt::format("attend: a head size of {} isn't covered; 1 to {} are", head_size, kMaxHeadSize));
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_size));
  const std::int64_t sequences = batch.cu_seqlens.size() - 1;
  const std::int64_t tile_rows = batch.tile_rows;
  const std::int64_t key_tile_rows = batch.key_tile_rows;
  const std::int64_t splits = attention_splits(batch.max_length, key_tile_rows);
  Tensor out = Tensor::like(qkv, Shape{tokens, channels});
  Tensor lse;
  on(qkv, [&]<class T>(auto stream) {
    lse = Tensor::empty(qkv.device(), dtype_of<Accumulator<T>>(), Shape{settings.heads, tokens});
    const T* base = qkv.data<T>();
    attention_forward(stream, AttentionForward<T>{.out = out.data<T>(),
                                                  .lse = lse.data<Accumulator<T>>(),
                                                  .q = base,
                                                  .k = base + channels,
                                                  .v = base + 2 * channels,
                                                  .q_stride = 3 * channels,
                                                  .k_stride = 3 * channels,
                                                  .v_stride = 3 * channels,
                                                  .cu_q = batch.cu_seqlens.data<std::int32_t>(),
                                                  .cu_k = batch.cu_seqlens.data<std::int32_t>(),
                                                  .query_tiles = tiles_of(batch.tile_sequence, batch.tile_first, tile_rows),
                                                  .dropout = dropout_of(batch.random_key, batch.sequence_sample, settings),
                                                  .mask = settings.mask,
                                                  .scale = scale,
                                                  .queries = tokens,
                                                  .keys = tokens,
                                                  .sequences = sequences,
                                                  .heads = settings.heads,
                                                  .head_size = head_size});
  });
  tape.record({.name = "attend",
               .inputs = {qkv},
               .outputs = {out},
               .saved = {qkv, out, lse, batch.cu_seqlens, batch.tile_sequence, batch.tile_first, batch.random_key,
                         batch.sequence_sample, batch.key_tile_sequence, batch.key_tile_first}},
              [=](const Backward& b) {
                on(b.saved(0), [&]<class T>(auto stream) {
                  const Workspace workspace(
                      b.device(), attention_backward_workspace<T>(tokens, settings.heads, head_size, key_tile_rows, splits));
                  const T* base = b.saved(0).data<T>();
                  T* d_base = b.d_input<T>(0);
                  attention_backward(stream, AttentionBackward<T>{.d_q = d_base,
                                                                  .use_q = b.use(0),
                                                                  .d_k = d_base + channels,
                                                                  .use_k = b.use(0),
                                                                  .d_v = d_base + 2 * channels,
                                                                  .use_v = b.use(0),
                                                                  .d_q_stride = 3 * channels,
                                                                  .d_k_stride = 3 * channels,
                                                                  .d_v_stride = 3 * channels,
                                                                  .d_out = b.d_output<T>(0),
                                                                  .out = b.saved(1).data<T>(),
                                                                  .lse = b.saved(2).data<Accumulator<T>>(),
                                                                  .q = base,
                                                                  .k = base + channels,
                                                                  .v = base + 2 * channels,
                                                                  .q_stride = 3 * channels,
                                                                  .k_stride = 3 * channels,
                                                                  .v_stride = 3 * channels,
                                                                  .cu_q = b.saved(3).data<std::int32_t>(),
                                                                  .cu_k = b.saved(3).data<std::int32_t>(),
                                                                  .query_tiles = tiles_of(b.saved(4), b.saved(5), tile_rows),
                                                                  .key_tiles = tiles_of(b.saved(8), b.saved(9), key_tile_rows),
                                                                  .splits = splits,
                                                                  .dropout = dropout_of(b.saved(6), b.saved(7), settings),
                                                                  .mask = settings.mask,
                                                                  .scale = scale,
                                                                  .workspace = workspace.data(),
                                                                  .queries = tokens,
                                                                  .keys = tokens,
                                                                  .sequences = sequences,
                                                                  .heads = settings.heads,
                                                                  .head_size = head_size});
                });
              });
  return out;
}

}  // namespace lathe
