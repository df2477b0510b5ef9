// Matrix products and attention.
#include <algorithm>
#include <iterator>
#include <type_traits>

#include "benchmarks/lengths.h"
#include "benchmarks/operands.h"
#include "lathe/kernels/attention.h"
#include "lathe/kernels/matmul.h"

namespace lathe::bench {
namespace {

/// Products of a layer's first feed-forward matrix, which are a BERT's largest: y = x W^T + b, d_x = d_y W, d_W = d_y^T x.
enum class Product : std::uint8_t { forward, d_input, d_weight };

/// Whether a backend multiplies matrices.
template <class Stream, class T>
concept Multiplies = requires(Stream stream, const Matmul<T>& args) {
  matmul(stream, args);
};

template <class Stream, class T>
Matmul<T> arguments(const Sizes& s, Product product, T* c, const T* a, const T* b, const T* bias) {
  const std::int64_t f = s.feed_forward();
  Matmul<T> args{.c = c,
                 .a = a,
                 .b = b,
                 .bias = bias,
                 .use = Use::write,
                 .transpose_a = Transpose::no,
                 .transpose_b = Transpose::yes,
                 .m = s.tokens,
                 .n = f,
                 .k = s.channels,
                 .lda = s.channels,
                 .ldb = s.channels,
                 .ldc = f,
                 .workspace = nullptr};
  if (product == Product::d_input) {
    args.transpose_b = Transpose::no;
    args.n = args.ldb = args.ldc = s.channels;
    args.k = args.lda = f;
  } else if (product == Product::d_weight) {
    args.transpose_a = Transpose::yes;
    args.transpose_b = Transpose::no;
    args.m = args.lda = f;
    args.n = args.ldb = args.ldc = s.channels;
    args.k = s.tokens;
  }
  return args;
}

template <class Stream, class T>
Case product_case(const Sizes& s, Product product) {
  const bool biased = product == Product::forward;
  const Matmul<T> shape = arguments<Stream, T>(s, product, nullptr, nullptr, nullptr, nullptr);
  Case made{.family = "matmul",
            .kernel = biased                        ? "matmul"
                      : product == Product::d_input ? "matmul (d_input)"
                                                    : "matmul (d_weight)",
            .dtype = dtype_name<T>(),
            .shape = {{"M", shape.m}, {"N", shape.n}, {"K", shape.k}},
            .operands = {matrix<T>("c", Access::write, shape.m, shape.n), matrix<T>("a", Access::read, shape.m, shape.k),
                         matrix<T>("b", Access::read, shape.k, shape.n)},
            .operations = 2 * shape.m * shape.n * shape.k + (biased ? shape.m * shape.n : 0),
            .bind = [s, product, biased](Device& device, const Addresses& at) -> Call {
              const auto stream = stream_of<Stream>(device);
              Matmul<T> args = arguments<Stream, T>(s, product, at.get<T>("c"), at.get<T>("a"), at.get<T>("b"),
                                                    biased ? at.get<T>("bias") : nullptr);
              const auto workspace = std::make_shared<Workspace>(device, matmul_workspace(stream, args));
              args.workspace = workspace->data();
              return [stream, args, workspace] { matmul(stream, args); };
            }};
  if (biased) made.operands.push_back(vector<T>("bias", Access::read, shape.n));
  return made;
}

/// Of the lengths that real sequences have, rather than all of one.
enum class Lengths : std::uint8_t { equal, wiki };

/// What attention of a batch is measured with: a merged QKV matrix [T, 3C], heads of 64.
struct AttentionSizes {
  Sizes sizes;
  Lengths lengths;
  std::int64_t sequence;  ///< the longest; where they are equal the last one has the rest
  double dropout;

  PackedBatch batch() const {
    return lengths == Lengths::equal ? make_batch(sizes, sequence) : make_batch(wiki_lengths().fill(sizes.tokens));
  }
  std::vector<std::pair<std::string, std::int64_t>> shape() const {
    return {{"T", sizes.tokens}, {"C", sizes.channels}, {"S", sequence}};
  }
  /// "attention_forward (wiki lengths, dropout)".
  std::string kernel(const std::string& name) const {
    if (lengths == Lengths::wiki) return name + (dropout > 0.0 ? " (wiki lengths, dropout)" : " (wiki lengths)");
    return dropout > 0.0 ? name + " (dropout)" : name;
  }
};

template <class T>
AttentionForward<T> attention_arguments(const Sizes& s, const PackedBatch& batch, const Addresses& at) {
  const T* qkv = at.get<T>("qkv");
  return {.out = at.get<T>("out"),
          .lse = at.get<Accumulator<T>>("lse"),
          .q = qkv,
          .k = qkv + s.channels,
          .v = qkv + 2 * s.channels,
          .q_stride = 3 * s.channels,
          .k_stride = 3 * s.channels,
          .v_stride = 3 * s.channels,
          .cu_q = at.get<std::int32_t>("cu_seqlens"),
          .cu_k = at.get<std::int32_t>("cu_seqlens"),
          .query_tiles = {},
          .dropout = {},
          .mask = AttentionMask::full,
          .scale = 0.125,
          .queries = s.tokens,
          .keys = s.tokens,
          .sequences = std::ssize(batch.cu_seqlens) - 1,
          .heads = s.heads(),
          .head_size = 64};
}

/// Tiles of queries as CUDA's kernels take them.
constexpr std::int64_t kTileRows = 128;
struct TileLists {
  std::vector<std::int32_t> sequence, first;
  explicit TileLists(const PackedBatch& batch) {
    for (std::size_t b = 0; b + 1 < batch.cu_seqlens.size(); ++b) {
      for (std::int32_t row = 0; row < batch.cu_seqlens[b + 1] - batch.cu_seqlens[b];
           row += static_cast<std::int32_t>(kTileRows)) {
        sequence.push_back(static_cast<std::int32_t>(b));
        first.push_back(row);
      }
    }
  }
};

/// Pairs of a query and a key.
std::int64_t scores(const PackedBatch& batch) {
  std::int64_t sum = 0;
  for (std::size_t b = 0; b + 1 < batch.cu_seqlens.size(); ++b) {
    const std::int64_t length = batch.cu_seqlens[b + 1] - batch.cu_seqlens[b];
    sum += length * length;
  }
  return sum;
}

template <class Stream, class T>
Case attention_forward_case(const AttentionSizes& of) {
  using A = Accumulator<T>;
  const Sizes& s = of.sizes;
  const PackedBatch batch = of.batch();
  const TileLists tiles(batch);
  Case made{
      .family = "attention",
      .kernel = of.kernel("attention_forward"),
      .dtype = dtype_name<T>(),
      .shape = of.shape(),
      .operands = {matrix<T>("out", Access::write, s.tokens, s.channels), per_row<A>("lse", Access::write, s.tokens * s.heads()),
                   matrix<T>("qkv", Access::read, s.tokens, 3 * s.channels),
                   array("cu_seqlens", Extent::vector, batch.cu_seqlens)},
      // Two products; the softmax between them isn't counted.
      .operations = 4 * scores(batch) * s.channels,
      .bind = [of, batch, count = std::ssize(tiles.first)](Device& device, const Addresses& at) -> Call {
        AttentionForward<T> args = attention_arguments<T>(of.sizes, batch, at);
        if constexpr (!std::is_same_v<Stream, CpuStream>) {
          args.query_tiles = {.sequence = at.get<std::int32_t>("tile_sequence"),
                              .first = at.get<std::int32_t>("tile_first"),
                              .count = count,
                              .rows = kTileRows};
        }
        if (of.dropout > 0.0) {
          args.dropout = {.key = at.get<RandomKey>("key"),
                          .sample = at.get<std::int32_t>("sample"),
                          .layer = 3,
                          .threshold = dropout_threshold(of.dropout)};
        }
        return [stream = stream_of<Stream>(device), args] { attention_forward(stream, args); };
      }};
  if constexpr (!std::is_same_v<Stream, CpuStream>) {
    made.operands.push_back(array("tile_sequence", Extent::vector, tiles.sequence));
    made.operands.push_back(array("tile_first", Extent::vector, tiles.first));
  }
  if (of.dropout > 0.0) {
    made.operands.push_back(array("key", Extent::vector, std::vector<RandomKey>{{.seed = 42, .step = 7}}));
    made.operands.push_back(array("sample", Extent::vector, batch.sequence_sample));
  }
  return made;
}

template <class Stream, class T>
Case attention_backward_case(const AttentionSizes& of) {
  using A = Accumulator<T>;
  const Sizes& s = of.sizes;
  const PackedBatch batch = of.batch();
  const TileLists tiles(batch);
  const std::int64_t splits = attention_splits(batch.max_length, batch.key_tile_rows);
  Case made{
      .family = "attention",
      .kernel = of.kernel("attention_backward"),
      .dtype = dtype_name<T>(),
      .shape = of.shape(),
      .operands = {matrix<T>("d_qkv", Access::write, s.tokens, 3 * s.channels),
                   matrix<T>("d_out", Access::read, s.tokens, s.channels), matrix<T>("out", Access::read, s.tokens, s.channels),
                   filled(per_row<A>("lse", Access::read, s.tokens * s.heads()),
                          values(std::vector<A>(static_cast<std::size_t>(s.tokens * s.heads()), A{20}))),
                   matrix<T>("qkv", Access::read, s.tokens, 3 * s.channels),
                   array("cu_seqlens", Extent::vector, batch.cu_seqlens),
                   scratch(attention_backward_workspace<T>(s.tokens, s.heads(), 64, batch.key_tile_rows, splits))},
      // Five products.
      .operations = 10 * scores(batch) * s.channels,
      .bind = [of, batch, splits, count = std::ssize(tiles.first)](Device& device, const Addresses& at) -> Call {
        const std::int64_t channels = of.sizes.channels;
        T* const d_qkv = at.get<T>("d_qkv");
        const AttentionForward<T> forward = attention_arguments<T>(of.sizes, batch, at);
        AttentionBackward<T> args{.d_q = d_qkv,
                                  .use_q = Use::write,
                                  .d_k = d_qkv + channels,
                                  .use_k = Use::write,
                                  .d_v = d_qkv + 2 * channels,
                                  .use_v = Use::write,
                                  .d_q_stride = 3 * channels,
                                  .d_k_stride = 3 * channels,
                                  .d_v_stride = 3 * channels,
                                  .d_out = at.get<T>("d_out"),
                                  .out = forward.out,
                                  .lse = forward.lse,
                                  .q = forward.q,
                                  .k = forward.k,
                                  .v = forward.v,
                                  .q_stride = forward.q_stride,
                                  .k_stride = forward.k_stride,
                                  .v_stride = forward.v_stride,
                                  .cu_q = forward.cu_q,
                                  .cu_k = forward.cu_k,
                                  .query_tiles = {},
                                  .key_tiles = {},
                                  .splits = splits,
                                  .dropout = {},
                                  .mask = forward.mask,
                                  .scale = forward.scale,
                                  .workspace = at.find("workspace"),
                                  .queries = forward.queries,
                                  .keys = forward.keys,
                                  .sequences = forward.sequences,
                                  .heads = forward.heads,
                                  .head_size = forward.head_size};
        if constexpr (!std::is_same_v<Stream, CpuStream>) {
          args.query_tiles = {.sequence = at.get<std::int32_t>("tile_sequence"),
                              .first = at.get<std::int32_t>("tile_first"),
                              .count = count,
                              .rows = kTileRows};
          args.key_tiles = {.sequence = at.get<std::int32_t>("key_tile_sequence"),
                            .first = at.get<std::int32_t>("key_tile_first"),
                            .count = std::ssize(batch.key_tile_first),
                            .rows = batch.key_tile_rows};
        }
        if (of.dropout > 0.0) {
          args.dropout = {.key = at.get<RandomKey>("key"),
                          .sample = at.get<std::int32_t>("sample"),
                          .layer = 3,
                          .threshold = dropout_threshold(of.dropout)};
        }
        return [stream = stream_of<Stream>(device), args] { attention_backward(stream, args); };
      }};
  if constexpr (!std::is_same_v<Stream, CpuStream>) {
    made.operands.push_back(array("tile_sequence", Extent::vector, tiles.sequence));
    made.operands.push_back(array("tile_first", Extent::vector, tiles.first));
    made.operands.push_back(array("key_tile_sequence", Extent::vector, batch.key_tile_sequence));
    made.operands.push_back(array("key_tile_first", Extent::vector, batch.key_tile_first));
  }
  if (of.dropout > 0.0) {
    made.operands.push_back(array("key", Extent::vector, std::vector<RandomKey>{{.seed = 42, .step = 7}}));
    made.operands.push_back(array("sample", Extent::vector, batch.sequence_sample));
  }
  return made;
}

}  // namespace

std::vector<Case> matmul_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    if constexpr (Multiplies<Stream, T>) {
      for (const Product product : {Product::forward, Product::d_input, Product::d_weight})
        list.push_back(product_case<Stream, T>(sizes, product));
    }
  });
}

// Sequences of 128, of 512, which is what attention takes most of in a BERT, and of the lengths that a Wikipedia's lines have.
std::vector<Case> attention_cases(DeviceKind kind, const Sizes& sizes) {
  std::vector<AttentionSizes> list = {
      {.sizes = sizes, .lengths = Lengths::equal, .sequence = Sizes::kSequence, .dropout = 0.0},
      {.sizes = sizes, .lengths = Lengths::equal, .sequence = Sizes::kLongSequence, .dropout = 0.0},
      {.sizes = sizes,
       .lengths = Lengths::wiki,
       .sequence = std::ranges::max(wiki_lengths().fill(sizes.tokens)),
       .dropout = 0.0}};
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& cases) {
    for (AttentionSizes& of : list) {
      for (const double dropout : {0.0, 0.1}) {
        of.dropout = dropout;
        cases.push_back(attention_forward_case<Stream, T>(of));
        cases.push_back(attention_backward_case<Stream, T>(of));
      }
    }
  });
}

}  // namespace lathe::bench
