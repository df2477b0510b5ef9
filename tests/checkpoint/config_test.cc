#include "lathe/checkpoint/config.h"

#include <gtest/gtest.h>

#include "lathe/checkpoint/json.h"
#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::contents;
using checkpoint_test::message_of;
using checkpoint_test::TemporaryFolder;

constexpr std::string_view kSizes =
    R"("vocab_size": 100, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "max_position_embeddings": 64)";

/// A valid configuration with `more` at its end.
std::string with(std::string_view more) {
  return std::string(R"({"model_type": "bert", )").append(kSizes).append(more.empty() ? "" : ", ").append(more).append("}");
}

BertConfig parse(std::string_view text) { return BertConfig::parse(text, "config.json"); }

std::string refusal(std::string_view text) {
  return message_of<FormatError>([&] { parse(text); });
}

TEST(BertConfig, AbsentKeysHaveHuggingFacesDefaults) {
  const BertConfig config = parse(with(""));
  EXPECT_EQ(config.vocabulary_size, 100);
  EXPECT_EQ(config.hidden_size, 24);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.heads, 3);
  EXPECT_EQ(config.head_size(), 8);
  EXPECT_EQ(config.intermediate_size, 48);
  EXPECT_EQ(config.max_positions, 64);
  EXPECT_EQ(config.token_types, 2);
  EXPECT_EQ(config.hidden_activation, HiddenActivation::gelu);
  EXPECT_EQ(config.layer_norm_epsilon, 1e-12);
  EXPECT_EQ(config.hidden_dropout, 0.1);
  EXPECT_EQ(config.attention_dropout, 0.1);
  EXPECT_FALSE(config.classifier_dropout.has_value());
  EXPECT_EQ(config.initializer_range, 0.02);
  EXPECT_EQ(config.pad_token_id, 0);
  EXPECT_TRUE(config.labels.empty());
  EXPECT_TRUE(config.problem_type.empty());
  EXPECT_TRUE(config.architectures.empty());
}

TEST(BertConfig, ReadsEveryKey) {
  const BertConfig config = parse(with(
      R"("type_vocab_size": 1, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0.25,
      "classifier_dropout": 0.3, "initializer_range": 0.01, "pad_token_id": 7, "architectures": ["BertForSequenceClassification"],
      "id2label": {"1": "positive", "0": "negative"}, "label2id": {"negative": 0, "positive": 1}, "num_labels": 2,
      "problem_type": "single_label_classification", "bos_token_id": null, "position_embedding_type": "absolute", "is_decoder": false,
      "pruned_heads": {}, "torch_dtype": "float16")"));
  EXPECT_EQ(config.token_types, 1);
  EXPECT_EQ(config.hidden_activation, HiddenActivation::gelu_tanh);
  EXPECT_EQ(config.layer_norm_epsilon, 1e-5);
  EXPECT_EQ(config.hidden_dropout, 0);
  EXPECT_EQ(config.attention_dropout, 0.25);
  EXPECT_EQ(config.classifier_dropout, 0.3);
  EXPECT_EQ(config.initializer_range, 0.01);
  EXPECT_EQ(config.pad_token_id, 7);
  EXPECT_EQ(config.architectures, (std::vector<std::string>{"BertForSequenceClassification"}));
  EXPECT_EQ(config.labels, (std::vector<std::string>{"negative", "positive"}));
  EXPECT_EQ(config.problem_type, "single_label_classification");
}

TEST(BertConfig, Activations) {
  const std::vector<std::pair<std::string, HiddenActivation>> known = {{"gelu", HiddenActivation::gelu},
                                                                       {"gelu_new", HiddenActivation::gelu_tanh},
                                                                       {"gelu_pytorch_tanh", HiddenActivation::gelu_tanh},
                                                                       {"relu", HiddenActivation::relu},
                                                                       {"silu", HiddenActivation::silu},
                                                                       {"tanh", HiddenActivation::tanh}};
  for (const auto& [name, activation] : known)
    EXPECT_EQ(parse(with(R"("hidden_act": ")" + name + "\"")).hidden_activation, activation) << name;
  EXPECT_EQ(refusal(with(R"("hidden_act": "mish")")),
            "config.json, key hidden_act: found \"mish\"; Lathe has gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh");
}

TEST(BertConfig, MissingKeysAreListedTogether) {
  EXPECT_EQ(refusal(R"({"model_type": "bert", "vocab_size": 5, "hidden_size": null, "num_attention_heads": 1})"),
            "config.json: has no hidden_size, num_hidden_layers, intermediate_size, max_position_embeddings: this is not the "
            "config.json of a BERT");
}

TEST(BertConfig, RefusesOtherModels) {
  EXPECT_EQ(refusal(R"({"model_type": "roberta"})"), "config.json, key model_type: found \"roberta\"; Lathe supports \"bert\"");
  const std::string untyped = std::string("{").append(kSizes);
  EXPECT_EQ(refusal(untyped + R"(, "architectures": ["RobertaModel"]})"),
            "config.json, key architectures: found \"RobertaModel\"; Lathe supports \"bert\"");
  EXPECT_EQ(parse(untyped + R"(, "architectures": ["BertForMaskedLM"]})").model_type, "bert");
  EXPECT_EQ(parse(untyped + "}").model_type, "bert");
}

struct Refusal {
  const char* more;
  const char* message;
};

TEST(BertConfig, RefusesValuesThatMakeNoSense) {
  const std::vector<Refusal> cases = {
      {R"("type_vocab_size": 0)", "key type_vocab_size: found 0, expected an integer from 1 to 1000"},
      {R"("type_vocab_size": -2)", "key type_vocab_size: found -2, expected an integer from 1 to 1000"},
      {R"("type_vocab_size": 2.0)", "key type_vocab_size: found 2.0, expected an integer from 1 to 1000"},
      {R"("type_vocab_size": "2")", "key type_vocab_size: found \"2\", expected an integer from 1 to 1000"},
      {R"("type_vocab_size": 18446744073709551618)",
       "key type_vocab_size: found 18446744073709551618, expected an integer from 1 to 1000"},
      {R"("pad_token_id": 100)", "key pad_token_id: found 100, expected an integer from 0 to 99"},
      {R"("pad_token_id": -1)", "key pad_token_id: found -1, expected an integer from 0 to 99"},
      {R"("hidden_dropout_prob": 1.0)", "key hidden_dropout_prob: found 1.0, expected a number from 0 to 0.99"},
      {R"("hidden_dropout_prob": -0.1)", "key hidden_dropout_prob: found -0.1, expected a number from 0 to 0.99"},
      {R"("hidden_dropout_prob": true)", "key hidden_dropout_prob: found true, expected a number from 0 to 0.99"},
      {R"("classifier_dropout": 2)", "key classifier_dropout: found 2, expected a number from 0 to 0.99"},
      {R"("layer_norm_eps": 0)", "key layer_norm_eps: found 0, expected a number from 1e-30 to 0.1"},
      {R"("initializer_range": -1)", "key initializer_range: found -1, expected a number from 0 to 10"},
      {R"("hidden_act": {})", "key hidden_act: found an object, expected a string"},
      {R"("architectures": "BertModel")", "key architectures: found \"BertModel\", expected a list of strings"},
      {R"("architectures": [1])", "key architectures: found 1, expected strings"},
      {R"("problem_type": [])", "key problem_type: found a list, expected a string"},
      {R"("position_embedding_type": "relative_key")",
       R"(key position_embedding_type: found "relative_key"; Lathe supports "absolute")"},
      {R"("is_decoder": true)", "key is_decoder: is true: this model is a decoder, which Lathe does not support"},
      {R"("add_cross_attention": true)",
       "key add_cross_attention: is true: this model attends to a second sequence, which Lathe does not support"},
      {R"("is_decoder": "no")", "key is_decoder: found \"no\", expected true or false"},
      {R"("pruned_heads": {"0": [1]})", "key pruned_heads: Lathe does not support models with pruned heads"},
      {R"("quantization_config": {"bits": 4})",
       "key quantization_config: Lathe does not read quantized weights; use the model that they were made from"},
  };
  for (const Refusal& test : cases) EXPECT_EQ(refusal(with(test.more)), std::string("config.json, ") + test.message) << test.more;
}

TEST(BertConfig, RefusesSizesThatDoNotFitEachOther) {
  const auto sized = [](int hidden, int heads) {
    return R"({"vocab_size": 100, "hidden_size": )" + std::to_string(hidden) +
           R"(, "num_hidden_layers": 2, "num_attention_heads": )" + std::to_string(heads) +
           R"(, "intermediate_size": 48, "max_position_embeddings": 64})";
  };
  EXPECT_EQ(refusal(sized(24, 5)), "config.json, key num_attention_heads: 5 heads do not divide hidden_size 24");
  EXPECT_EQ(
      refusal(sized(1024, 2)),
      "config.json, key num_attention_heads: hidden_size 1024 over 2 heads makes heads of 512; Lathe's attention goes up to 256");
  EXPECT_EQ(parse(sized(512, 2)).head_size(), 256);
  EXPECT_EQ(refusal(sized(-24, 3)), "config.json, key hidden_size: found -24, expected an integer from 1 to 65536");
  EXPECT_EQ(refusal(sized(2'000'000'000, 3)),
            "config.json, key hidden_size: found 2000000000, expected an integer from 1 to 65536");
}

TEST(BertConfig, RefusesLabelsThatContradictThemselves) {
  const std::vector<Refusal> cases = {
      {R"("id2label": {"0": "a", "2": "b"})", "key id2label: has the id \"2\"; its 2 labels must have the ids 0 to 1"},
      {R"("id2label": {"0": "a", "01": "b"})", "key id2label: has the id \"01\"; its 2 labels must have the ids 0 to 1"},
      {R"("id2label": {"0": "a", "x": "b"})", "key id2label: has the id \"x\"; its 2 labels must have the ids 0 to 1"},
      {R"("id2label": {"0": "a", "-1": "b"})", "key id2label: has the id \"-1\"; its 2 labels must have the ids 0 to 1"},
      {R"("id2label": {"0": "a", "1": "a"})", "key id2label: gives two ids the label \"a\""},
      {R"("id2label": {"0": "a", "1": 1})", "key id2label: found 1, expected a string for the id 1"},
      {R"("id2label": ["a", "b"])", "key id2label: found a list, expected an object of labels"},
      {R"("id2label": {"0": "a", "1": "b"}, "num_labels": 3)", "key num_labels: is 3, but id2label names 2 labels"},
      {R"("id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0})", "key label2id: names 1 labels, id2label 2"},
      {R"("id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0})", "key label2id: gives \"a\" the id 1, id2label 0"},
      {R"("id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "c": 1})",
       "key label2id: names the label \"c\", which id2label does not"},
      {R"("label2id": {"a": 0, "b": 1})", "key label2id: names 2 labels, id2label 0"},
  };
  for (const Refusal& test : cases) EXPECT_EQ(refusal(with(test.more)), std::string("config.json, ") + test.message) << test.more;
}

TEST(BertConfig, LabelsAsHuggingFaceWritesThem) {
  // Only id2label was given: transformers leaves its placeholders under label2id.
  EXPECT_EQ(parse(with(R"("id2label": {"0": "x", "1": "y", "2": "z"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1})")).labels,
            (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(parse(with(R"("num_labels": 3)")).labels, (std::vector<std::string>{"LABEL_0", "LABEL_1", "LABEL_2"}));
  std::string many;
  for (int id = 0; id < 12; ++id) many += (id == 0 ? "\"" : ", \"") + std::to_string(id) + "\": \"l" + std::to_string(id) + "\"";
  const std::vector<std::string> labels = parse(with("\"id2label\": {" + many + "}")).labels;
  ASSERT_EQ(labels.size(), 12U);
  EXPECT_EQ(labels[10], "l10");
}

TEST(BertConfig, RefusesWhatIsNotStrictJson) {
  EXPECT_EQ(refusal("{\n\"hidden_size\": 1,\n\"hidden_size\": 2}"),
            "config.json: the key \"hidden_size\" occurs twice in one object");
  EXPECT_TRUE(refusal("{\n  \"hidden_size\": ,\n}").starts_with("config.json, line 2, column 18: is not valid JSON: "))
      << refusal("{\n  \"hidden_size\": ,\n}");
  EXPECT_EQ(refusal("[]"), "config.json: holds a list, expected an object");
  EXPECT_NE(refusal(""), "(nothing thrown)");
}

TEST(BertConfig, BoundsTheFile) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.file("config.json", "{");
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40U);
  EXPECT_EQ(message_of<FileError>([&] { BertConfig::load(path); }),
            path.string() + ": has 1099511627776 bytes; a file of its kind has at most 8388608");
}

TEST(BertConfig, SavingKeepsWhatWasThereAndChangesWhatMust) {
  const TemporaryFolder folder;
  BertConfig config = BertConfig::load(folder.file(
      "config.json",
      with(R"("layer_norm_eps": 1.0E-12, "hidden_act": "gelu_pytorch_tanh", "_name_or_path": "someone/model", "use_cache": true,
           "big": 123456789012345678901234567890, "nested": {"z": [1, 2.50]}, "num_labels": 5, "torch_dtype": "float16", "architectures": ["BertModel"])")));
  config.set_sequence_classification({"bad", "good"});
  config.classifier_dropout = 0.2;
  const std::filesystem::path saved = folder.path() / "saved.json";
  config.save(saved);
  EXPECT_EQ(contents(saved), R"({
  "_name_or_path": "someone/model",
  "architectures": [
    "BertForSequenceClassification"
  ],
  "attention_probs_dropout_prob": 0.1,
  "big": 123456789012345678901234567890,
  "classifier_dropout": 0.2,
  "hidden_act": "gelu_pytorch_tanh",
  "hidden_dropout_prob": 0.1,
  "hidden_size": 24,
  "id2label": {
    "0": "bad",
    "1": "good"
  },
  "initializer_range": 0.02,
  "intermediate_size": 48,
  "label2id": {
    "bad": 0,
    "good": 1
  },
  "layer_norm_eps": 1.0E-12,
  "max_position_embeddings": 64,
  "model_type": "bert",
  "nested": {
    "z": [
      1,
      2.50
    ]
  },
  "num_attention_heads": 3,
  "num_hidden_layers": 2,
  "pad_token_id": 0,
  "problem_type": "single_label_classification",
  "torch_dtype": "float32",
  "type_vocab_size": 2,
  "use_cache": true,
  "vocab_size": 100
}
)");
  const BertConfig again = BertConfig::load(saved);
  EXPECT_EQ(again.labels, config.labels);
  EXPECT_EQ(again.hidden_activation, HiddenActivation::gelu_tanh);
  EXPECT_EQ(again.classifier_dropout, 0.2);
  again.save(saved);
  EXPECT_EQ(BertConfig::load(saved).to_json(), again.to_json());
}

TEST(BertConfig, AConfigurationWithoutADocumentIsComplete) {
  BertConfig config;
  config.hidden_size = 32;
  config.heads = 2;
  config.hidden_activation = HiddenActivation::gelu_tanh;
  config.layer_norm_epsilon = 1e-6;
  config.pad_token_id = 3;
  config.set_sequence_classification({"n\xC3\xA4h", "fern \"weit\""});
  const BertConfig again = parse(config.to_json());
  EXPECT_EQ(again.hidden_size, 32);
  EXPECT_EQ(again.hidden_activation, HiddenActivation::gelu_tanh);
  EXPECT_EQ(again.layer_norm_epsilon, 1e-6);
  EXPECT_EQ(again.pad_token_id, 3);
  EXPECT_EQ(again.labels, config.labels);
  EXPECT_EQ(again.architectures, config.architectures);
  EXPECT_EQ(again.problem_type, config.problem_type);
}

TEST(BertConfig, TheTypeOfTheWeightsIsWhereTheFileHadIt) {
  const auto member = [](const std::string& text, std::string_view key) {
    const JsonValue root = parse_json(text);
    const JsonValue* value = find_member(*root.get_if<JsonObject>(), key);
    return value == nullptr ? "absent" : json_description(*value);
  };
  const std::string newer = parse(with(R"("dtype": "bfloat16")")).to_json();
  EXPECT_EQ(member(newer, "dtype"), "\"float32\"");
  EXPECT_EQ(member(newer, "torch_dtype"), "absent");
  const std::string neither = parse(with("")).to_json();
  EXPECT_EQ(member(neither, "dtype"), "absent");
  EXPECT_EQ(member(neither, "torch_dtype"), "\"float32\"");
}

TEST(BertConfig, SavingSpellsOutWhatWasNull) {
  const BertConfig config =
      parse(std::string(R"({"model_type": null, "hidden_act": null, "id2label": null, )").append(kSizes) + "}");
  const std::string text = config.to_json();
  EXPECT_NE(text.find("\"model_type\": \"bert\""), std::string::npos) << text;
  EXPECT_NE(text.find("\"hidden_act\": \"gelu\""), std::string::npos) << text;
  EXPECT_EQ(text.find("id2label"), std::string::npos) << text;
}

TEST(BertConfig, RefusesToWriteALabelTwice) {
  BertConfig config;
  config.set_sequence_classification({"a", "a"});
  EXPECT_THROW(config.to_json(), LogicError);
}

}  // namespace
}  // namespace lathe
