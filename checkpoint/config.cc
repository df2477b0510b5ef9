#include "lathe/checkpoint/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "lathe/checkpoint/input_file.h"
#include "lathe/checkpoint/json.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// Far above any real configuration.
constexpr std::uint64_t kMostBytes = 8U << 20U;
constexpr std::int64_t kMostLabels = 100'000;
constexpr std::int64_t kWidestHead = 256;

enum class Need : std::uint8_t { required, optional };

struct IntegerField {
  std::string_view key;
  std::int64_t BertConfig::*member;
  std::int64_t most;  // the least is 1
  Need need;
};

/// The bounds are far beyond any model and small enough that no product of two sizes overflows.
constexpr std::array kIntegers = {
    IntegerField{"vocab_size", &BertConfig::vocabulary_size, 10'000'000, Need::required},
    IntegerField{"hidden_size", &BertConfig::hidden_size, 65'536, Need::required},
    IntegerField{"num_hidden_layers", &BertConfig::layers, 1'000, Need::required},
    IntegerField{"num_attention_heads", &BertConfig::heads, 65'536, Need::required},
    IntegerField{"intermediate_size", &BertConfig::intermediate_size, 1'000'000, Need::required},
    IntegerField{"max_position_embeddings", &BertConfig::max_positions, 1'000'000, Need::required},
    IntegerField{"type_vocab_size", &BertConfig::token_types, 1'000, Need::optional},
};

struct RealField {
  std::string_view key;
  double BertConfig::*member;
  double least, most;
};

/// A dropout rate of nearly 1 would leave nothing to scale up.
constexpr double kMostDropout = 0.99;

constexpr std::array kReals = {
    RealField{"layer_norm_eps", &BertConfig::layer_norm_epsilon, 1e-30, 0.1},
    RealField{"hidden_dropout_prob", &BertConfig::hidden_dropout, 0, kMostDropout},
    RealField{"attention_probs_dropout_prob", &BertConfig::attention_dropout, 0, kMostDropout},
    RealField{"initializer_range", &BertConfig::initializer_range, 0, 10},
};

struct ActivationName {
  std::string_view name;
  HiddenActivation activation;
};

/// The first name of an activation is the one that is written.
constexpr std::array kActivations = {
    ActivationName{"gelu", HiddenActivation::gelu},
    ActivationName{"gelu_new", HiddenActivation::gelu_tanh},
    ActivationName{"gelu_pytorch_tanh", HiddenActivation::gelu_tanh},
    ActivationName{"relu", HiddenActivation::relu},
    ActivationName{"silu", HiddenActivation::silu},
    ActivationName{"tanh", HiddenActivation::tanh},
};

/// Typed access to the keys of a configuration, with errors that name file and key. A null counts as absent: Hugging Face writes
/// it so.
class Reader {
 public:
  Reader(const JsonObject& object, const std::filesystem::path& path) : object_(object), path_(path) {}

  const JsonValue* find(std::string_view key) const {
    const JsonValue* value = find_member(object_, key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  [[noreturn]] void refuse(std::string_view key, std::string_view message) const {
    throw FormatError(path_, fmt::format("key {}", key), message);
  }
  [[noreturn]] void refuse(std::string_view key, const JsonValue& found, std::string_view expected) const {
    refuse(key, fmt::format("found {}, expected {}", json_description(found), expected));
  }

  template <class T>
  const T* find_as(std::string_view key, std::string_view kind) const {
    const JsonValue* value = find(key);
    if (value == nullptr) return nullptr;
    if (const T* held = value->get_if<T>()) return held;
    refuse(key, *value, kind);
  }

  std::optional<std::int64_t> integer(std::string_view key, std::int64_t least, std::int64_t most) const {
    const JsonValue* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto* held = value->get_if<std::int64_t>();
    if (held == nullptr || *held < least || *held > most)
      refuse(key, *value, fmt::format("an integer from {} to {}", least, most));
    return *held;
  }

  std::optional<double> real(std::string_view key, double least, double most) const {
    const JsonValue* value = find(key);
    if (value == nullptr) return std::nullopt;
    double number = std::numeric_limits<double>::quiet_NaN();
    if (const auto* held = value->get_if<JsonReal>()) number = held->value;
    if (const auto* held = value->get_if<std::int64_t>()) number = static_cast<double>(*held);
    if (!(number >= least && number <= most)) refuse(key, *value, fmt::format("a number from {} to {}", least, most));
    return number;
  }

  /// A switch of Hugging Face's that Lathe knows only in its usual position, off.
  void require_off(std::string_view key, std::string_view what) const {
    const bool* on = find_as<bool>(key, "true or false");
    if (on != nullptr && *on) refuse(key, fmt::format("is true: {}, which Lathe does not support", what));
  }

 private:
  const JsonObject& object_;
  const std::filesystem::path& path_;
};

/// Refuses what would give other results than the model was trained for.
void require_supported(const Reader& reader, const BertConfig& config) {
  if (config.hidden_size % config.heads != 0) {
    reader.refuse("num_attention_heads", fmt::format("{} heads do not divide hidden_size {}", config.heads, config.hidden_size));
  }
  if (config.head_size() > kWidestHead) {
    reader.refuse("num_attention_heads",
                  fmt::format("hidden_size {} over {} heads makes heads of {}; Lathe's attention goes up to {}",
                              config.hidden_size, config.heads, config.head_size(), kWidestHead));
  }
  const auto* positions = reader.find_as<std::string>("position_embedding_type", "\"absolute\"");
  if (positions != nullptr && *positions != "absolute") {
    reader.refuse("position_embedding_type", fmt::format("found {}; Lathe supports \"absolute\"", json_excerpt(*positions)));
  }
  reader.require_off("is_decoder", "this model is a decoder");
  reader.require_off("add_cross_attention", "this model attends to a second sequence");
  const auto* pruned = reader.find_as<JsonObject>("pruned_heads", "an object");
  if (pruned != nullptr && !pruned->empty()) reader.refuse("pruned_heads", "Lathe does not support models with pruned heads");
  if (reader.find("quantization_config") != nullptr) {
    reader.refuse("quantization_config", "Lathe does not read quantized weights; use the model that they were made from");
  }
}

HiddenActivation activation_of(const Reader& reader) {
  const auto* name = reader.find_as<std::string>("hidden_act", "a string");
  if (name == nullptr) return HiddenActivation::gelu;
  const auto* row = std::ranges::find(kActivations, *name, &ActivationName::name);
  if (row != kActivations.end()) return row->activation;
  std::vector<std::string_view> known;
  known.reserve(kActivations.size());
  for (const ActivationName& activation : kActivations) known.push_back(activation.name);
  reader.refuse("hidden_act", fmt::format("found {}; Lathe has {}", json_excerpt(*name), fmt::join(known, ", ")));
}

std::vector<std::string> strings_of(const Reader& reader, std::string_view key) {
  std::vector<std::string> result;
  const auto* list = reader.find_as<JsonArray>(key, "a list of strings");
  if (list == nullptr) return result;
  for (const JsonValue& item : *list) {
    const auto* text = item.get_if<std::string>();
    if (text == nullptr) reader.refuse(key, item, "strings");
    result.push_back(*text);
  }
  return result;
}

std::string placeholder_label(std::size_t id) { return fmt::format("LABEL_{}", id); }

/// label2id must say the same as id2label, or nothing: where only id2label was set, Hugging Face writes placeholders under
/// label2id.
void require_consistent(const Reader& reader, const std::vector<std::string>& labels) {
  const auto* ids = reader.find_as<JsonObject>("label2id", "an object of ids");
  if (ids == nullptr) return;
  const bool placeholders = std::ranges::all_of(*ids, [](const JsonMember& member) {
    const auto* id = member.value.get_if<std::int64_t>();
    return id != nullptr && *id >= 0 && member.key == placeholder_label(static_cast<std::size_t>(*id));
  });
  if (placeholders) return;
  if (ids->size() != labels.size()) {
    reader.refuse("label2id", fmt::format("names {} labels, id2label {}", ids->size(), labels.size()));
  }
  std::map<std::string_view, std::int64_t> id_of;
  for (const std::string& label : labels) id_of.emplace(label, static_cast<std::int64_t>(id_of.size()));
  for (const JsonMember& member : *ids) {
    const auto found = id_of.find(member.key);
    if (found == id_of.end())
      reader.refuse("label2id", fmt::format("names the label {}, which id2label does not", json_excerpt(member.key)));
    const auto* id = member.value.get_if<std::int64_t>();
    if (id == nullptr || *id != found->second) {
      reader.refuse("label2id", fmt::format("gives {} the id {}, id2label {}", json_excerpt(member.key),
                                            json_description(member.value), found->second));
    }
  }
}

std::vector<std::string> labels_of(const Reader& reader) {
  const std::optional<std::int64_t> count = reader.integer("num_labels", 1, kMostLabels);
  const auto* names = reader.find_as<JsonObject>("id2label", "an object of labels");
  std::vector<std::string> labels;
  if (names == nullptr) {
    for (std::size_t id = 0; id < static_cast<std::size_t>(count.value_or(0)); ++id) labels.push_back(placeholder_label(id));
    require_consistent(reader, labels);
    return labels;
  }
  labels.resize(names->size());
  std::vector<bool> seen(names->size());
  std::set<std::string_view> distinct;
  for (const JsonMember& member : *names) {
    std::size_t id = 0;
    const char* end = member.key.data() + member.key.size();
    const auto [stop, failure] = std::from_chars(member.key.data(), end, id);
    const bool whole = failure == std::errc() && stop == end && std::to_string(id) == member.key;
    if (!whole || id >= labels.size()) {
      reader.refuse("id2label", fmt::format("has the id {}; its {} labels must have the ids 0 to {}", json_excerpt(member.key),
                                            names->size(), names->size() - 1));
    }
    const auto* label = member.value.get_if<std::string>();
    if (label == nullptr) reader.refuse("id2label", member.value, fmt::format("a string for the id {}", id));
    if (!distinct.insert(*label).second)
      reader.refuse("id2label", fmt::format("gives two ids the label {}", json_excerpt(*label)));
    labels[id] = *label;
  }
  if (count && *count != static_cast<std::int64_t>(labels.size())) {
    reader.refuse("num_labels", fmt::format("is {}, but id2label names {} labels", *count, labels.size()));
  }
  require_consistent(reader, labels);
  return labels;
}

/// Old files don't name their type; their architectures then do.
void require_bert(const Reader& reader, const std::vector<std::string>& architectures) {
  constexpr std::string_view kSupported = "Lathe supports \"bert\"";
  const auto* type = reader.find_as<std::string>("model_type", "\"bert\"");
  if (type != nullptr && *type != "bert")
    reader.refuse("model_type", fmt::format("found {}; {}", json_excerpt(*type), kSupported));
  if (type != nullptr) return;
  for (const std::string& name : architectures) {
    if (!name.starts_with("Bert")) reader.refuse("architectures", fmt::format("found {}; {}", json_excerpt(name), kSupported));
  }
}

BertConfig read(const JsonObject& object, const std::filesystem::path& path) {
  const Reader reader(object, path);
  BertConfig config;
  config.architectures = strings_of(reader, "architectures");
  require_bert(reader, config.architectures);

  std::vector<std::string_view> missing;
  for (const IntegerField& field : kIntegers) {
    if (field.need == Need::required && reader.find(field.key) == nullptr) missing.push_back(field.key);
  }
  if (!missing.empty()) {
    throw FormatError(path, "", fmt::format("has no {}: this is not the config.json of a BERT", fmt::join(missing, ", ")));
  }
  for (const IntegerField& field : kIntegers) {
    config.*field.member = reader.integer(field.key, 1, field.most).value_or(config.*field.member);
  }
  for (const RealField& field : kReals) {
    config.*field.member = reader.real(field.key, field.least, field.most).value_or(config.*field.member);
  }
  config.classifier_dropout = reader.real("classifier_dropout", 0, kMostDropout);
  config.pad_token_id = static_cast<std::int32_t>(reader.integer("pad_token_id", 0, config.vocabulary_size - 1).value_or(0));
  if (const bool* tied = reader.find_as<bool>("tie_word_embeddings", "true or false")) config.tied_words = *tied;
  config.hidden_activation = activation_of(reader);
  config.labels = labels_of(reader);
  if (const auto* problem = reader.find_as<std::string>("problem_type", "a string")) config.problem_type = *problem;
  require_supported(reader, config);
  return config;
}

JsonObject parse_object(std::string_view text, const std::filesystem::path& path) {
  JsonValue root;
  try {
    root = parse_json(text);
  } catch (const JsonError& error) {
    throw FormatError(path, error.where(text), error.what());
  }
  if (auto* object = std::get_if<JsonObject>(&root.data)) return std::move(*object);
  throw FormatError(path, "", fmt::format("holds {}, expected an object", json_description(root)));
}

JsonArray json_strings(std::span<const std::string> strings) {
  JsonArray array;
  for (const std::string& text : strings) array.push_back({text});
  return array;
}

void set_labels(JsonObject& object, const std::vector<std::string>& labels) {
  // Counts of old files, which Hugging Face takes from id2label now.
  erase_member(object, "num_labels");
  erase_member(object, "_num_labels");
  if (labels.empty()) {
    erase_member(object, "id2label");
    erase_member(object, "label2id");
    return;
  }
  JsonObject names;
  JsonObject ids;
  std::set<std::string_view> distinct;
  for (std::size_t id = 0; id < labels.size(); ++id) {
    if (!distinct.insert(labels[id]).second) throw LogicError(fmt::format("the label {} occurs twice", json_excerpt(labels[id])));
    names.push_back({std::to_string(id), {labels[id]}});
    ids.push_back({labels[id], {static_cast<std::int64_t>(id)}});
  }
  set_member(object, "id2label", {std::move(names)});
  set_member(object, "label2id", {std::move(ids)});
}

/// Older versions of transformers read torch_dtype, newer ones both.
void set_weights_type(JsonObject& object) {
  const bool newer = find_member(object, "dtype") != nullptr;
  if (newer) set_member(object, "dtype", {std::string("float32")});
  if (!newer || find_member(object, "torch_dtype") != nullptr) set_member(object, "torch_dtype", {std::string("float32")});
}

}  // namespace

BertConfig BertConfig::parse(std::string_view text, const std::filesystem::path& path) {
  BertConfig config = read(parse_object(text, path), path);
  config.document = text;
  return config;
}

BertConfig BertConfig::load(const std::filesystem::path& path) { return parse(read_text_file(path, kMostBytes), path); }

void BertConfig::set_sequence_classification(std::vector<std::string> label_names) {
  architectures = {"BertForSequenceClassification"};
  labels = std::move(label_names);
  problem_type = "single_label_classification";
}

void BertConfig::set_masked_lm() {
  architectures = {"BertForMaskedLM"};
  labels.clear();
  problem_type.clear();
}

std::string BertConfig::to_json() const {
  const std::filesystem::path name = "config.json";
  JsonObject object;
  std::optional<BertConfig> loaded;
  if (!document.empty()) {
    object = parse_object(document, name);
    loaded = read(object, name);
  }
  // What the document says already stays as it is spelled there.
  const auto set = [&](std::string_view key, const auto BertConfig::*member, JsonValue value) {
    const JsonValue* there = find_member(object, key);
    const bool said = loaded && there != nullptr && !there->is_null() && (*loaded).*member == this->*member;
    if (!said) set_member(object, key, std::move(value));
  };
  for (const IntegerField& field : kIntegers) set(field.key, field.member, {this->*field.member});
  for (const RealField& field : kReals) set(field.key, field.member, {json_real(this->*field.member)});
  set("classifier_dropout", &BertConfig::classifier_dropout,
      classifier_dropout ? JsonValue{json_real(*classifier_dropout)} : JsonValue{nullptr});
  set("pad_token_id", &BertConfig::pad_token_id, {std::int64_t{pad_token_id}});
  const auto* activation = std::ranges::find(kActivations, hidden_activation, &ActivationName::activation);
  set("hidden_act", &BertConfig::hidden_activation, {std::string(activation->name)});
  set("model_type", &BertConfig::model_type, {model_type});
  set("architectures", &BertConfig::architectures, {json_strings(architectures)});
  set("problem_type", &BertConfig::problem_type, problem_type.empty() ? JsonValue{nullptr} : JsonValue{problem_type});
  set_labels(object, labels);
  set_weights_type(object);
  std::ranges::sort(object, {}, &JsonMember::key);
  return json_text({std::move(object)});
}

void BertConfig::save(const std::filesystem::path& path) const { write_file_atomically(path, to_json()); }

}  // namespace lathe
