// Hidden states, logits and all gradients of one step against PyTorch's, for real weights and for a small made-up BERT. What the golden
// files hold, how signed sums stand for whole tensors and what they can't miss is told in scripts/golden_model.py, which writes them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/layers/bert.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/upload.h"

namespace lathe {
namespace {

constexpr std::size_t kTokenSums = 16;
constexpr std::size_t kGradientSums = 64;
constexpr std::int64_t kMaxLength = 512;
/// By how much the estimated norm of a difference may be too small, in the norm rule: with 64 sums it is below half of the true one
/// with a probability of less than 1e-9.
constexpr double kEstimateMargin = 2.0;

/// The hash that gives the signs of the sums and the made-up weights.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

std::uint64_t fnv1a(std::string_view name) {
  std::uint64_t value = 0xCBF29CE484222325U;
  for (const char c : name) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return value;
}

/// Made-up weights, exact in fp32.
template <class T>
void make_up(std::string_view name, std::span<T> values) {
  const double center = name.ends_with("LayerNorm.weight") ? 1.0 : 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = static_cast<double>(mix(fnv1a(name) + i) >> 48U);
    values[i] = static_cast<T>((bits - 0x1p15) * 0x1p-18 + center);
  }
}

/// Sums of all elements, the k-th with the signs that bit k of mix(number of the element) gives.
template <std::size_t count, class T>
std::array<double, count> signed_sums(std::span<const T> x) {
  std::array<double, count> sums{};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto value = static_cast<double>(x[i]);
    if (value == 0.0) continue;
    const std::uint64_t bits = mix(i);
    for (std::size_t k = 0; k < count; ++k) sums[k] += ((bits >> k) & 1U) != 0 ? -value : value;
  }
  return sums;
}

/// An estimate of |a - b| from the signed sums of a and b: exact where one element differs, and its square unbiased.
template <std::size_t count>
double estimate(const std::array<double, count>& a, std::span<const double> b) {
  double squares = 0.0;
  for (std::size_t k = 0; k < count; ++k) squares += (a[k] - b[k]) * (a[k] - b[k]);
  return std::sqrt(squares / count);
}

/// The largest of some errors and what it was. NaN is larger than everything.
struct Worst {
  double error = 0.0;
  std::string what = "nothing";

  template <class What>
  void see(double e, What&& describe) {
    if (std::isnan(error) || e <= error) return;
    error = e;
    what = describe();
  }
};

/// A golden file.
class Golden {
 public:
  explicit Golden(std::string_view name) : file_(SafetensorsFile::open(std::filesystem::path(LATHE_GOLDEN_MODELS) / name)) {}

  template <class T>
  std::vector<T> read(const std::string& name, SafetensorsType type) const {
    const TensorEntry* entry = file_.find(name);
    if (entry == nullptr || entry->type != type) throw std::runtime_error("golden file: no " + name + " of the type expected");
    const std::span<const std::byte> bytes = file_.bytes(*entry);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::vector<double> f64(const std::string& name) const { return read<double>(name, SafetensorsType::f64); }
  std::vector<float> f32(const std::string& name) const { return read<float>(name, SafetensorsType::f32); }
  std::vector<std::int32_t> i32(const std::string& name) const { return read<std::int32_t>(name, SafetensorsType::i32); }
  bool has(std::string_view name) const { return file_.find(name) != nullptr; }
  /// How far PyTorch's fp32 is from the float64 numbers in the file.
  double pytorch_fp32(const std::string& quantity) const {
    return std::stod(file_.metadata().at("fp32_" + quantity + "_difference"));
  }

  TokenizedSamples samples() const {
    const std::vector<std::int32_t> offsets = i32("offsets");
    return SampleLists{.ids = i32("ids"), .types = i32("types"), .offsets = {offsets.begin(), offsets.end()}};
  }
  std::size_t gradients() const {
    return static_cast<std::size_t>(std::count_if(file_.tensors().begin(), file_.tensors().end(),
                                                  [](const TensorEntry& e) { return e.name.starts_with("gradient/"); }));
  }

 private:
  SafetensorsFile file_;
};

/// A BERT with a classification head, in fp32 or fp64.
template <class T>
struct Model {
  /// The kernels' instruction set is the processor's best where `target` is empty.
  Model(const BertSettings& settings, std::int64_t classes, std::optional<CpuTarget> target = {})
      : device(Device::cpu({.threads = default_threads().threads, .target = target})),
        classifier(parameters, settings, classes, settings.hidden_dropout),
        arena(device, dtype_of<T>(), parameters) {}

  /// Calls visit(name, elements) for each tensor that files hold of the parameters' values or gradients.
  template <class Visit>
  void for_each_tensor(Tensor Parameter::*member, Visit visit) {
    for (const Parameter& parameter : parameters.all()) {
      const auto size = static_cast<std::size_t>(parameter.value.size()) / parameter.file_names.size();
      T* elements = (parameter.*member).template data<T>();
      for (const std::string& name : parameter.file_names) {
        visit(name, std::span<T>(elements, size));
        elements += size;
      }
    }
  }

  DeviceRef device;
  ParameterSet parameters;
  BertClassifier classifier;
  ParameterArena arena;
};

template <class T>
std::vector<T> to_host(const Tensor& x) {
  std::vector<T> values(static_cast<std::size_t>(x.size()));
  x.copy_to(std::span<T>(values));
  return values;
}

/// The first `count` sequences of a golden file in one batch, with its labels where the step has them all.
PackedBatch pack(const TokenizedSamples& samples, std::int64_t count, std::span<const std::int32_t> labels) {
  std::vector<std::int32_t> members(static_cast<std::size_t>(count));
  std::iota(members.begin(), members.end(), 0);
  PackedBatch batch;
  pack_sequences(samples, members, labels, 0, batch);
  return batch;
}

/// Compares [rows, columns] with the golden rows, element by element.
template <class T>
void see_elements(Worst& worst, std::string_view what, std::span<const T> got, std::span<const double> expected,
                  std::size_t columns) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    worst.see(std::abs(static_cast<double>(got[i]) - expected[i]), [&] {
      return std::string(what) + " of sequence " + std::to_string(i / columns) + ", element " + std::to_string(i % columns);
    });
  }
}

/// Hidden states and logits of the first `count` sequences, all in one batch, within `tolerance` of the golden ones.
template <class T>
void expect_forward(Model<T>& model, const Golden& golden, std::int64_t count, double tolerance) {
  const TokenizedSamples samples = golden.samples();
  const PackedBatch packed = pack(samples, count, {});
  const Batch batch = upload(model.device, dtype_of<T>(), packed, {});
  Tape tape(model.device, Recording::off);
  const auto channels = static_cast<std::size_t>(model.classifier.bert().settings().hidden_size);
  const std::vector<T> hidden = to_host<T>(model.classifier.bert().forward(tape, batch, RowKind::tokens));
  const std::vector<T> labelled = to_host<T>(model.classifier.bert().forward(tape, batch, RowKind::labelled));
  const std::vector<T> logits = to_host<T>(model.classifier.forward(tape, batch));
  const auto sequences = static_cast<std::size_t>(count);
  const auto classes = static_cast<std::size_t>(model.classifier.classes());
  ASSERT_EQ(hidden.size(), packed.token.size() * channels);
  ASSERT_EQ(labelled.size(), sequences * channels);
  ASSERT_EQ(logits.size(), sequences * classes);

  Worst worst;
  const std::vector<double> first = golden.f64("first");
  for (std::size_t b = 0; b < sequences; ++b) {
    const std::span<const T> row(hidden.data() + static_cast<std::size_t>(packed.cu_seqlens[b]) * channels, channels);
    for (std::size_t c = 0; c < channels; ++c) {
      worst.see(std::abs(static_cast<double>(row[c]) - first[b * channels + c]),
                [&] { return "first token of sequence " + std::to_string(b) + ", channel " + std::to_string(c); });
    }
  }
  see_elements<T>(worst, "labelled row", labelled, first, channels);
  see_elements<T>(worst, "logits", logits, golden.f64("logits"), classes);
  const std::vector<double> projections = golden.f64("projections");
  for (std::size_t t = 0; t < packed.token.size(); ++t) {
    const auto sums = signed_sums<kTokenSums, T>({hidden.data() + t * channels, channels});
    worst.see(estimate<kTokenSums>(sums, std::span(projections).subspan(t * kTokenSums, kTokenSums)), [&] {
      return "norm of the error of sequence " + std::to_string(packed.sample[t]) + ", token " +
             std::to_string(packed.position[t]);
    });
  }
  testing::Test::RecordProperty("largest_error", testing::PrintToString(worst.error));
  EXPECT_LE(worst.error, tolerance) << worst.what;
}

/// Loss and gradients of a step without dropout: the loss within `tolerance`, every gradient within it by DESIGN's norm rule,
/// |a - b| <= tolerance * max(|b|, 1e-4 * |all of b|).
template <class T>
void expect_step(Model<T>& model, const Golden& golden, double tolerance) {
  const std::vector<std::int32_t> labels = golden.i32("labels");
  const auto count = static_cast<std::int64_t>(labels.size());
  std::vector<std::int32_t> all_labels = labels;
  const TokenizedSamples samples = golden.samples();
  all_labels.resize(static_cast<std::size_t>(samples.count()), -1);
  const Batch batch = upload(model.device, dtype_of<T>(), pack(samples, count, all_labels),
                             {.random_key = nullptr, .loss_denominator = static_cast<double>(count)});
  Tape tape(model.device);
  model.arena.watch(tape, Use::write);
  const Tensor loss = cross_entropy_loss(tape, model.classifier.forward(tape, batch), batch, {});
  tape.backward(loss);
  EXPECT_NEAR(static_cast<double>(to_host<T>(loss)[0]), golden.f64("loss")[0], tolerance);

  double squares = 0.0;
  std::size_t tensors = 0;
  model.for_each_tensor(&Parameter::gradient, [&](const std::string& name, std::span<T>) {
    const double norm = golden.f64("gradient/" + name)[0];
    squares += norm * norm;
    ++tensors;
  });
  ASSERT_EQ(tensors, golden.gradients()) << "the golden step has gradients of tensors that this model doesn't have";

  Worst worst;
  model.for_each_tensor(&Parameter::gradient, [&](const std::string& name, std::span<T> gradient) {
    const std::vector<double> expected = golden.f64("gradient/" + name);
    const double scale = std::max(expected[0], 1e-4 * std::sqrt(squares));
    const auto sums = signed_sums<kGradientSums, T>(gradient);
    const double difference = estimate<kGradientSums>(sums, std::span(expected).subspan(1));
    worst.see(kEstimateMargin * difference / scale, [&] { return "signed sums of " + name; });
    if (sizeof(T) == sizeof(float) && golden.has("vector/" + name)) {
      const std::vector<float> vector = golden.f32("vector/" + name);
      ASSERT_EQ(vector.size(), gradient.size()) << name;
      double exact = 0.0;
      for (std::size_t i = 0; i < vector.size(); ++i) exact += std::pow(static_cast<double>(gradient[i]) - vector[i], 2);
      worst.see(std::sqrt(exact) / scale, [&] { return name; });
    }
  });
  testing::Test::RecordProperty("largest_error", testing::PrintToString(worst.error));
  EXPECT_LE(worst.error, tolerance) << worst.what;
}

/// fp32 is to be within 1e-4 of PyTorch's fp32 (gradients: 1e-3), and is where it is within that, less PyTorch's own distance, of
/// float64. fp64 is to be within 1e-9, so that a slip in the mathematics can't hide behind fp32's rounding.
template <class T>
double forward_tolerance(const Golden& golden) {
  if (sizeof(T) == sizeof(double)) return 1e-9;
  return 1e-4 - std::max(golden.pytorch_fp32("hidden"), golden.pytorch_fp32("logits"));
}
template <class T>
double step_tolerance(const Golden& golden) {
  return sizeof(T) == sizeof(double) ? 1e-9 : 1e-3 - golden.pytorch_fp32("gradient");
}

template <class T>
struct TinyModel : Model<T> {
  explicit TinyModel(std::optional<CpuTarget> target = {})
      : Model<T>({.vocabulary = 97,
                  .hidden_size = 36,
                  .layers = 3,
                  .heads = 4,
                  .feed_forward = 70,
                  .positions = 131,
                  .token_types = 2,
                  .activation = Activation::gelu_tanh,
                  .layer_norm_epsilon = 1e-5},
                 3, target) {
    this->for_each_tensor(&Parameter::value, [](const std::string& name, std::span<T> values) { make_up(name, values); });
  }
};

template <class T>
class GoldenTiny : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(GoldenTiny, Precisions);

TYPED_TEST(GoldenTiny, HiddenStatesAndLogits) {
  const Golden golden("tiny.safetensors");
  TinyModel<TypeParam> model;
  expect_forward<TypeParam>(model, golden, golden.samples().count(), forward_tolerance<TypeParam>(golden));
}

TYPED_TEST(GoldenTiny, GradientsOfOneStep) {
  const Golden golden("tiny.safetensors");
  TinyModel<TypeParam> model;
  expect_step<TypeParam>(model, golden, step_tolerance<TypeParam>(golden));
}

TYPED_TEST(GoldenTiny, BothOfThemWithAvx2Alone) {
  const Golden golden("tiny.safetensors");
  TinyModel<TypeParam> model(CpuTarget::v3);
  expect_forward<TypeParam>(model, golden, golden.samples().count(), forward_tolerance<TypeParam>(golden));
  expect_step<TypeParam>(model, golden, step_tolerance<TypeParam>(golden));
}

/// Where the weights of all-MiniLM-L6-v2 are, or null.
const char* weights_folder() { return std::getenv("LATHE_TEST_WEIGHTS"); }
constexpr const char* kNoWeights = "LATHE_TEST_WEIGHTS is not set: it names the folder of all-MiniLM-L6-v2";

BertSettings minilm_settings() {
  const BertConfig config = BertConfig::load(std::filesystem::path(weights_folder()) / "config.json");
  EXPECT_EQ(config.hidden_activation, HiddenActivation::gelu);
  return {.vocabulary = config.vocabulary_size,
          .hidden_size = config.hidden_size,
          .layers = config.layers,
          .heads = config.heads,
          .feed_forward = config.intermediate_size,
          .positions = config.max_positions,
          .token_types = config.token_types,
          .activation = Activation::gelu_erf,
          .layer_norm_epsilon = config.layer_norm_epsilon,
          .hidden_dropout = config.hidden_dropout,
          .attention_dropout = config.attention_dropout};
}

/// all-MiniLM-L6-v2 with a made-up head.
template <class T>
struct MiniLm : Model<T> {
  MiniLm() : Model<T>(minilm_settings(), 2) {
    const std::filesystem::path folder = weights_folder();
    const SafetensorsFile file = SafetensorsFile::open(folder / "model.safetensors");
    const auto expected = bert_tensors(BertConfig::load(folder / "config.json"), 0);
    const BertMatch match = match_bert_tensors(file, expected);
    std::vector<float> read;
    this->for_each_tensor(&Parameter::value, [&](const std::string& name, std::span<T> values) {
      if (name.starts_with("classifier.")) return make_up(name, values);
      const auto found =
          std::find_if(match.found.begin(), match.found.end(), [&](const MatchedTensor& m) { return m.name == name; });
      if (found == match.found.end()) throw std::runtime_error("the weights have no " + name);
      read.resize(values.size());
      file.read_f32(*found->entry, read);
      std::copy(read.begin(), read.end(), values.begin());
    });
  }

  /// Whether these are the weights that the golden file was made with.
  bool fits(const Golden& golden) {
    bool same = false;
    this->for_each_tensor(&Parameter::value, [&](const std::string& name, std::span<T> values) {
      if (name != "pooler.dense.weight") return;
      const auto sums = signed_sums<kGradientSums, T>(values);
      const std::vector<double> expected = golden.f64("weights");
      same = std::equal(sums.begin(), sums.end(), expected.begin(), expected.end(),
                        [](double a, double b) { return std::abs(a - b) <= 1e-9; });
    });
    return same;
  }
};

template <class T>
class GoldenMiniLm : public testing::Test {
 protected:
  void SetUp() override {
    if (weights_folder() == nullptr) GTEST_SKIP() << kNoWeights;
  }
};
TYPED_TEST_SUITE(GoldenMiniLm, Precisions);

/// How many of the 50 sentences are run in each precision: in fp64 those of the step, which are of all kinds, for time's sake.
template <class T>
std::int64_t sentences(const Golden& golden) {
  return sizeof(T) == sizeof(float) ? golden.samples().count() : static_cast<std::int64_t>(golden.i32("labels").size());
}

TYPED_TEST(GoldenMiniLm, HiddenStatesAndLogits) {
  const Golden golden("minilm.safetensors");
  MiniLm<TypeParam> model;
  ASSERT_TRUE(model.fits(golden)) << weights_folder() << " holds other weights than those that the golden file was made with";
  expect_forward<TypeParam>(model, golden, sentences<TypeParam>(golden), forward_tolerance<TypeParam>(golden));
}

TYPED_TEST(GoldenMiniLm, GradientsOfOneStep) {
  const Golden golden("minilm.safetensors");
  MiniLm<TypeParam> model;
  ASSERT_TRUE(model.fits(golden)) << weights_folder() << " holds other weights than those that the golden file was made with";
  expect_step<TypeParam>(model, golden, step_tolerance<TypeParam>(golden));
}

TEST(GoldenTokenizer, GivesTheIdsOfTheFiftySentences) {
  if (weights_folder() == nullptr) GTEST_SKIP() << kNoWeights;
  std::ifstream file(std::filesystem::path(LATHE_GOLDEN_MODELS) / "sentences.json");
  const auto texts = nlohmann::json::parse(file).get<std::vector<std::string>>();
  const TokenizedSamples expected = Golden("minilm.safetensors").samples();
  ASSERT_EQ(texts.size(), 50U);
  ASSERT_EQ(expected.count(), 50);
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::load(weights_folder());
  Encoding encoding;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    tokenizer.encode(texts[i], kMaxLength, encoding);
    const auto begin = expected.ids.begin() + expected.offsets[i];
    EXPECT_EQ(encoding.ids, std::vector<std::int32_t>(begin, begin + expected.length(static_cast<std::int64_t>(i)))) << texts[i];
  }
}

}  // namespace
}  // namespace lathe
