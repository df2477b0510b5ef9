#include "lathe/checkpoint/inspection.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "lathe/checkpoint/safetensors_writer.h"
#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::raw;
using checkpoint_test::safetensors;
using checkpoint_test::TemporaryFolder;

/// A file with one tensor of that type and those bits.
template <class Bits>
SafetensorsFile one_tensor(const TemporaryFolder& folder, std::string_view type, const std::vector<Bits>& values,
                           std::size_t elements) {
  const std::string data = raw(values);
  const std::string header = R"({"x":{"dtype":")" + std::string(type) + R"(","shape":[)" + std::to_string(elements) +
                             R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}";
  return SafetensorsFile::open(folder.file("x.safetensors", safetensors(header, data)));
}

template <class Bits>
NonFiniteCount count(std::string_view type, const std::vector<Bits>& values) {
  const TemporaryFolder folder;
  const std::size_t elements = type == "C64" ? values.size() / 2 : values.size();
  const SafetensorsFile file = one_tensor(folder, type, values, elements);
  const auto counts = count_non_finite(file, 1);
  EXPECT_EQ(counts.size(), 1U);
  EXPECT_TRUE(counts.at(0));
  return counts.at(0).value_or(NonFiniteCount{-1, -1});
}

TEST(NonFinite, EveryBitPatternOf16And8Bits) {
  std::vector<std::uint16_t> patterns(65'536);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  EXPECT_EQ(count("F16", patterns), (NonFiniteCount{std::int64_t{2} * 1023, 2}));
  EXPECT_EQ(count("BF16", patterns), (NonFiniteCount{std::int64_t{2} * 127, 2}));
  std::vector<std::uint8_t> bytes(256);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i);
  // Micikevicius et al., FP8 Formats for Deep Learning, table 1; OCP MX for E8M0; the fnuz formats have one NaN, in the place of -0.
  EXPECT_EQ(count("F8_E5M2", bytes), (NonFiniteCount{6, 2}));
  EXPECT_EQ(count("F8_E4M3", bytes), (NonFiniteCount{2, 0}));
  EXPECT_EQ(count("F8_E8M0", bytes), (NonFiniteCount{1, 0}));
  EXPECT_EQ(count("F8_E4M3FNUZ", bytes), (NonFiniteCount{1, 0}));
  EXPECT_EQ(count("F8_E5M2FNUZ", bytes), (NonFiniteCount{1, 0}));
}

TEST(NonFinite, SinglesAndDoubles) {
  const auto f32 = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  const std::vector<float> singles = {0.0F,
                                      -0.0F,
                                      std::numeric_limits<float>::max(),
                                      std::numeric_limits<float>::denorm_min(),
                                      f32(0x7F800000),
                                      f32(0xFF800000),
                                      f32(0x7F800001),
                                      f32(0xFFFFFFFF),
                                      f32(0x7FC00000)};
  EXPECT_EQ(count("F32", singles), (NonFiniteCount{3, 2}));
  EXPECT_EQ(count("C64", std::vector<float>{1, f32(0x7FC00000), f32(0x7F800000), 2}), (NonFiniteCount{1, 1}));
  const std::vector<double> doubles = {1.0, std::numeric_limits<double>::max(), std::numeric_limits<double>::infinity(),
                                       -std::numeric_limits<double>::quiet_NaN(), 1e300};
  EXPECT_EQ(count("F64", doubles), (NonFiniteCount{1, 1}));
}

TEST(NonFinite, InTensorsOfManyChunksByAnyNumberOfThreads) {
  const TemporaryFolder folder;
  std::vector<float> values(500'000, 1.0F);
  // At the ends, and on either side of a chunk's end.
  for (const std::size_t at : {std::size_t{0}, std::size_t{65'535}, std::size_t{65'536}, values.size() - 1})
    values[at] = std::numeric_limits<float>::quiet_NaN();
  values[300'000] = -std::numeric_limits<float>::infinity();
  const std::vector<std::int64_t> integers = {-1, 5};  // bits that would be NaN in another type
  const std::vector<TensorView> views = {
      {.name = "a", .type = SafetensorsType::i64, .shape = {2}, .data = std::as_bytes(std::span(integers))},
      {.name = "b", .type = SafetensorsType::f32, .shape = {500, 1000}, .data = std::as_bytes(std::span(values))},
      {.name = "c", .type = SafetensorsType::f32, .shape = {0}, .data = {}}};
  write_safetensors(folder.path() / "x.safetensors", views);
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "x.safetensors");
  for (const int threads : {1, 2, 5}) {
    const auto counts = count_non_finite(file, threads);
    ASSERT_EQ(counts.size(), 3U);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const std::map<std::string, std::optional<NonFiniteCount>> expected = {
          {"a", std::nullopt}, {"b", NonFiniteCount{4, 1}}, {"c", NonFiniteCount{}}};
      EXPECT_EQ(counts[i], expected.at(file.tensors()[i].name));
    }
  }
}

TEST(NonFinite, AFileThatIsCutMeanwhileIsAnErrorNotASignal) {
  const TemporaryFolder folder;
  const SafetensorsFile file = one_tensor(folder, "F32", std::vector<float>(200'000), 200'000);
  std::filesystem::resize_file(file.path(), 1000);
  EXPECT_THROW(count_non_finite(file, 2), FileError);
}

TEST(Modules, AreNamedUpToTheFirstNumber) {
  EXPECT_EQ(module_group("bert.encoder.layer.3.output.dense.weight"), "encoder.layer.3");
  EXPECT_EQ(module_group("encoder.layer.11.output.dense.weight"), "encoder.layer.11");
  EXPECT_EQ(module_group("embeddings.word_embeddings.weight"), "embeddings");
  EXPECT_EQ(module_group("pooler.dense.bias"), "pooler");
  EXPECT_EQ(module_group("model.layers.0.self_attn.q_proj.weight"), "model.layers.0");
  EXPECT_EQ(module_group("weight"), "weight");
  EXPECT_EQ(module_group("x.5"), "x.5");
  EXPECT_EQ(module_group(""), "");
}

TensorEntry entry(std::string name, SafetensorsType type, std::vector<std::int64_t> shape) {
  const std::uint64_t bytes = byte_count(type, shape).value();
  return {.name = std::move(name), .type = type, .shape = std::move(shape), .offset = 0, .bytes = bytes};
}

TEST(Modules, TotalsCountParametersOnlyInOrderOfNumbers) {
  const std::vector<TensorEntry> tensors = {
      entry("encoder.layer.10.a", SafetensorsType::f32, {2, 3}), entry("encoder.layer.9.a", SafetensorsType::f32, {4}),
      entry("encoder.layer.9.b", SafetensorsType::f16, {5}), entry("embeddings.position_ids", SafetensorsType::i64, {512}),
      entry("embeddings.a", SafetensorsType::bf16, {7})};
  const auto modules = parameters_by_module(tensors);
  ASSERT_EQ(modules.size(), 3U);
  EXPECT_EQ(modules[0].first, "embeddings");
  EXPECT_EQ(modules[0].second.elements, 7);
  EXPECT_EQ(modules[1].first, "encoder.layer.9");
  EXPECT_EQ(modules[1].second.elements, 9);
  EXPECT_EQ(modules[1].second.tensors, 2);
  EXPECT_EQ(modules[2].first, "encoder.layer.10");
  const auto types = totals_by_type(tensors);
  EXPECT_EQ(types.at(SafetensorsType::f32).elements, 10);
  EXPECT_EQ(types.at(SafetensorsType::f32).bytes, 40U);
  EXPECT_EQ(types.at(SafetensorsType::i64).elements, 512);
}

/// A BERT whose file lacks, adds and misshapes as each test says.
class Fit : public testing::Test {
 protected:
  Fit() {
    config_.vocabulary_size = 10;
    config_.hidden_size = 4;
    config_.layers = 2;
    config_.heads = 2;
    config_.intermediate_size = 8;
    config_.max_positions = 6;
  }
  SafetensorsFile write(const std::vector<ExpectedTensor>& tensors) const {
    const std::vector<std::byte> zeros(4096);
    std::vector<TensorView> views;
    for (const ExpectedTensor& tensor : tensors) {
      const std::uint64_t bytes = byte_count(SafetensorsType::f32, tensor.shape).value();
      views.push_back(
          {.name = tensor.name, .type = SafetensorsType::f32, .shape = tensor.shape, .data = std::span(zeros).first(bytes)});
    }
    write_safetensors(folder_.path() / "x.safetensors", views);
    return SafetensorsFile::open(folder_.path() / "x.safetensors");
  }

  BertConfig config_;
  TemporaryFolder folder_;
};

TEST_F(Fit, AWholeModelFits) {
  const SafetensorsFile file = write(bert_tensors(config_, 0));
  const WeightsFit fit = compare_weights(file, config_);
  EXPECT_EQ(fit.classes, 0);
  EXPECT_TRUE(fit.match.missing.empty() && fit.match.misfits.empty() && fit.match.absent.empty() && fit.match.unused.empty());
}

TEST_F(Fit, AllThatIsMissingMisshapenOrOverIsTold) {
  std::vector<ExpectedTensor> tensors = bert_tensors(config_, 0);
  // Sixteen tensors of a layer go, one is of another shape, one too many.
  std::erase_if(tensors, [](const ExpectedTensor& tensor) { return tensor.name.starts_with("encoder.layer.1."); });
  tensors.front().shape = {9, 4};
  tensors.push_back({"extra.weight", {3}});
  const SafetensorsFile file = write(tensors);
  const WeightsFit fit = compare_weights(file, config_);
  EXPECT_EQ(fit.match.missing.size(), 16U);
  EXPECT_EQ(fit.match.misfits, std::vector<std::string>{"embeddings.word_embeddings.weight is [9, 4], expected [10, 4]"});
  EXPECT_EQ(fit.match.unused, std::vector<std::string>{"extra.weight"});
}

TEST_F(Fit, TheHeadIsExpectedWhereTheConfigurationOrTheFileHasOne) {
  config_.architectures = {"BertForSequenceClassification"};
  const SafetensorsFile without = write(bert_tensors(config_, 0));
  const WeightsFit lacking = compare_weights(without, config_);
  EXPECT_EQ(lacking.classes, 2);
  EXPECT_EQ(lacking.match.missing, (std::vector<std::string>{"classifier.weight", "classifier.bias"}));

  const SafetensorsFile with = write(bert_tensors(config_, 3));
  EXPECT_EQ(compare_weights(with, config_).classes, 3);
  config_.labels = {"a", "b"};
  const WeightsFit other = compare_weights(with, config_);
  EXPECT_EQ(other.classes, 2);
  EXPECT_EQ(other.match.misfits.size(), 2U);
}

}  // namespace
}  // namespace lathe
