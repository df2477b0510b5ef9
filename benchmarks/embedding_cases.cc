#include "benchmarks/operands.h"
#include "lathe/kernels/embedding.h"
#include "lathe/kernels/layernorm.h"

namespace lathe::bench {
namespace {

constexpr std::int64_t kTypes = 2;

template <class Stream, class T>
Case forward(const Sizes& s, const PackedBatch& batch) {
  using A = Accumulator<T>;
  const std::int64_t row = s.channels * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t positions = std::min(s.tokens, Sizes::kSequence);
  Case made{
      .family = "embedding",
      .kernel = "embedding_forward",
      .dtype = dtype_name<T>(),
      .shape = {{"T", s.tokens}, {"C", s.channels}},
      .operands = {matrix<T>("y", Access::write, s.tokens, s.channels), matrix<T>("z", Access::write, s.tokens, s.channels),
                   per_row<A>("mean", Access::write, s.tokens), per_row<A>("rstd", Access::write, s.tokens),
                   // A row a token: one that is met again soon may come from a cache, which the mathematics knows nothing of.
                   partly(matrix<T>("words", Access::read, Sizes::kVocabulary, s.channels), s.tokens * row),
                   partly(table<T>("positions", Access::read, Sizes::kPositions, s.channels), positions * row),
                   table<T>("types", Access::read, kTypes, s.channels), array("token", Extent::per_row, batch.token),
                   array("type", Extent::per_row, batch.type), vector<T>("gamma", Access::read, s.channels),
                   vector<T>("beta", Access::read, s.channels)},
      // Two sums, a LayerNorm 8, dropout 1.
      .operations = 11 * s.tokens * s.channels,
      .bind = {}};
  add_dropout(made.operands, batch);
  made.bind = [s](Device& device, const Addresses& at) -> Call {
    const EmbeddingForward<T> args{.y = at.get<T>("y"),
                                   .z = at.get<T>("z"),
                                   .mean = at.get<A>("mean"),
                                   .rstd = at.get<A>("rstd"),
                                   .words = at.get<T>("words"),
                                   .positions = at.get<T>("positions"),
                                   .types = at.get<T>("types"),
                                   .token = at.get<std::int32_t>("token"),
                                   .position = at.get<std::int32_t>("position"),
                                   .type = at.get<std::int32_t>("type"),
                                   .gamma = at.get<T>("gamma"),
                                   .beta = at.get<T>("beta"),
                                   .dropout = dropout_at(at),
                                   .epsilon = 1e-12,
                                   .tokens = s.tokens,
                                   .channels = s.channels};
    return [stream = stream_of<Stream>(device), args] { embedding_forward(stream, args); };
  };
  return made;
}

template <class Stream, class T>
Case norm_backward(const Sizes& s, const PackedBatch& batch) {
  using A = Accumulator<T>;
  Case made{
      .family = "embedding",
      .kernel = "embedding_norm_backward",
      .dtype = dtype_name<T>(),
      .shape = {{"T", s.tokens}, {"C", s.channels}},
      .operands = {matrix<T>("d_z", Access::write, s.tokens, s.channels), vector<A>("d_gamma", Access::write, s.channels),
                   vector<A>("d_beta", Access::write, s.channels), matrix<T>("d_y", Access::read, s.tokens, s.channels),
                   matrix<T>("z", Access::read, s.tokens, s.channels), per_row<A>("mean", Access::read, s.tokens),
                   filled(per_row<A>("rstd", Access::read, s.tokens), noise<A>(Sign::positive)),
                   vector<T>("gamma", Access::read, s.channels), scratch(layernorm_backward_workspace<T>(s.tokens, s.channels))},
      // As a LayerNorm's 13, and dropout.
      .operations = 14 * s.tokens * s.channels,
      .bind = {}};
  add_dropout(made.operands, batch);
  made.bind = [s](Device& device, const Addresses& at) -> Call {
    const EmbeddingNormBackward<T> args{.d_z = at.get<T>("d_z"),
                                        .d_gamma = at.get<A>("d_gamma"),
                                        .use_gamma = Use::write,
                                        .d_beta = at.get<A>("d_beta"),
                                        .use_beta = Use::write,
                                        .d_y = at.get<T>("d_y"),
                                        .z = at.get<T>("z"),
                                        .mean = at.get<A>("mean"),
                                        .rstd = at.get<A>("rstd"),
                                        .gamma = at.get<T>("gamma"),
                                        .dropout = dropout_at(at),
                                        .workspace = at.find("workspace"),
                                        .tokens = s.tokens,
                                        .channels = s.channels};
    return [stream = stream_of<Stream>(device), args] { embedding_norm_backward(stream, args); };
  };
  return made;
}

template <class Stream, class T>
Case backward(const Sizes& s, const PackedBatch& batch) {
  using A = Accumulator<T>;
  const std::int64_t segments = std::ssize(batch.segment_row);
  const std::int64_t splits = std::ssize(batch.split_start) - 1;
  const std::int64_t sequences = std::ssize(batch.cu_seqlens) - 1;
  return {
      .family = "embedding",
      .kernel = "embedding_backward",
      .dtype = dtype_name<T>(),
      .shape = {{"T", s.tokens}, {"C", s.channels}},
      // The tied decoder has written the words' gradient: rows that occur are added to.
      .operands = {partly(matrix<A>("d_words", Access::update, Sizes::kVocabulary, s.channels),
                          segments * s.channels * static_cast<std::int64_t>(sizeof(A))),
                   table<A>("d_positions", Access::write, Sizes::kPositions, s.channels),
                   table<A>("d_types", Access::write, kTypes, s.channels), matrix<T>("d_z", Access::read, s.tokens, s.channels),
                   array("order", Extent::per_row, batch.order), array("split_start", Extent::per_row, batch.split_start),
                   array("segment_split", Extent::per_row, batch.segment_split),
                   array("segment_row", Extent::per_row, batch.segment_row),
                   array("cu_seqlens", Extent::per_row, batch.cu_seqlens), array("type", Extent::per_row, batch.type),
                   scratch(embedding_backward_workspace<T>(s.tokens, splits, s.channels, kTypes))},
      // A sum each for words, positions and types.
      .operations = 3 * s.tokens * s.channels,
      .bind = [s, segments, splits, sequences](Device& device, const Addresses& at) -> Call {
        const EmbeddingBackward<T> args{.d_words = at.get<A>("d_words"),
                                        .use_words = Use::add,
                                        .d_positions = at.get<A>("d_positions"),
                                        .use_positions = Use::write,
                                        .d_types = at.get<A>("d_types"),
                                        .use_types = Use::write,
                                        .d_z = at.get<T>("d_z"),
                                        .segments = {.order = at.get<std::int32_t>("order"),
                                                     .split_start = at.get<std::int32_t>("split_start"),
                                                     .segment_split = at.get<std::int32_t>("segment_split"),
                                                     .segment_row = at.get<std::int32_t>("segment_row"),
                                                     .splits = splits,
                                                     .segments = segments},
                                        .cu_seqlens = at.get<std::int32_t>("cu_seqlens"),
                                        .type = at.get<std::int32_t>("type"),
                                        .first_position = 0,
                                        .workspace = at.find("workspace"),
                                        .tokens = s.tokens,
                                        .sequences = sequences,
                                        .channels = s.channels,
                                        .vocabulary = Sizes::kVocabulary,
                                        .positions = Sizes::kPositions,
                                        .types = kTypes};
        return [stream = stream_of<Stream>(device), args] { embedding_backward(stream, args); };
      }};
}

}  // namespace

std::vector<Case> embedding_cases(DeviceKind kind, const Sizes& sizes) {
  const PackedBatch batch = make_batch(sizes);
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    list.push_back(forward<Stream, T>(sizes, batch));
    list.push_back(norm_backward<Stream, T>(sizes, batch));
    list.push_back(backward<Stream, T>(sizes, batch));
  });
}

}  // namespace lathe::bench
