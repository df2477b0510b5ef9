#include "lathe/layers/bert.h"

#include <fmt/format.h>

namespace lathe {
namespace {

/// The dropout sites of a model; attention's probabilities have their own counters.
constexpr std::uint32_t kEmbeddingSite = 0;
constexpr std::uint32_t attention_site(std::uint32_t layer) { return 1 + 2 * layer; }
constexpr std::uint32_t feed_forward_site(std::uint32_t layer) { return 2 + 2 * layer; }
constexpr std::uint32_t kClassifierSite = 1U << 16U;

LinearParameters add_linear(ParameterSet& parameters, const std::string& name, std::int64_t out, std::int64_t in) {
  return {.weight = &parameters.add(
              {.name = name + ".weight", .shape = {out, in}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}}),
          .bias = &parameters.add(
              {.name = name + ".bias", .shape = {out}, .decay = Decay::no, .initial = Initial::zeros, .file_names = {}})};
}

LayerNormParameters add_norm(ParameterSet& parameters, const std::string& name, std::int64_t channels) {
  return {.gamma = &parameters.add(
              {.name = name + ".weight", .shape = {channels}, .decay = Decay::no, .initial = Initial::ones, .file_names = {}}),
          .beta = &parameters.add(
              {.name = name + ".bias", .shape = {channels}, .decay = Decay::no, .initial = Initial::zeros, .file_names = {}})};
}

/// Query, key and value as one matrix [3C, C], so that one product gives all three; files hold them apart.
LinearParameters add_qkv(ParameterSet& parameters, const std::string& name, std::int64_t channels) {
  const auto files = [&](const char* kind) {
    return std::vector<std::string>{fmt::format("{}.query.{}", name, kind), fmt::format("{}.key.{}", name, kind),
                                    fmt::format("{}.value.{}", name, kind)};
  };
  return {.weight = &parameters.add({.name = name + ".qkv.weight",
                                     .shape = {3 * channels, channels},
                                     .decay = Decay::yes,
                                     .initial = Initial::normal,
                                     .file_names = files("weight")}),
          .bias = &parameters.add({.name = name + ".qkv.bias",
                                   .shape = {3 * channels},
                                   .decay = Decay::no,
                                   .initial = Initial::zeros,
                                   .file_names = files("bias")})};
}

Parameter* add_table(ParameterSet& parameters, const std::string& name, std::int64_t rows, std::int64_t channels) {
  return &parameters.add(
      {.name = name, .shape = {rows, channels}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}});
}

}  // namespace

BertEmbeddings::BertEmbeddings(ParameterSet& parameters, const BertSettings& settings)
    : words_(add_table(parameters, "embeddings.word_embeddings.weight", settings.vocabulary, settings.hidden_size)),
      positions_(add_table(parameters, "embeddings.position_embeddings.weight", settings.positions, settings.hidden_size)),
      types_(add_table(parameters, "embeddings.token_type_embeddings.weight", settings.token_types, settings.hidden_size)),
      norm_(add_norm(parameters, "embeddings.LayerNorm", settings.hidden_size)),
      epsilon_(settings.layer_norm_epsilon),
      dropout_(settings.hidden_dropout) {}

Tensor BertEmbeddings::forward(Tape& tape, const Batch& batch) const {
  const EmbeddingTables tables{.words = words_->value,
                               .positions = positions_->value,
                               .types = types_->value,
                               .gamma = norm_.gamma->value,
                               .beta = norm_.beta->value};
  return embed(tape, tables, batch, epsilon_, {.site = kEmbeddingSite, .probability = dropout_});
}

SelfAttention::SelfAttention(ParameterSet& parameters, const std::string& prefix, const BertSettings& settings,
                             std::uint32_t layer)
    : qkv_(add_qkv(parameters, prefix + ".attention.self", settings.hidden_size)),
      output_(add_linear(parameters, prefix + ".attention.output.dense", settings.hidden_size, settings.hidden_size)),
      norm_(add_norm(parameters, prefix + ".attention.output.LayerNorm", settings.hidden_size)),
      attention_{.heads = settings.heads, .mask = AttentionMask::full, .layer = layer, .dropout = settings.attention_dropout},
      epsilon_(settings.layer_norm_epsilon),
      dropout_(settings.hidden_dropout) {}

Tensor SelfAttention::forward(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows) const {
  Tensor context = attend(tape, linear(tape, x, qkv_.weight->value, qkv_.bias->value), batch, attention_);
  Tensor residual = x;
  if (rows == RowKind::labelled) {
    context = gather_rows(tape, context, batch);
    residual = gather_rows(tape, x, batch);
  }
  // The projection's bias is added in the same pass as dropout, residual and LayerNorm.
  const Tensor projected = linear(tape, context, output_.weight->value, Tensor());
  return layer_norm(tape, projected, output_.bias->value, residual, norm_.gamma->value, norm_.beta->value, epsilon_, batch, rows,
                    {.site = attention_site(attention_.layer), .probability = dropout_});
}

void SelfAttention::prepare(std::int64_t tokens, std::int64_t rows) const {
  prepare_linear(qkv_.weight->value, tokens);
  prepare_linear(output_.weight->value, rows);
}

FeedForward::FeedForward(ParameterSet& parameters, const std::string& prefix, const BertSettings& settings, std::uint32_t layer)
    : up_(add_linear(parameters, prefix + ".intermediate.dense", settings.feed_forward, settings.hidden_size)),
      down_(add_linear(parameters, prefix + ".output.dense", settings.hidden_size, settings.feed_forward)),
      norm_(add_norm(parameters, prefix + ".output.LayerNorm", settings.hidden_size)),
      activation_(settings.activation),
      layer_(layer),
      epsilon_(settings.layer_norm_epsilon),
      dropout_(settings.hidden_dropout) {}

Tensor FeedForward::forward(Tape& tape, const Tensor& x, const Batch& batch, RowKind rows) const {
  const Tensor inner = activate(tape, linear(tape, x, up_.weight->value, Tensor()), up_.bias->value, activation_);
  const Tensor projected = linear(tape, inner, down_.weight->value, Tensor());
  return layer_norm(tape, projected, down_.bias->value, x, norm_.gamma->value, norm_.beta->value, epsilon_, batch, rows,
                    {.site = feed_forward_site(layer_), .probability = dropout_});
}

void FeedForward::prepare(std::int64_t rows) const {
  prepare_linear(up_.weight->value, rows);
  prepare_linear(down_.weight->value, rows);
}

Bert::Bert(ParameterSet& parameters, const BertSettings& settings) : settings_(settings), embeddings_(parameters, settings) {
  for (std::int64_t i = 0; i < settings.layers; ++i) {
    const std::string prefix = fmt::format("encoder.layer.{}", i);
    const auto layer = static_cast<std::uint32_t>(i);
    // One after the other: the order in which parameters are added is the order of first use.
    SelfAttention attention(parameters, prefix, settings, layer);
    layers_.push_back({.attention = attention, .feed_forward = FeedForward(parameters, prefix, settings, layer)});
  }
}

Tensor Bert::forward(Tape& tape, const Batch& batch, RowKind rows, Recompute recompute) const {
  Tensor x = embeddings_.forward(tape, batch);
  if (layers_.empty() && rows == RowKind::labelled) return gather_rows(tape, x, batch);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const RowKind wanted = i + 1 == layers_.size() ? rows : RowKind::tokens;
    if (recompute == Recompute::none) {
      x = layers_[i].forward(tape, x, batch, wanted);
    } else {
      x = tape.recompute("bert_layer",
                         [layer = layers_[i], x, batch, wanted](Tape& again) { return layer.forward(again, x, batch, wanted); });
    }
  }
  return x;
}

void Bert::prepare(std::int64_t tokens, std::int64_t rows) const {
  // All layers have the same shapes, but the last one goes on with fewer rows.
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const bool last = i + 1 == layers_.size();
    if (i > 0 && !last) continue;
    layers_[i].attention.prepare(tokens, last ? rows : tokens);
    layers_[i].feed_forward.prepare(last ? rows : tokens);
  }
}

Pooler::Pooler(ParameterSet& parameters, const BertSettings& settings)
    : dense_(add_linear(parameters, "pooler.dense", settings.hidden_size, settings.hidden_size)) {}

Tensor Pooler::forward(Tape& tape, const Tensor& rows) const {
  return activate(tape, linear(tape, rows, dense_.weight->value, Tensor()), dense_.bias->value, Activation::tanh);
}

void Pooler::prepare(std::int64_t rows) const { prepare_linear(dense_.weight->value, rows); }

BertClassifier::BertClassifier(ParameterSet& parameters, const BertSettings& settings, std::int64_t classes,
                               double classifier_dropout)
    : bert_(parameters, settings),
      pooler_(parameters, settings),
      head_(add_linear(parameters, "classifier", classes, settings.hidden_size)),
      classes_(classes),
      dropout_(classifier_dropout) {}

Tensor BertClassifier::forward(Tape& tape, const Batch& batch, Recompute recompute) const {
  const Tensor pooled = pooler_.forward(tape, bert_.forward(tape, batch, RowKind::labelled, recompute));
  const Tensor dropped = dropout(tape, pooled, batch, RowKind::labelled, {.site = kClassifierSite, .probability = dropout_});
  return linear(tape, dropped, head_.weight->value, head_.bias->value);
}

void BertClassifier::prepare(std::int64_t tokens, std::int64_t rows) const {
  bert_.prepare(tokens, rows);
  pooler_.prepare(rows);
  prepare_linear(head_.weight->value, rows);
}

MaskedLmHead::MaskedLmHead(ParameterSet& parameters, const BertSettings& settings)
    : transform_(add_linear(parameters, "cls.predictions.transform.dense", settings.hidden_size, settings.hidden_size)),
      norm_(add_norm(parameters, "cls.predictions.transform.LayerNorm", settings.hidden_size)),
      bias_(&parameters.add({.name = "cls.predictions.bias",
                             .shape = {settings.vocabulary},
                             .decay = Decay::no,
                             .initial = Initial::zeros,
                             .file_names = {}})),
      activation_(settings.activation),
      epsilon_(settings.layer_norm_epsilon) {}

Tensor MaskedLmHead::forward(Tape& tape, const Tensor& rows, const Tensor& words) const {
  const Tensor inner =
      activate(tape, linear(tape, rows, transform_.weight->value, Tensor()), transform_.bias->value, activation_);
  // Nothing is dropped, so that the batch is not asked for anything.
  const Tensor normalised = layer_norm(tape, inner, Tensor(), Tensor(), norm_.gamma->value, norm_.beta->value, epsilon_, Batch{},
                                       RowKind::labelled, {.site = 0, .probability = 0.0});
  return decode(tape, normalised, words, bias_->value);
}

void MaskedLmHead::prepare(std::int64_t rows, const Tensor& words) const {
  prepare_linear(transform_.weight->value, rows);
  prepare_decode(words, rows);
}

BertMaskedLm::BertMaskedLm(ParameterSet& parameters, const BertSettings& settings)
    : bert_(parameters, settings), head_(parameters, settings) {}

Tensor BertMaskedLm::forward(Tape& tape, const Batch& batch, Recompute recompute) const {
  return head_.forward(tape, bert_.forward(tape, batch, RowKind::labelled, recompute), bert_.words().value);
}

void BertMaskedLm::prepare(std::int64_t tokens, std::int64_t rows) const {
  bert_.prepare(tokens, rows);
  head_.prepare(rows, bert_.words().value);
}

}  // namespace lathe
