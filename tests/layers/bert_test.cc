#include "lathe/layers/bert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/layers/small_batch.h"

namespace lathe {
namespace {

BertSettings tiny() {
  return {.vocabulary = 6,
          .hidden_size = 8,
          .layers = 2,
          .heads = 2,
          .feed_forward = 12,
          .positions = 7,
          .token_types = 2,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = 1e-5,
          .hidden_dropout = 0.2,
          .attention_dropout = 0.2};
}

/// A tiny classifier with random weights, large enough that every path matters.
struct TinyModel {
  TinyModel(const DeviceRef& device, DType dtype, const BertSettings& settings = tiny())
      : classifier(parameters, settings, 3, 0.2), arena(device, dtype, parameters) {
    for (Parameter& parameter : parameters.all()) {
      ParameterArena::initialise({.name = parameter.name,
                                  .shape = parameter.shape,
                                  .decay = Decay::no,
                                  .initial = Initial::normal,
                                  .file_names = {},
                                  .value = parameter.value,
                                  .gradient = {}},
                                 3, 0.5);
    }
  }
  double loss(const Batch& batch) const {
    Tape tape(arena.device(), Recording::off);
    return *cross_entropy_loss(tape, classifier.forward(tape, batch), batch, {}).data<double>();
  }

  ParameterSet parameters;
  BertClassifier classifier;
  ParameterArena arena;
};

/// What is computed again, or isn't.
class BertGradients : public testing::TestWithParam<Recompute> {};
INSTANTIATE_TEST_SUITE_P(, BertGradients, testing::Values(Recompute::none, Recompute::blocks),
                         [](const auto& parameter) { return parameter.param == Recompute::none ? "Kept" : "Recomputed"; });

TEST_P(BertGradients, OfEveryParameterByCentralDifferences) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f64);
  const Batch batch = small_batch(device, DType::f64, RandomKey{.seed = 5, .step = 1});
  Tape tape(device);
  model.arena.watch(tape, Use::write);
  tape.backward(cross_entropy_loss(tape, model.classifier.forward(tape, batch, GetParam()), batch, {}));
  double total = 0.0;
  for (const Parameter& parameter : model.parameters.all()) {
    for (std::int64_t i = 0; i < parameter.value.size(); i += 1 + parameter.value.size() / 24) {
      double& w = parameter.value.data<double>()[i];
      const double before = w;
      w = before + 1e-5;
      const double above = model.loss(batch);
      w = before - 1e-5;
      const double below = model.loss(batch);
      w = before;
      const double gradient = parameter.gradient.data<double>()[i];
      ASSERT_NEAR(gradient, (above - below) / 2e-5, 1e-7 * std::max(1.0, std::abs(gradient))) << parameter.name << " " << i;
      total += std::abs(gradient);
    }
  }
  EXPECT_GT(total, 1.0) << "gradients that are all nothing would pass too";
}

TEST_P(BertGradients, OfAMaskedLanguageModelByCentralDifferences) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  ParameterSet parameters;
  const BertMaskedLm model(parameters, tiny());
  const ParameterArena arena(device, DType::f64, parameters);
  for (const Parameter& parameter : parameters.all()) {
    Parameter normal = parameter;
    normal.initial = Initial::normal;
    ParameterArena::initialise(normal, 3, 0.5);
  }
  const Batch batch = small_batch(device, DType::f64, RandomKey{.seed = 5, .step = 1});
  const auto loss = [&] {
    Tape tape(device, Recording::off);
    return *cross_entropy_loss(tape, model.forward(tape, batch), batch, model.loss_settings()).data<double>();
  };
  Tape tape(device);
  arena.watch(tape, Use::write);
  const Tensor logits = model.forward(tape, batch, GetParam());
  EXPECT_EQ(logits.shape(), (Shape{3, 64})) << "6 tokens, and columns of padding";
  tape.backward(cross_entropy_loss(tape, logits, batch, model.loss_settings()));
  for (const Parameter& parameter : parameters.all()) {
    double total = 0.0;
    for (std::int64_t i = 0; i < parameter.value.size(); i += 1 + parameter.value.size() / 24) {
      double& w = parameter.value.data<double>()[i];
      const double before = w;
      w = before + 1e-5;
      const double above = loss();
      w = before - 1e-5;
      const double below = loss();
      w = before;
      const double gradient = parameter.gradient.data<double>()[i];
      ASSERT_NEAR(gradient, (above - below) / 2e-5, 1e-7 * std::max(1.0, std::abs(gradient))) << parameter.name << " " << i;
      total += std::abs(gradient);
    }
    EXPECT_GT(total, 1e-6) << parameter.name << ": gradients that are all nothing would pass too";
  }
}

TEST_P(BertGradients, AreFinalLayerByLayerAndTheTiedEmbeddingsLast) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  ParameterSet parameters;
  const BertMaskedLm model(parameters, tiny());
  const ParameterArena arena(device, DType::f64, parameters);
  for (const Parameter& parameter : parameters.all()) ParameterArena::initialise(parameter, 3, 0.5);
  const Batch batch = small_batch(device, DType::f64, RandomKey{.seed = 5, .step = 1});
  const auto values_of = [](const Tensor& x) { return std::vector<double>(x.data<double>(), x.data<double>() + x.size()); };
  Tape tape(device);
  arena.watch(tape, Use::write);
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;
  tape.tell([&](const Tensor& gradient) {
    const auto parameter =
        std::ranges::find_if(parameters.all(), [&](const Parameter& p) { return p.gradient.id() == gradient.id(); });
    ASSERT_NE(parameter, parameters.all().end());
    names.push_back(parameter->name);
    values.push_back(values_of(gradient));
  });
  tape.backward(cross_entropy_loss(tape, model.forward(tape, batch, GetParam()), batch, model.loss_settings()));
  std::vector<int> places;  // from the model's end to its beginning
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    places.push_back(name.starts_with("embeddings.")        ? 3
                     : name.starts_with("encoder.layer.0.") ? 2
                     : name.starts_with("encoder.layer.1.") ? 1
                                                            : 0);
    const auto parameter = std::ranges::find(parameters.all(), name, &Parameter::name);
    EXPECT_EQ(values[i], values_of(parameter->gradient)) << name << " was changed after it was told to be final";
  }
  EXPECT_TRUE(std::ranges::is_sorted(places)) << testing::PrintToString(names);
  std::ranges::sort(names);
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end()) << "told twice";
  EXPECT_EQ(names.size(), parameters.all().size());
}

TEST(Bert, MicroBatchesAddUp) {
  const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f64);
  const Batch batch = small_batch(device, DType::f64, RandomKey{.seed = 5, .step = 1});
  const auto gradients_after = [&](int passes) {
    for (int i = 0; i < passes; ++i) {
      Tape tape(device);
      model.arena.watch(tape, i == 0 ? Use::write : Use::add);
      tape.backward(cross_entropy_loss(tape, model.classifier.forward(tape, batch), batch, {}));
    }
    std::vector<double> gradients(static_cast<std::size_t>(model.arena.gradients().size()));
    model.arena.gradients().copy_to<double>(gradients);
    return gradients;
  };
  const auto once = gradients_after(1);
  const auto thrice = gradients_after(3);
  for (std::size_t i = 0; i < once.size(); ++i) ASSERT_NEAR(thrice[i], 3.0 * once[i], 1e-12 + 1e-12 * std::abs(once[i]));
}

TEST(Bert, RecomputingGivesTheSameBits) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f32);
  // Two micro-batches: the first writes, the second adds.
  const auto computed = [&](Recompute recompute) {
    std::vector<float> numbers;
    for (const std::uint32_t step : {1U, 2U}) {
      const Batch batch = small_batch(device, DType::f32, RandomKey{.seed = 5, .step = step});
      Tape tape(device);
      model.arena.watch(tape, step == 1 ? Use::write : Use::add);
      const Tensor loss = cross_entropy_loss(tape, model.classifier.forward(tape, batch, recompute), batch, {});
      tape.backward(loss);
      numbers.push_back(*loss.data<float>());
    }
    const float* gradients = model.arena.gradients().data<float>();
    numbers.insert(numbers.end(), gradients, gradients + model.arena.gradients().size());
    return numbers;
  };
  EXPECT_EQ(computed(Recompute::blocks), computed(Recompute::none));
}

TEST(Bert, RecomputingKeepsOneTensorALayer) {
  constexpr std::int64_t kLayers = 4;
  BertSettings settings = tiny();
  settings.layers = kLayers;
  struct Memory {
    std::int64_t kept = 0, peak = 0;
  };
  const auto memory_of = [&](Recompute recompute) {
    const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26});
    const TinyModel model(device, DType::f32, settings);
    const Batch batch = small_batch(device, DType::f32, RandomKey{.seed = 5, .step = 1});
    Tape tape(device);
    model.arena.watch(tape, Use::write);
    const std::int64_t before = device->memory().now;
    const Tensor states = model.classifier.bert().forward(tape, batch, RowKind::tokens, recompute);
    const Tensor gradient = Tensor::zeros(device, DType::f32, states.shape());
    const std::int64_t kept = device->memory().now - before;
    tape.backward(states, gradient);
    return Memory{.kept = kept, .peak = device->memory().peak - before};
  };
  const Memory all = memory_of(Recompute::none);
  const Memory inputs = memory_of(Recompute::blocks);
  const std::int64_t tokens = std::ssize(small_packed_batch().token);
  const auto room = [](std::int64_t elements) { return (elements * 4 + 64 + 63) / 64 * 64; };
  const std::int64_t states = room(tokens * settings.hidden_size);
  // Of a layer beside its input: q, k and v; the attention's result and its lse; of two LayerNorms z, mean and rstd; what goes into the
  // feed-forward layer, and what comes into and out of its activation.
  const std::int64_t layer = room(3 * tokens * settings.hidden_size) + states + room(settings.heads * tokens) +
                             2 * (states + 2 * room(tokens)) + states + 2 * room(tokens * settings.feed_forward);
  EXPECT_EQ(all.kept - inputs.kept, kLayers * layer);
  // While the last layer is gone back through, it is there in either case; recomputed, its input's gradient has been there before.
  EXPECT_LE(all.peak - inputs.peak, (kLayers - 1) * layer);
  EXPECT_GE(all.peak - inputs.peak, (kLayers - 1) * layer - states);
}

TEST(Bert, LabelledRowsAreThoseOfAllTokens) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f64);
  for (const auto key : {std::optional<RandomKey>(), std::optional(RandomKey{.seed = 5, .step = 1})}) {
    const Batch batch = small_batch(device, DType::f64, key);
    Tape tape(device, Recording::off);
    const Tensor all = model.classifier.bert().forward(tape, batch, RowKind::tokens);
    const Tensor rows = model.classifier.bert().forward(tape, batch, RowKind::labelled);
    ASSERT_EQ(rows.shape(), (Shape{3, 8}));
    for (std::int64_t r = 0; r < 3; ++r) {
      const std::int64_t t = batch.row_token.data<std::int32_t>()[r];
      for (std::int64_t c = 0; c < 8; ++c) EXPECT_NEAR(rows.data<double>()[r * 8 + c], all.data<double>()[t * 8 + c], 1e-13);
    }
  }
}

TEST(Bert, SequencesDoNotSeeEachOther) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f64);
  const auto states_of = [&](const PackedBatch& packed) {
    Tape tape(device, Recording::off);
    const Batch batch = upload(device, DType::f64, packed, {});
    const Tensor states = model.classifier.bert().forward(tape, batch, RowKind::tokens);
    return std::vector<double>(states.data<double>(), states.data<double>() + states.size());
  };
  const PackedBatch packed = small_packed_batch();
  PackedBatch changed = packed;
  changed.token[2] = 0;  // in the second sequence
  const auto before = states_of(packed);
  const auto after = states_of(changed);
  for (std::size_t i = 0; i < before.size(); ++i) {
    const std::size_t token = i / 8;
    const bool second = token >= 1 && token < 6;
    if (second) {
      EXPECT_NE(before[i], after[i]) << i;
    } else {
      EXPECT_EQ(before[i], after[i]) << i;
    }
  }
}

TEST(Bert, RoundingABatchUpChangesNothing) {
  const DeviceRef device = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  const TinyModel model(device, DType::f64);
  const RandomKey key{.seed = 5, .step = 1};
  const auto gradients_of = [&](const PackedBatch& packed) {
    const Batch batch = upload(device, DType::f64, packed, {.random_key = &key, .loss_denominator = 3.0});
    Tape tape(device);
    model.arena.watch(tape, Use::write);
    tape.backward(cross_entropy_loss(tape, model.classifier.forward(tape, batch), batch, {}));
    std::vector<double> gradients(static_cast<std::size_t>(model.arena.gradients().size()));
    model.arena.gradients().copy_to<double>(gradients);
    return gradients;
  };
  PackedBatch packed = small_packed_batch();
  const auto exact = gradients_of(packed);
  round_up(packed);
  ASSERT_GT(packed.token.size(), small_packed_batch().token.size());
  const auto rounded = gradients_of(packed);
  for (std::size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(rounded[i], exact[i], 1e-13) << i;
}

TEST(Bert, ResultsDoNotDependOnThreadsInFp64) {
  std::vector<std::vector<double>> gradients;
  for (const int threads : {1, 2, 3}) {
    const DeviceRef device = Device::cpu({.threads = threads, .target = {}, .reserved_bytes = 1 << 26});
    const TinyModel model(device, DType::f64);
    const Batch batch = small_batch(device, DType::f64, RandomKey{.seed = 5, .step = 1});
    Tape tape(device);
    model.arena.watch(tape, Use::write);
    tape.backward(cross_entropy_loss(tape, model.classifier.forward(tape, batch), batch, {}));
    gradients.emplace_back(static_cast<std::size_t>(model.arena.gradients().size()));
    model.arena.gradients().copy_to<double>(gradients.back());
  }
  EXPECT_EQ(gradients[0], gradients[1]);
  EXPECT_EQ(gradients[0], gradients[2]);
}

TEST(Bert, NamesItsParametersAsFilesDo) {
  ParameterSet parameters;
  const BertClassifier classifier(parameters, tiny(), 3, 0.1);
  EXPECT_EQ(parameters.all().front().name, "embeddings.word_embeddings.weight");
  EXPECT_EQ(parameters.all().back().name, "classifier.bias");
  std::int64_t files = 0;
  for (const Parameter& parameter : parameters.all()) files += static_cast<std::int64_t>(parameter.file_names.size());
  EXPECT_EQ(files, 5 + 2 * 16 + 4);
  for (const Parameter& parameter : parameters.all()) {
    const bool bias_or_norm = parameter.name.ends_with(".bias") || parameter.name.find("LayerNorm") != std::string::npos;
    EXPECT_EQ(parameter.decay == Decay::no, bias_or_norm) << parameter.name;
  }
}

}  // namespace
}  // namespace lathe
