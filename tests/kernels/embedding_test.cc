#include "lathe/kernels/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <span>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class T>
class EmbeddingKernel : public ::testing::Test {};
TYPED_TEST_SUITE(EmbeddingKernel, Cases, CaseNames);

constexpr std::int64_t kVocabulary = 50;
constexpr std::int64_t kPositions = 40;
constexpr std::int64_t kTypes = 2;

/// A packed batch. Token 7 is frequent, so that its segment has several splits.
struct Packed {
  std::vector<std::int32_t> cu_seqlens{0};
  std::vector<std::int32_t> token, position, type, sample;
  std::int64_t tokens = 0;

  Packed(std::int64_t at_least, std::int32_t first_position, std::mt19937& random) {
    std::int32_t sequence = 0;
    while (tokens < at_least) {
      const auto length = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(kPositions - first_position + 1));
      for (std::int64_t i = 0; i < length; ++i) {
        token.push_back(random() % 2 == 0 ? 7 : static_cast<std::int32_t>(random() % kVocabulary));
        position.push_back(first_position + static_cast<std::int32_t>(i));
        type.push_back(i * 3 > length ? 1 : 0);
        sample.push_back(100 + 3 * sequence);
      }
      tokens += length;
      ++sequence;
      cu_seqlens.push_back(static_cast<std::int32_t>(tokens));
    }
  }

  Dropout dropout(const RandomKey& key, std::uint32_t site, double p) const {
    return {.key = &key, .sample = sample.data(), .position = position.data(), .site = site, .threshold = dropout_threshold(p)};
  }
};

/// As the loader makes it: sorted by id, then by t; split; padded by empty splits and segments without a row.
struct Segments {
  std::vector<std::int32_t> order, split_start{0}, segment_split{0}, segment_row;

  explicit Segments(const std::vector<std::int32_t>& token) {
    for (std::size_t t = 0; t < token.size(); ++t) order.push_back(static_cast<std::int32_t>(t));
    std::stable_sort(order.begin(), order.end(), [&token](std::int32_t a, std::int32_t b) {
      return token[static_cast<std::size_t>(a)] < token[static_cast<std::size_t>(b)];
    });
    for (std::size_t begin = 0; begin < order.size();) {
      const std::int32_t row = token[static_cast<std::size_t>(order[begin])];
      std::size_t end = begin;
      while (end < order.size() && token[static_cast<std::size_t>(order[end])] == row) ++end;
      for (; begin < end; begin = std::min(end, begin + kEmbeddingSplit)) {
        split_start.push_back(static_cast<std::int32_t>(std::min(end, begin + kEmbeddingSplit)));
      }
      segment_row.push_back(row);
      segment_split.push_back(static_cast<std::int32_t>(split_start.size() - 1));
    }
    for (int padding = 0; padding < 3; ++padding) {
      split_start.push_back(split_start.back());
      segment_row.push_back(-1);
      segment_split.push_back(static_cast<std::int32_t>(split_start.size() - 1));
    }
  }

  std::int64_t splits() const { return static_cast<std::int64_t>(split_start.size()) - 1; }
};

/// Segments where a stream's kernels can read them.
template <class Stream>
class SegmentArguments {
 public:
  explicit SegmentArguments(const Segments& segments)
      : order_(segments.order),
        split_start_(segments.split_start),
        segment_split_(segments.segment_split),
        segment_row_(segments.segment_row) {}
  EmbeddingSegments get() {
    return {.order = order_.data(),
            .split_start = split_start_.data(),
            .segment_split = segment_split_.data(),
            .segment_row = segment_row_.data(),
            .splits = split_start_.size() - 1,
            .segments = segment_row_.size()};
  }

 private:
  Buffer<std::int32_t, Stream> order_, split_start_, segment_split_, segment_row_;
};

enum class Norm : std::uint8_t { none, layer };
enum class Tables : std::uint8_t { words, words_and_positions, all };

template <class T>
struct Model {
  std::int64_t channels;
  std::vector<T> words, positions, types, gamma, beta;

  Model(std::int64_t channels_, unsigned seed)
      : channels(channels_),
        words(random_values<T>(kVocabulary * channels, seed)),
        positions(random_values<T>(kPositions * channels, seed + 1)),
        types(random_values<T>(kTypes * channels, seed + 2)),
        gamma(random_values<T>(channels, seed + 3)),
        beta(random_values<T>(channels, seed + 4)) {}
};

template <class F>
struct Forward {
  std::vector<F> y, z, mean, rstd;
};

/// The contract's formulas, in F.
template <class F, class T>
Forward<F> forward_by_definition(const Model<T>& model, const Packed& batch, Tables tables, Norm norm, const Dropout& dropout,
                                 double epsilon) {
  Forward<F> out;
  const auto channels = static_cast<std::size_t>(model.channels);
  const auto at = [channels](const std::vector<T>& table, std::int32_t row, std::size_t c) {
    return static_cast<F>(table[static_cast<std::size_t>(row) * channels + c]);
  };
  for (std::size_t t = 0; t < batch.token.size(); ++t) {
    F sum = 0;
    for (std::size_t c = 0; c < channels; ++c) {
      F z = at(model.words, batch.token[t], c);
      if (tables != Tables::words) z += at(model.positions, batch.position[t], c);
      if (tables == Tables::all) z += at(model.types, batch.type[t], c);
      sum += z;
      out.z.push_back(z);
    }
    const F mean = sum / static_cast<F>(channels);
    F squares = 0;
    for (std::size_t c = 0; c < channels; ++c) squares += (out.z[t * channels + c] - mean) * (out.z[t * channels + c] - mean);
    const F rstd = 1 / std::sqrt(squares / static_cast<F>(channels) + static_cast<F>(epsilon));
    for (std::size_t c = 0; c < channels; ++c) {
      const F z = out.z[t * channels + c];
      const F normed =
          norm == Norm::none ? z : static_cast<F>(model.gamma[c]) * (z - mean) * rstd + static_cast<F>(model.beta[c]);
      out.y.push_back(normed * dropout_multiplier<F>(dropout, static_cast<std::int64_t>(t), static_cast<std::int64_t>(c)));
    }
    out.mean.push_back(mean);
    out.rstd.push_back(rstd);
  }
  return out;
}

/// Batches and widths that are awkward; 131 columns and 300 tokens are shared between threads.
struct Size {
  std::int64_t tokens, channels;
};
constexpr Size kSizes[] = {{0, 8}, {1, 1}, {5, 3}, {70, 8}, {70, 129}, {150, 131}, {150, 384}, {40, 1024}, {20, 1032}};

TYPED_TEST(EmbeddingKernel, ForwardIsExactEnough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  std::mt19937 random(1);
  const RandomKey key{.seed = 11, .step = 5};
  for (const Size size : kSizes) {
    const std::int64_t channels = size.channels;
    const Packed batch(size.tokens, 2, random);
    const std::int64_t tokens = batch.tokens;
    const Model<T> model(channels, 20);
    for (const Tables tables : {Tables::words, Tables::words_and_positions, Tables::all}) {
      for (const Norm norm : {Norm::none, Norm::layer}) {
        for (const double p : {0.0, 0.1}) {
          SCOPED_TRACE(::testing::Message() << tokens << " x " << channels << ", p " << p
                                            << (norm == Norm::none ? ", no norm" : "") << ", tables "
                                            << static_cast<int>(tables));
          Dropout dropout;
          if (p > 0) dropout = batch.dropout(key, 3, p);
          const double epsilon = 1e-12;
          const auto exact = forward_by_definition<Reference<T>>(model, batch, tables, norm, dropout, epsilon);
          const auto plain = forward_by_definition<Plain<T>>(model, batch, tables, norm, dropout, epsilon);
          on_every_way<Stream>(
              [&](Stream stream) {
                const Buffer<T, Stream> words(model.words);
                const Buffer<T, Stream> positions(model.positions);
                const Buffer<T, Stream> types(model.types);
                const Buffer<T, Stream> gamma(model.gamma);
                const Buffer<T, Stream> beta(model.beta);
                const Buffer<std::int32_t, Stream> token(batch.token);
                const Buffer<std::int32_t, Stream> position(batch.position);
                const Buffer<std::int32_t, Stream> type(batch.type);
                DropoutArguments<Stream> drops(dropout, tokens);
                Buffer<T, Stream> y(tokens * channels);
                Buffer<T, Stream> z(tokens * channels);
                Buffer<A, Stream> mean(tokens);
                Buffer<A, Stream> rstd(tokens);
                const bool normalises = norm == Norm::layer;
                embedding_forward(stream, EmbeddingForward<T>{.y = y.data(),
                                                              .z = normalises ? z.data() : nullptr,
                                                              .mean = normalises ? mean.data() : nullptr,
                                                              .rstd = normalises ? rstd.data() : nullptr,
                                                              .words = words.data(),
                                                              .positions = tables == Tables::words ? nullptr : positions.data(),
                                                              .types = tables == Tables::all ? types.data() : nullptr,
                                                              .token = token.data(),
                                                              .position = position.data(),
                                                              .type = type.data(),
                                                              .gamma = normalises ? gamma.data() : nullptr,
                                                              .beta = normalises ? beta.data() : nullptr,
                                                              .dropout = drops.get(),
                                                              .epsilon = epsilon,
                                                              .tokens = tokens,
                                                              .channels = channels});
                Outputs outputs;
                outputs.add("y", y.values("y"));
                if (normalises) {
                  outputs.add("z", z.values("z"));
                  outputs.add("mean", mean.values("mean"));
                  outputs.add("rstd", rstd.values("rstd"));
                }
                return outputs;
              },
              [&](const Outputs& outputs) {
                expect_accurate<T>("y", outputs.get<T>("y"), plain.y, exact.y);
                if (norm == Norm::none) return;
                expect_accurate<T>("z", outputs.get<T>("z"), plain.z, exact.z);
                expect_accurate<A>("mean", outputs.get<A>("mean"), plain.mean, exact.mean);
                expect_accurate<A>("rstd", outputs.get<A>("rstd"), plain.rstd, exact.rstd);
              });
        }
      }
    }
  }
}

template <class F>
struct NormGradients {
  std::vector<F> d_z, d_gamma, d_beta;
};

template <class F, class T>
NormGradients<F> norm_backward_by_definition(std::int64_t tokens, std::int64_t channels_, const std::vector<T>& d_y,
                                             const std::vector<T>& z, const std::vector<Accumulator<T>>& mean,
                                             const std::vector<Accumulator<T>>& rstd, const std::vector<T>& gamma, Norm norm,
                                             const Dropout& dropout, const std::vector<Accumulator<T>>& before) {
  const auto channels = static_cast<std::size_t>(channels_);
  NormGradients<F> out{{}, std::vector<F>(channels, 0), std::vector<F>(channels, 0)};
  for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
    std::vector<F> d(channels);
    F mean_g = 0;
    F mean_gn = 0;
    const auto n = [&](std::size_t c) {
      return (static_cast<F>(z[t * channels + c]) - static_cast<F>(mean[t])) * static_cast<F>(rstd[t]);
    };
    for (std::size_t c = 0; c < channels; ++c) {
      d[c] = static_cast<F>(d_y[t * channels + c]) *
             dropout_multiplier<F>(dropout, static_cast<std::int64_t>(t), static_cast<std::int64_t>(c));
      if (norm == Norm::none) continue;
      mean_g += d[c] * static_cast<F>(gamma[c]) / static_cast<F>(channels);
      mean_gn += d[c] * static_cast<F>(gamma[c]) * n(c) / static_cast<F>(channels);
      out.d_gamma[c] += d[c] * n(c);
      out.d_beta[c] += d[c];
    }
    for (std::size_t c = 0; c < channels; ++c) {
      out.d_z.push_back(
          norm == Norm::none ? d[c] : static_cast<F>(rstd[t]) * (d[c] * static_cast<F>(gamma[c]) - mean_g - n(c) * mean_gn));
    }
  }
  for (std::size_t c = 0; c < channels && !before.empty(); ++c) {
    out.d_gamma[c] += static_cast<F>(before[c]);
    out.d_beta[c] += static_cast<F>(before[c]);
  }
  return out;
}

TYPED_TEST(EmbeddingKernel, NormBackwardIsExactEnough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  std::mt19937 random(2);
  const RandomKey key{.seed = 1, .step = 2};
  for (const Size size : kSizes) {
    const std::int64_t channels = size.channels;
    if (channels == 1) continue;  // of one column every d_z is 0, and its rounding has no scale
    const Packed batch(size.tokens, 0, random);
    const std::int64_t tokens = batch.tokens;
    const std::vector<T> d_y = random_values<T>(tokens * channels, 1);
    const std::vector<T> z = random_values<T>(tokens * channels, 2);
    const std::vector<A> mean = random_values<A>(tokens, 3, 0.0, 0.1);
    const std::vector<A> rstd = random_values<A>(tokens, 4, 1.0, 0.1);
    const std::vector<T> gamma = random_values<T>(channels, 5);
    const std::vector<A> before = random_values<A>(channels, 6);
    for (const Norm norm : {Norm::none, Norm::layer}) {
      for (const double p : {0.0, 0.1}) {
        for (const Use use : {Use::skip, Use::write, Use::add}) {
          SCOPED_TRACE(::testing::Message() << tokens << " x " << channels << ", p " << p
                                            << (norm == Norm::none ? ", no norm, " : ", ") << use_name(use));
          Dropout dropout;
          if (p > 0) dropout = batch.dropout(key, 1, p);
          const std::vector<A> start = use == Use::add ? before : std::vector<A>{};
          const auto exact =
              norm_backward_by_definition<Reference<T>>(tokens, channels, d_y, z, mean, rstd, gamma, norm, dropout, start);
          const auto plain =
              norm_backward_by_definition<Plain<T>>(tokens, channels, d_y, z, mean, rstd, gamma, norm, dropout, start);
          on_every_way<Stream>(
              [&](Stream stream) {
                Outputs outputs;
                for (const bool in_place : {false, true}) {
                  const std::string where = in_place ? ", in place" : "";
                  const bool normalises = norm == Norm::layer;
                  Buffer<T, Stream> upstream(d_y);
                  Buffer<T, Stream> own(tokens * channels);
                  Buffer<T, Stream>& d_z = in_place ? upstream : own;
                  Buffer<A, Stream> d_gamma = use == Use::add ? Buffer<A, Stream>(before) : Buffer<A, Stream>(channels);
                  Buffer<A, Stream> d_beta = use == Use::add ? Buffer<A, Stream>(before) : Buffer<A, Stream>(channels);
                  const Buffer<T, Stream> z_buffer(z);
                  const Buffer<A, Stream> mean_buffer(mean);
                  const Buffer<A, Stream> rstd_buffer(rstd);
                  const Buffer<T, Stream> gamma_buffer(gamma);
                  DropoutArguments<Stream> drops(dropout, tokens);
                  Workspace<Stream> workspace(layernorm_backward_workspace<T>(tokens, channels));
                  embedding_norm_backward(stream, EmbeddingNormBackward<T>{.d_z = d_z.data(),
                                                                           .d_gamma = use == Use::skip ? nullptr : d_gamma.data(),
                                                                           .use_gamma = use,
                                                                           .d_beta = use == Use::skip ? nullptr : d_beta.data(),
                                                                           .use_beta = use,
                                                                           .d_y = upstream.data(),
                                                                           .z = normalises ? z_buffer.data() : nullptr,
                                                                           .mean = normalises ? mean_buffer.data() : nullptr,
                                                                           .rstd = normalises ? rstd_buffer.data() : nullptr,
                                                                           .gamma = normalises ? gamma_buffer.data() : nullptr,
                                                                           .dropout = drops.get(),
                                                                           .workspace = workspace.data(),
                                                                           .tokens = tokens,
                                                                           .channels = channels});
                  workspace.expect_intact();
                  outputs.add("d_z" + where, d_z.values("d_z" + where));
                  if (normalises && use != Use::skip) {
                    outputs.add("d_gamma" + where, d_gamma.values("d_gamma"));
                    outputs.add("d_beta" + where, d_beta.values("d_beta"));
                  }
                }
                return outputs;
              },
              [&](const Outputs& outputs) {
                for (const char* const where : {"", ", in place"}) {
                  const auto named = [where](const char* what) { return std::string(what) + where; };
                  expect_accurate<T>(named("d_z"), outputs.get<T>(named("d_z")), plain.d_z, exact.d_z);
                  if (norm == Norm::none || use == Use::skip) continue;
                  expect_accurate<A>(named("d_gamma"), outputs.get<A>(named("d_gamma")), plain.d_gamma, exact.d_gamma);
                  expect_accurate<A>(named("d_beta"), outputs.get<A>(named("d_beta")), plain.d_beta, exact.d_beta);
                }
              });
        }
      }
    }
  }
}

/// table[row(t), :] += d_z[t, :] over t, in F.
template <class F, class T>
std::vector<F> scatter(std::int64_t rows, std::int64_t channels, const std::vector<T>& d_z, const std::vector<std::int32_t>& row,
                       const std::vector<Accumulator<T>>& before) {
  std::vector<F> table(before.size());
  std::ranges::transform(before, table.begin(), [](Accumulator<T> value) { return static_cast<F>(value); });
  table.resize(static_cast<std::size_t>(rows * channels), 0);
  for (std::size_t i = 0; i < d_z.size(); ++i) {
    const std::size_t t = i / static_cast<std::size_t>(channels);
    table[static_cast<std::size_t>(row[t] * channels) + i % static_cast<std::size_t>(channels)] += static_cast<F>(d_z[i]);
  }
  return table;
}

/// A table's gradient, and what it was before.
template <class T>
struct Table {
  const char* name;
  std::int64_t rows;
  const std::vector<std::int32_t>* row;  ///< of each token
  std::vector<Accumulator<T>> before;
};

template <class Stream, class T>
Outputs run_backward(Stream stream, const Packed& batch, const Segments& segments, std::int64_t channels,
                     std::int32_t first_position, const std::vector<T>& d_z, const std::array<Table<T>, 3>& tables,
                     const std::array<Use, 3>& use) {
  using A = Accumulator<T>;
  const auto destination = [&](std::size_t i) {
    return use[i] == Use::add ? Buffer<A, Stream>(tables[i].before) : Buffer<A, Stream>(tables[i].rows * channels);
  };
  Buffer<A, Stream> d_words = destination(0);
  Buffer<A, Stream> d_positions = destination(1);
  Buffer<A, Stream> d_types = destination(2);
  const Buffer<T, Stream> gradient(d_z);
  const Buffer<std::int32_t, Stream> cu_seqlens(batch.cu_seqlens);
  const Buffer<std::int32_t, Stream> type(batch.type);
  SegmentArguments<Stream> lists(segments);
  Workspace<Stream> workspace(embedding_backward_workspace<T>(batch.tokens, segments.splits(), channels, tables[2].rows));
  embedding_backward(stream, EmbeddingBackward<T>{.d_words = use[0] == Use::skip ? nullptr : d_words.data(),
                                                  .use_words = use[0],
                                                  .d_positions = use[1] == Use::skip ? nullptr : d_positions.data(),
                                                  .use_positions = use[1],
                                                  .d_types = use[2] == Use::skip ? nullptr : d_types.data(),
                                                  .use_types = use[2],
                                                  .d_z = gradient.data(),
                                                  .segments = lists.get(),
                                                  .cu_seqlens = cu_seqlens.data(),
                                                  .type = type.data(),
                                                  .first_position = first_position,
                                                  .workspace = workspace.data(),
                                                  .tokens = batch.tokens,
                                                  .sequences = static_cast<std::int64_t>(batch.cu_seqlens.size()) - 1,
                                                  .channels = channels,
                                                  .vocabulary = tables[0].rows,
                                                  .positions = tables[1].rows,
                                                  .types = tables[2].rows});
  workspace.expect_intact();
  Outputs outputs;
  if (use[0] != Use::skip) outputs.add("d_words", d_words.values("d_words"));
  if (use[1] != Use::skip) outputs.add("d_positions", d_positions.values("d_positions"));
  if (use[2] != Use::skip) outputs.add("d_types", d_types.values("d_types"));
  return outputs;
}

TYPED_TEST(EmbeddingKernel, BackwardIsExactEnough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  std::mt19937 random(3);
  for (const Size size : kSizes) {
    const std::int64_t channels = size.channels;
    for (const std::int32_t first_position : {0, 2}) {
      const Packed batch(size.tokens, first_position, random);
      const Segments segments(batch.token);
      const std::vector<T> d_z = random_values<T>(batch.tokens * channels, 1);
      const std::array<Table<T>, 3> tables{
          {{"d_words", kVocabulary, &batch.token, random_values<A>(kVocabulary * channels, 2)},
           {"d_positions", kPositions, &batch.position, random_values<A>(kPositions * channels, 3)},
           {"d_types", kTypes, &batch.type, random_values<A>(kTypes * channels, 4)}}};
      for (const std::array<Use, 3>& use : {std::array{Use::write, Use::write, Use::write},
                                            {Use::add, Use::add, Use::add},
                                            {Use::skip, Use::write, Use::add},
                                            {Use::add, Use::skip, Use::skip}}) {
        SCOPED_TRACE(::testing::Message() << batch.tokens << " x " << channels << ", positions from " << first_position << ", "
                                          << use_name(use[0]) << ", " << use_name(use[1]) << ", " << use_name(use[2]));
        on_every_way<Stream>(
            [&](Stream stream) { return run_backward(stream, batch, segments, channels, first_position, d_z, tables, use); },
            [&](const Outputs& outputs) {
              for (std::size_t i = 0; i < tables.size(); ++i) {
                if (use[i] == Use::skip) continue;
                const Table<T>& table = tables[i];
                const std::vector<A> start = use[i] == Use::add ? table.before : std::vector<A>{};
                expect_accurate<A>(table.name, outputs.get<A>(table.name),
                                   scatter<Plain<T>>(table.rows, channels, d_z, *table.row, start),
                                   scatter<Reference<T>>(table.rows, channels, d_z, *table.row, start));
              }
            });
      }
    }
  }
}

TYPED_TEST(EmbeddingKernel, AnyNumberOfTypesIsSummedWithAndWithoutPositions) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  std::mt19937 random(5);
  for (const std::int64_t types : {1, 3, 6}) {
    Packed batch(100, 0, random);
    for (std::size_t t = 0; t < batch.type.size(); ++t)
      batch.type[t] = static_cast<std::int32_t>(t * t % 7 % static_cast<std::size_t>(types));
    const Segments segments(batch.token);
    for (const std::int64_t channels : {8, 13}) {
      const std::vector<T> d_z = random_values<T>(batch.tokens * channels, 1);
      const std::array<Table<T>, 3> tables{{{"d_words", kVocabulary, &batch.token, {}},
                                            {"d_positions", kPositions, &batch.position, {}},
                                            {"d_types", types, &batch.type, random_values<A>(types * channels, 4)}}};
      for (const Use use_positions : {Use::write, Use::skip}) {
        SCOPED_TRACE(::testing::Message() << types << " types, " << channels << " channels, " << use_name(use_positions));
        const std::array use{Use::skip, use_positions, Use::add};
        on_every_way<Stream>([&](Stream stream) { return run_backward(stream, batch, segments, channels, 0, d_z, tables, use); },
                             [&](const Outputs& outputs) {
                               for (const Table<T>& table : std::span(tables).subspan(use_positions == Use::skip ? 2 : 1)) {
                                 expect_accurate<A>(table.name, outputs.get<A>(table.name),
                                                    scatter<Plain<T>>(table.rows, channels, d_z, *table.row, table.before),
                                                    scatter<Reference<T>>(table.rows, channels, d_z, *table.row, table.before));
                               }
                             });
      }
    }
  }
}

TYPED_TEST(EmbeddingKernel, ALongSegmentIsSummedInSplitsOfABoundedLength) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  using A = Accumulator<T>;
  // 200 tokens of one word: the splits are 64, 64, 64 and 8 long, each summed in order, then they in order.
  const std::vector<std::int32_t> token(200, 7);
  const Segments segments(token);
  ASSERT_EQ(segments.splits(), 4 + 3);
  const std::vector<T> d_z = random_values<T>(200, 4);
  A expected{0};
  for (std::size_t begin = 0; begin < 200; begin += 64) {
    A split{0};
    for (std::size_t t = begin; t < std::min<std::size_t>(200, begin + 64); ++t) split += static_cast<A>(d_z[t]);
    expected += split;
  }
  on_every_way<Stream>(
      [&](Stream stream) {
        Buffer<A, Stream> d_words(std::vector<A>(kVocabulary, A{0}));
        Workspace<Stream> workspace(embedding_backward_workspace<T>(200, segments.splits(), 1, 0));
        const Buffer<T, Stream> gradient(d_z);
        const Buffer<std::int32_t, Stream> cu_seqlens(std::vector<std::int32_t>{0, 200});
        SegmentArguments<Stream> lists(segments);
        embedding_backward(stream, EmbeddingBackward<T>{.d_words = d_words.data(),
                                                        .use_words = Use::add,
                                                        .d_positions = nullptr,
                                                        .use_positions = Use::skip,
                                                        .d_types = nullptr,
                                                        .use_types = Use::skip,
                                                        .d_z = gradient.data(),
                                                        .segments = lists.get(),
                                                        .cu_seqlens = cu_seqlens.data(),
                                                        .type = nullptr,
                                                        .first_position = 0,
                                                        .workspace = workspace.data(),
                                                        .tokens = 200,
                                                        .sequences = 1,
                                                        .channels = 1,
                                                        .vocabulary = kVocabulary,
                                                        .positions = 0,
                                                        .types = 0});
        workspace.expect_intact();
        Outputs outputs;
        outputs.add("d_words", d_words.values("d_words"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        const std::vector<A>& d_words = outputs.get<A>("d_words");
        for (std::size_t row = 0; row < d_words.size(); ++row) EXPECT_EQ(d_words[row], row == 7 ? expected : A{0}) << row;
      });
}

}  // namespace
}  // namespace lathe::test
