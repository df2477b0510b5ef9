#include "lathe/kernels/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/kernels/products_test.h"

namespace lathe::testing {
namespace {

template <class T>
class EmbeddingTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(EmbeddingTest, Types);

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

  EmbeddingSegments view() const {
    return {.order = order.data(),
            .split_start = split_start.data(),
            .segment_split = segment_split.data(),
            .segment_row = segment_row.data(),
            .splits = static_cast<std::int64_t>(split_start.size()) - 1,
            .segments = static_cast<std::int64_t>(segment_row.size())};
  }
};

/// philox.h's definition, one element at a time.
double multiplier(const Dropout& dropout, std::int64_t t, std::int64_t c) {
  if (dropout.threshold == 0) return 1.0;
  const auto words = philox4x32({static_cast<std::uint32_t>(dropout.sample[t]), static_cast<std::uint32_t>(dropout.position[t]),
                                 dropout.site, static_cast<std::uint32_t>(c / 8)},
                                *dropout.key);
  return philox_value(words, static_cast<unsigned>(c % 8)) >= dropout.threshold ? dropout_scale(dropout.threshold) : 0.0;
}

enum class Norm : std::uint8_t { none, layer };
enum class Tables : std::uint8_t { words, words_and_positions, all };

template <class T>
struct Model {
  std::int64_t channels;
  std::vector<T> words, positions, types, gamma, beta;

  Model(std::int64_t channels_, std::mt19937& random)
      : channels(channels_),
        words(normal_values<T>(random, kVocabulary * channels)),
        positions(normal_values<T>(random, kPositions * channels)),
        types(normal_values<T>(random, kTypes * channels)),
        gamma(normal_values<T>(random, channels)),
        beta(normal_values<T>(random, channels)) {}
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
      out.y.push_back(normed * static_cast<F>(multiplier(dropout, static_cast<std::int64_t>(t), static_cast<std::int64_t>(c))));
    }
    out.mean.push_back(mean);
    out.rstd.push_back(rstd);
  }
  return out;
}

std::vector<CpuStream> streams() {
  std::vector<CpuStream> all;
  for (const CpuTarget target : targets()) {
    for (const int threads : {1, 2, 3}) all.push_back({.threads = threads, .target = target, .plans = nullptr});
  }
  return all;
}

/// Batches and widths that are awkward; 131 columns and 300 tokens are shared between threads.
struct Size {
  std::int64_t tokens, channels;
};
constexpr std::array<Size, 7> kSizes{{{0, 8}, {1, 1}, {5, 3}, {70, 8}, {70, 129}, {300, 131}, {300, 384}}};

TYPED_TEST(EmbeddingTest, ForwardIsExactEnough) {
  using T = TypeParam;
  std::mt19937 random(1);
  const RandomKey key{.seed = 11, .step = 5};
  for (const auto [tokens, channels] : kSizes) {
    const Packed batch(tokens, 2, random);
    const Model<T> model(channels, random);
    for (const Tables tables : {Tables::words, Tables::words_and_positions, Tables::all}) {
      for (const Norm norm : {Norm::none, Norm::layer}) {
        for (const double p : {0.0, 0.1}) {
          const Dropout dropout{.key = &key,
                                .sample = batch.sample.data(),
                                .position = batch.position.data(),
                                .site = 3,
                                .threshold = dropout_threshold(p)};
          const double epsilon = 1e-12;
          const auto exact = forward_by_definition<Wide<T>>(model, batch, tables, norm, dropout, epsilon);
          const auto plain = forward_by_definition<T>(model, batch, tables, norm, dropout, epsilon);
          std::array<std::vector<T>, 2> first;
          for (const CpuStream stream : streams()) {
            const std::string name = std::to_string(batch.tokens) + " x " + std::to_string(channels) + ", p " +
                                     std::to_string(p) + (norm == Norm::none ? ", no norm, " : ", ") + name_of(stream);
            Guarded<T> y(batch.tokens * channels);
            Guarded<T> z(batch.tokens * channels);
            Guarded<T> mean(batch.tokens);
            Guarded<T> rstd(batch.tokens);
            embedding_forward(stream, EmbeddingForward<T>{.y = y.data(),
                                                          .z = norm == Norm::none ? nullptr : z.data(),
                                                          .mean = norm == Norm::none ? nullptr : mean.data(),
                                                          .rstd = norm == Norm::none ? nullptr : rstd.data(),
                                                          .words = model.words.data(),
                                                          .positions = tables == Tables::words ? nullptr : model.positions.data(),
                                                          .types = tables == Tables::all ? model.types.data() : nullptr,
                                                          .token = batch.token.data(),
                                                          .position = batch.position.data(),
                                                          .type = batch.type.data(),
                                                          .gamma = norm == Norm::none ? nullptr : model.gamma.data(),
                                                          .beta = norm == Norm::none ? nullptr : model.beta.data(),
                                                          .dropout = dropout,
                                                          .epsilon = epsilon,
                                                          .tokens = batch.tokens,
                                                          .channels = channels});
            for (Guarded<T>* buffer : {&y, &z, &mean, &rstd}) buffer->expect_guards_whole(name);
            expect_exact_enough<T>(y.values(), exact.y, largest_error<T>(plain.y, exact.y), "y, " + name);
            if (norm == Norm::layer) {
              expect_exact_enough<T>(z.values(), exact.z, largest_error<T>(plain.z, exact.z), "z, " + name);
              expect_exact_enough<T>(mean.values(), exact.mean, largest_error<T>(plain.mean, exact.mean), "mean, " + name);
              expect_exact_enough<T>(rstd.values(), exact.rstd, largest_error<T>(plain.rstd, exact.rstd), "rstd, " + name);
            }
            std::vector<T>& reference = first[static_cast<std::size_t>(stream.target)];
            if (stream.threads == 1) reference = y.copy();
            expect_same_bits(reference, y.copy(), name);
          }
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
                                             const std::vector<T>& z, const std::vector<T>& mean, const std::vector<T>& rstd,
                                             const std::vector<T>& gamma, Norm norm, const Dropout& dropout,
                                             const std::vector<T>& before) {
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
             static_cast<F>(multiplier(dropout, static_cast<std::int64_t>(t), static_cast<std::int64_t>(c)));
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

TYPED_TEST(EmbeddingTest, NormBackwardIsExactEnough) {
  using T = TypeParam;
  std::mt19937 random(2);
  const RandomKey key{.seed = 1, .step = 2};
  for (const auto [at_least, channels] : kSizes) {
    if (channels == 1) continue;  // of one column every d_z is 0, and its rounding has no scale
    const Packed batch(at_least, 0, random);
    const std::int64_t tokens = batch.tokens;
    const std::vector<T> d_y = normal_values<T>(random, tokens * channels);
    const std::vector<T> z = normal_values<T>(random, tokens * channels);
    const std::vector<T> mean = normal_values<T>(random, tokens, 0.1);
    const std::vector<T> gamma = normal_values<T>(random, channels);
    const std::vector<T> before = normal_values<T>(random, channels);
    std::vector<T> rstd = normal_values<T>(random, tokens, 0.1);
    for (T& value : rstd) value += T{1};
    for (const Norm norm : {Norm::none, Norm::layer}) {
      for (const double p : {0.0, 0.1}) {
        for (const Use use : {Use::skip, Use::write, Use::add}) {
          const Dropout dropout{.key = &key,
                                .sample = batch.sample.data(),
                                .position = batch.position.data(),
                                .site = 1,
                                .threshold = dropout_threshold(p)};
          const std::vector<T> start = use == Use::add ? before : std::vector<T>{};
          const auto exact =
              norm_backward_by_definition<Wide<T>>(tokens, channels, d_y, z, mean, rstd, gamma, norm, dropout, start);
          const auto plain = norm_backward_by_definition<T>(tokens, channels, d_y, z, mean, rstd, gamma, norm, dropout, start);
          std::array<std::vector<T>, 2> first;
          for (const CpuStream stream : streams()) {
            for (const bool in_place : {false, true}) {
              const std::string name = std::to_string(tokens) + " x " + std::to_string(channels) + ", p " + std::to_string(p) +
                                       (norm == Norm::none ? ", no norm, " : ", ") + name_of(stream);
              Guarded<T> upstream(tokens * channels, d_y);
              Guarded<T> own(tokens * channels);
              Guarded<T>& d_z = in_place ? upstream : own;
              Guarded<T> d_gamma(channels, start);
              Guarded<T> d_beta(channels, start);
              const std::int64_t bytes = layernorm_backward_workspace<T>(tokens, channels);
              Guarded<std::byte> workspace(bytes, 0);
              embedding_norm_backward(stream, EmbeddingNormBackward<T>{.d_z = d_z.data(),
                                                                       .d_gamma = use == Use::skip ? nullptr : d_gamma.data(),
                                                                       .use_gamma = use,
                                                                       .d_beta = use == Use::skip ? nullptr : d_beta.data(),
                                                                       .use_beta = use,
                                                                       .d_y = upstream.data(),
                                                                       .z = norm == Norm::none ? nullptr : z.data(),
                                                                       .mean = norm == Norm::none ? nullptr : mean.data(),
                                                                       .rstd = norm == Norm::none ? nullptr : rstd.data(),
                                                                       .gamma = norm == Norm::none ? nullptr : gamma.data(),
                                                                       .dropout = dropout,
                                                                       .workspace = workspace.data(),
                                                                       .tokens = tokens,
                                                                       .channels = channels});
              for (Guarded<T>* buffer : {&upstream, &own, &d_gamma, &d_beta}) buffer->expect_guards_whole(name);
              workspace.expect_guards_whole("workspace, " + name);
              expect_exact_enough<T>(d_z.values(), exact.d_z, largest_error<T>(plain.d_z, exact.d_z), "d_z, " + name);
              if (norm == Norm::layer && use != Use::skip) {
                expect_exact_enough<T>(d_gamma.values(), exact.d_gamma, largest_error<T>(plain.d_gamma, exact.d_gamma),
                                       "d_gamma, " + name);
                expect_exact_enough<T>(d_beta.values(), exact.d_beta, largest_error<T>(plain.d_beta, exact.d_beta),
                                       "d_beta, " + name);
              }
              std::vector<T> all = d_z.copy();
              for (Guarded<T>* buffer : {&d_gamma, &d_beta}) {
                const std::vector<T> values = buffer->copy();
                all.insert(all.end(), values.begin(), values.end());
              }
              std::vector<T>& reference = first[static_cast<std::size_t>(stream.target)];
              if (stream.threads == 1 && !in_place) reference = all;
              expect_same_bits(reference, all, name);
            }
          }
        }
      }
    }
  }
}

/// table[row(t), :] += d_z[t, :] over t, in F.
template <class F, class T>
std::vector<F> scatter(std::int64_t rows, std::int64_t channels, const std::vector<T>& d_z, const std::vector<std::int32_t>& row,
                       const std::vector<T>& before) {
  std::vector<F> table(before.begin(), before.end());
  table.resize(static_cast<std::size_t>(rows * channels), 0);
  for (std::size_t i = 0; i < d_z.size(); ++i) {
    const std::size_t t = i / static_cast<std::size_t>(channels);
    table[static_cast<std::size_t>(row[t] * channels) + i % static_cast<std::size_t>(channels)] += static_cast<F>(d_z[i]);
  }
  return table;
}

/// Plain arithmetic's largest error in such sums, over 64 columns: one column may be right by luck.
template <class T>
Wide<T> error_of_plain_scatter(std::int64_t rows, const std::vector<std::int32_t>& row) {
  std::mt19937 random(5);
  const std::vector<T> d_z = normal_values<T>(random, static_cast<std::int64_t>(row.size()) * 64);
  const std::vector<T> start = normal_values<T>(random, rows * 64);
  return largest_error<T>(scatter<T>(rows, 64, d_z, row, start), scatter<Wide<T>>(rows, 64, d_z, row, start));
}

TYPED_TEST(EmbeddingTest, BackwardIsExactEnough) {
  using T = TypeParam;
  std::mt19937 random(3);
  for (const auto [at_least, channels] : kSizes) {
    for (const std::int32_t first_position : {0, 2}) {
      const Packed batch(at_least, first_position, random);
      const Segments segments(batch.token);
      const std::vector<T> d_z = normal_values<T>(random, batch.tokens * channels);
      // Words, positions and types, each with its rows.
      const std::array<std::int64_t, 3> rows{kVocabulary, kPositions, kTypes};
      const std::array<const std::vector<std::int32_t>*, 3> row{&batch.token, &batch.position, &batch.type};
      std::array<std::vector<T>, 3> before;
      std::array<Wide<T>, 3> plain_error{};
      for (std::size_t i = 0; i < 3; ++i) {
        before[i] = normal_values<T>(random, rows[i] * channels);
        plain_error[i] = error_of_plain_scatter<T>(rows[i], *row[i]);
      }
      for (const std::array<Use, 3> use : {std::array{Use::write, Use::write, Use::write},
                                           {Use::add, Use::add, Use::add},
                                           {Use::skip, Use::write, Use::add},
                                           {Use::add, Use::skip, Use::skip}}) {
        std::array<std::vector<T>, 2> first;
        for (const CpuStream stream : streams()) {
          const std::string name = std::to_string(batch.tokens) + " x " + std::to_string(channels) + ", " + name_of(stream);
          std::vector<Guarded<T>> tables;
          for (std::size_t i = 0; i < 3; ++i) {
            tables.emplace_back(rows[i] * channels, use[i] == Use::add ? before[i] : std::vector<T>{});
          }
          const std::int64_t splits = segments.view().splits;
          Guarded<std::byte> workspace(embedding_backward_workspace<T>(batch.tokens, splits, channels, kTypes), 0);
          const auto destination = [&](std::size_t i) { return use[i] == Use::skip ? nullptr : tables[i].data(); };
          embedding_backward(stream, EmbeddingBackward<T>{.d_words = destination(0),
                                                          .use_words = use[0],
                                                          .d_positions = destination(1),
                                                          .use_positions = use[1],
                                                          .d_types = destination(2),
                                                          .use_types = use[2],
                                                          .d_z = d_z.data(),
                                                          .segments = segments.view(),
                                                          .cu_seqlens = batch.cu_seqlens.data(),
                                                          .type = batch.type.data(),
                                                          .first_position = first_position,
                                                          .workspace = workspace.data(),
                                                          .tokens = batch.tokens,
                                                          .sequences = static_cast<std::int64_t>(batch.cu_seqlens.size()) - 1,
                                                          .channels = channels,
                                                          .vocabulary = kVocabulary,
                                                          .positions = kPositions,
                                                          .types = kTypes});
          workspace.expect_guards_whole("workspace, " + name);
          std::vector<T> all;
          for (std::size_t i = 0; i < 3; ++i) {
            tables[i].expect_guards_whole(name);
            if (use[i] == Use::skip) continue;
            const std::vector<T> start = use[i] == Use::add ? before[i] : std::vector<T>{};
            const std::vector<Wide<T>> exact = scatter<Wide<T>>(rows[i], channels, d_z, *row[i], start);
            expect_exact_enough<T>(tables[i].values(), exact, plain_error[i], "table " + std::to_string(i) + ", " + name);
            const std::vector<T> values = tables[i].copy();
            all.insert(all.end(), values.begin(), values.end());
          }
          std::vector<T>& reference = first[static_cast<std::size_t>(stream.target)];
          if (stream.threads == 1) reference = all;
          expect_same_bits(reference, all, name);
        }
      }
    }
  }
}

TYPED_TEST(EmbeddingTest, ALongSegmentIsSummedInSplitsOfABoundedLength) {
  using T = TypeParam;
  // 200 tokens of one word: the splits are 64, 64, 64 and 8 long, each summed in order, then they in order.
  const std::vector<std::int32_t> token(200, 7);
  const Segments segments(token);
  ASSERT_EQ(segments.view().splits, 4 + 3);
  std::mt19937 random(4);
  const std::vector<T> d_z = normal_values<T>(random, 200);
  T expected{0};
  for (std::size_t begin = 0; begin < 200; begin += 64) {
    T split{0};
    for (std::size_t t = begin; t < std::min<std::size_t>(200, begin + 64); ++t) split += d_z[t];
    expected += split;
  }
  for (const CpuStream stream : streams()) {
    Guarded<T> d_words(kVocabulary, std::vector<T>(kVocabulary, T{0}));
    Guarded<std::byte> workspace(embedding_backward_workspace<T>(200, 7, 1, 0), 0);
    const std::array<std::int32_t, 2> cu_seqlens{0, 200};
    embedding_backward(stream, EmbeddingBackward<T>{.d_words = d_words.data(),
                                                    .use_words = Use::add,
                                                    .d_positions = nullptr,
                                                    .use_positions = Use::skip,
                                                    .d_types = nullptr,
                                                    .use_types = Use::skip,
                                                    .d_z = d_z.data(),
                                                    .segments = segments.view(),
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
    workspace.expect_guards_whole("workspace");
    EXPECT_EQ(d_words[7], expected) << name_of(stream);
    for (std::int64_t row = 0; row < kVocabulary; ++row) EXPECT_TRUE(row == 7 || d_words[row] == T{0}) << row;
  }
}

}  // namespace
}  // namespace lathe::testing
