#include "lathe/checkpoint/bert_names.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lathe/checkpoint/safetensors_writer.h"
#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::message_of;
using checkpoint_test::TemporaryFolder;

BertConfig tiny() {
  BertConfig config;
  config.vocabulary_size = 10;
  config.hidden_size = 4;
  config.layers = 2;
  config.heads = 2;
  config.intermediate_size = 8;
  config.max_positions = 6;
  return config;
}

/// A file under construction: names with shapes, all zeros.
struct Published {
  std::string name;
  std::vector<std::int64_t> shape;
  SafetensorsType type = SafetensorsType::f32;
};

std::vector<Published> published(const std::vector<ExpectedTensor>& tensors, std::string_view prefix) {
  std::vector<Published> result;
  for (const ExpectedTensor& tensor : tensors) {
    const bool head = tensor.name.starts_with("classifier.");
    result.push_back({(head ? "" : std::string(prefix)) + tensor.name, tensor.shape});
  }
  return result;
}

class BertNames : public testing::Test {
 protected:
  SafetensorsFile write(const std::vector<Published>& tensors) const {
    static constexpr std::size_t kMostBytes = 4096;
    const std::vector<std::byte> zeros(kMostBytes);
    std::vector<TensorView> views;
    views.reserve(tensors.size());
    for (const Published& tensor : tensors) {
      views.push_back({tensor.name, tensor.type, tensor.shape, std::span(zeros).first(*byte_count(tensor.type, tensor.shape))});
    }
    write_safetensors(path(), views);
    return SafetensorsFile::open(path());
  }
  std::filesystem::path path() const { return folder_.path() / "m.safetensors"; }

  std::string refusal(const std::vector<Published>& tensors, const std::vector<ExpectedTensor>& expected) const {
    const SafetensorsFile file = write(tensors);
    return message_of<MismatchError>([&] { match_bert_tensors(file, expected); });
  }
  std::vector<std::string> problems(const std::vector<Published>& tensors, std::span<const ExpectedTensor> expected) const {
    const SafetensorsFile file = write(tensors);
    try {
      match_bert_tensors(file, expected);
    } catch (const WeightsMismatchError& failure) {
      return failure.problems();
    }
    return {};
  }

  TemporaryFolder folder_;
};

Published& named(std::vector<Published>& tensors, std::string_view name) {
  return *std::ranges::find(tensors, name, &Published::name);
}
void drop(std::vector<Published>& tensors, std::string_view name) {
  std::erase_if(tensors, [&](const Published& tensor) { return tensor.name == name; });
}

TEST_F(BertNames, TheTensorsOfABert) {
  const std::vector<ExpectedTensor> tensors = bert_tensors(tiny(), 3);
  ASSERT_EQ(tensors.size(), 5U + 2 * 16 + 2 + 2);
  const auto shape = [&](std::string_view name) {
    const auto at = std::ranges::find(tensors, name, &ExpectedTensor::name);
    return at == tensors.end() ? std::vector<std::int64_t>{-1} : at->shape;
  };
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(shape("embeddings.word_embeddings.weight"), (Shape{10, 4}));
  EXPECT_EQ(shape("embeddings.position_embeddings.weight"), (Shape{6, 4}));
  EXPECT_EQ(shape("embeddings.token_type_embeddings.weight"), (Shape{2, 4}));
  EXPECT_EQ(shape("encoder.layer.1.attention.self.query.weight"), (Shape{4, 4}));
  EXPECT_EQ(shape("encoder.layer.1.intermediate.dense.weight"), (Shape{8, 4}));
  EXPECT_EQ(shape("encoder.layer.1.output.dense.weight"), (Shape{4, 8}));
  EXPECT_EQ(shape("encoder.layer.1.output.LayerNorm.bias"), (Shape{4}));
  EXPECT_EQ(shape("pooler.dense.weight"), (Shape{4, 4}));
  EXPECT_EQ(shape("classifier.weight"), (Shape{3, 4}));
  EXPECT_EQ(shape("classifier.bias"), (Shape{3}));
  EXPECT_EQ(bert_tensors(tiny(), 0).size(), tensors.size() - 2);
}

TEST_F(BertNames, WithAndWithoutPrefix) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 2);
  for (const char* prefix : {"", "bert."}) {
    const SafetensorsFile file = write(published(expected, prefix));
    const BertMatch match = match_bert_tensors(file, expected);
    ASSERT_EQ(match.found.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(match.found[i].name, expected[i].name);
      EXPECT_EQ(match.found[i].entry->shape, expected[i].shape);
      EXPECT_TRUE(match.found[i].entry->name.ends_with(expected[i].name));
    }
    EXPECT_TRUE(match.absent.empty() && match.replaced.empty() && match.other_heads.empty() && match.unused.empty());
  }
}

TEST_F(BertNames, GammaAndBetaAreWeightAndBias) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 0);
  std::vector<Published> tensors = published(expected, "bert.");
  for (Published& tensor : tensors) {
    if (const std::size_t at = tensor.name.find("LayerNorm.weight"); at != std::string::npos)
      tensor.name.replace(at + 10, 6, "gamma");
    if (const std::size_t at = tensor.name.find("LayerNorm.bias"); at != std::string::npos)
      tensor.name.replace(at + 10, 4, "beta");
  }
  const SafetensorsFile file = write(tensors);
  const BertMatch match = match_bert_tensors(file, expected);
  EXPECT_EQ(match.found.size(), expected.size());
  EXPECT_EQ(match.found[3].name, "embeddings.LayerNorm.weight");
  EXPECT_EQ(match.found[3].entry->name, "bert.embeddings.LayerNorm.gamma");
}

TEST_F(BertNames, OneTensorUnderTwoNamesIsRefused) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 0);
  for (const char* twin : {"bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"}) {
    std::vector<Published> tensors = published(expected, "bert.");
    tensors.push_back({twin, {4}});
    const SafetensorsFile file = write(tensors);
    const std::string message = message_of<FormatError>([&] { match_bert_tensors(file, expected); });
    EXPECT_NE(message.find("is the same tensor as"), std::string::npos) << message;
    EXPECT_NE(message.find(twin), std::string::npos) << message;
  }
}

TEST_F(BertNames, PositionIdsAndOtherHeadsArePassedOver) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 0);
  std::vector<Published> tensors = published(expected, "bert.");
  tensors.push_back({"bert.embeddings.position_ids", {1, 6}, SafetensorsType::i64});
  tensors.push_back({"cls.predictions.bias", {10}});
  tensors.push_back({"cls.predictions.transform.LayerNorm.gamma", {4}});
  tensors.push_back({"classifier.weight", {2, 4}});
  tensors.push_back({"bert.something.else", {1}});
  const SafetensorsFile file = write(tensors);
  const BertMatch match = match_bert_tensors(file, expected);
  EXPECT_EQ(match.found.size(), expected.size());
  EXPECT_EQ(match.other_heads,
            (std::vector<std::string>{"classifier.weight", "cls.predictions.bias", "cls.predictions.transform.LayerNorm.gamma"}));
  EXPECT_EQ(match.unused, (std::vector<std::string>{"bert.something.else"}));

  named(tensors, "bert.embeddings.position_ids").type = SafetensorsType::f32;
  const SafetensorsFile floating = write(tensors);
  EXPECT_EQ(match_bert_tensors(floating, expected).unused,
            (std::vector<std::string>{"bert.embeddings.position_ids", "bert.something.else"}));
}

TEST_F(BertNames, MissingTensorsAreListedAndCounted) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 0);
  std::vector<Published> tensors = published(expected, "bert.");
  drop(tensors, "bert.embeddings.LayerNorm.bias");
  EXPECT_EQ(refusal(tensors, expected),
            path().string() + ": 1 tensor does not fit config.json: embeddings.LayerNorm.bias is missing");
  std::erase_if(tensors, [](const Published& tensor) { return tensor.name.find("layer.1.") != std::string::npos; });
  // As many as a line has room for, and how many there are beside.
  const std::string line = refusal(tensors, expected);
  EXPECT_TRUE(line.starts_with(path().string() + ": 17 tensors do not fit config.json: embeddings.LayerNorm.bias is missing; "
                                                 "encoder.layer.1.attention.self.query.weight is missing; "))
      << line;
  EXPECT_TRUE(line.ends_with(" more, which `lathe inspect` lists")) << line;
  EXPECT_LE(line.size(), kLongestMessage);
  EXPECT_EQ(problems(tensors, expected).size(), 17U);
  EXPECT_EQ(problems(tensors, expected).back(), "encoder.layer.1.output.LayerNorm.bias is missing");
}

TEST_F(BertNames, MisshapedTensorsAreShownWithBothShapes) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 0);
  std::vector<Published> tensors = published(expected, "");
  named(tensors, "embeddings.word_embeddings.weight").shape = {11, 4};
  named(tensors, "pooler.dense.bias").shape = {4, 1};
  named(tensors, "encoder.layer.0.output.dense.bias").type = SafetensorsType::i32;
  EXPECT_EQ(problems(tensors, expected),
            (std::vector<std::string>{"embeddings.word_embeddings.weight is [11, 4], expected [10, 4]",
                                      "encoder.layer.0.output.dense.bias is of type I32, expected F32, F16, BF16 or F64",
                                      "pooler.dense.bias is [4, 1], expected [4]"}));
}

TEST_F(BertNames, MoreLayersThanTheConfigurationSaysAreRefused) {
  std::vector<Published> tensors = published(bert_tensors(tiny(), 0), "bert.");
  tensors.push_back({"bert.encoder.layer.2.output.dense.bias", {4}});
  EXPECT_EQ(refusal(tensors, bert_tensors(tiny(), 0)),
            path().string() +
                ": 1 tensor does not fit config.json: bert.encoder.layer.2.output.dense.bias is of a "
                "layer beyond the 2 expected");
}

TEST_F(BertNames, AbsentHeadsStartAnew) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 2, Presence::replaceable);
  std::vector<Published> tensors = published(bert_tensors(tiny(), 0), "bert.");
  drop(tensors, "bert.pooler.dense.weight");
  drop(tensors, "bert.pooler.dense.bias");
  const SafetensorsFile file = write(tensors);
  const BertMatch match = match_bert_tensors(file, expected);
  EXPECT_EQ(match.absent,
            (std::vector<std::string>{"pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"}));
  EXPECT_EQ(match.found.size(), expected.size() - 4);
}

TEST_F(BertNames, AHeadForOtherLabelsIsReplacedWhole) {
  std::vector<Published> tensors = published(bert_tensors(tiny(), 3), "bert.");
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 2, Presence::replaceable);
  const SafetensorsFile file = write(tensors);
  const BertMatch match = match_bert_tensors(file, expected);
  EXPECT_EQ(match.replaced, (std::vector<std::string>{"classifier.weight [3, 4]", "classifier.bias [3]"}));
  EXPECT_TRUE(match.absent.empty());
  EXPECT_EQ(match.found.size(), expected.size() - 2);

  // Half a head is no head.
  drop(tensors, "classifier.bias");
  named(tensors, "classifier.weight").shape = {2, 4};
  const SafetensorsFile half = write(tensors);
  const BertMatch without = match_bert_tensors(half, expected);
  EXPECT_EQ(without.replaced, (std::vector<std::string>{"classifier.weight [2, 4]"}));
  EXPECT_EQ(without.absent, (std::vector<std::string>{"classifier.bias"}));
}

TEST_F(BertNames, ARequiredHeadMustBeThere) {
  const std::vector<ExpectedTensor> expected = bert_tensors(tiny(), 2);
  std::vector<Published> tensors = published(expected, "bert.");
  drop(tensors, "bert.pooler.dense.bias");
  named(tensors, "classifier.weight").shape = {3, 4};
  EXPECT_EQ(refusal(tensors, expected), path().string() +
                                            ": 2 tensors do not fit config.json: classifier.weight is [3, 4], "
                                            "expected [2, 4]; pooler.dense.bias is missing");
}

TEST_F(BertNames, PublishedNames) {
  EXPECT_EQ(published_bert_name("embeddings.LayerNorm.weight"), "bert.embeddings.LayerNorm.weight");
  EXPECT_EQ(published_bert_name("pooler.dense.bias"), "bert.pooler.dense.bias");
  EXPECT_EQ(published_bert_name("classifier.weight"), "classifier.weight");
}

TEST(Vocabulary, MustFitTheEmbeddings) {
  const auto refusal = [](std::int64_t rows, std::int64_t tokens) {
    return message_of<MismatchError>([&] { check_vocabulary(rows, tokens, "m/config.json", "m/vocab.txt"); });
  };
  EXPECT_EQ(refusal(30522, 30522), "(nothing thrown)");
  EXPECT_EQ(refusal(30528, 30522), "(nothing thrown)");  // padded to 64
  EXPECT_EQ(refusal(30592, 30522), "(nothing thrown)");  // padded to 128
  EXPECT_EQ(refusal(30522, 21128),
            "m/vocab.txt: has 21128 tokens, but config.json has vocab_size 30522: take the tokenizer that the model was trained "
            "with");
  EXPECT_NE(refusal(30522, 30523), "(nothing thrown)");
  EXPECT_NE(refusal(30522, 30520), "(nothing thrown)");
  EXPECT_NE(refusal(30656, 30522), "(nothing thrown)");
}

}  // namespace
}  // namespace lathe
