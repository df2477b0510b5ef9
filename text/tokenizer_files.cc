#include "lathe/text/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/strict_json.h"
#include "lathe/text/utf8.h"

namespace lathe {
namespace {

using nlohmann::json;

// Far above any model's, low enough that a table by id can't exhaust the memory.
constexpr std::uint64_t kMaxId = (std::uint64_t{1} << 22U) - 1;

std::string excerpt(const json& value) {
  constexpr std::size_t kMaxShown = 60;
  if (value.is_object() || value.is_array()) return fmt::format("an {}", value.type_name());
  return shortened(value.dump(), kMaxShown);
}

/// A value of a JSON document that knows its place in the file.
class Field {
 public:
  Field(const std::filesystem::path& file, std::string name, const json& value)
      : file_(&file), name_(std::move(name)), value_(&value) {}

  const json& value() const noexcept { return *value_; }
  const std::string& name() const noexcept { return name_; }

  [[noreturn]] void refuse(std::string_view expected) const {
    throw FormatError(*file_, name_, fmt::format("found {}, expected {}", excerpt(*value_), expected));
  }
  [[noreturn]] void refuse_with(std::string_view message) const { throw FormatError(*file_, name_, message); }

  std::optional<Field> find(const std::string& key) const {
    if (!value_->is_object()) refuse("an object");
    const auto member = value_->find(key);
    if (member == value_->end()) return std::nullopt;
    return Field(*file_, name_.empty() ? key : name_ + "." + key, *member);
  }
  Field at(const std::string& key) const {
    std::optional<Field> member = find(key);
    if (!member) throw FormatError(*file_, name_, fmt::format("the field \"{}\" is missing", key));
    return *member;
  }
  Field element(std::size_t index) const { return {*file_, fmt::format("{}[{}]", name_, index), (*value_)[index]}; }

  std::size_t array_size() const {
    if (!value_->is_array()) refuse("an array");
    return value_->size();
  }
  bool boolean() const {
    if (!value_->is_boolean()) refuse("true or false");
    return value_->get<bool>();
  }
  std::string text() const {
    if (!value_->is_string()) refuse("a string");
    return value_->get<std::string>();
  }
  /// An integer of 0 to `last`.
  std::uint64_t number(std::uint64_t last) const {
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > last) refuse(fmt::format("an integer of 0 to {}", last));
    return value_->get<std::uint64_t>();
  }
  std::int32_t id() const { return static_cast<std::int32_t>(number(kMaxId)); }
  std::optional<bool> optional_boolean(const std::string& key) const {
    const std::optional<Field> member = find(key);
    if (!member || member->value().is_null()) return std::nullopt;
    return member->boolean();
  }

 private:
  const std::filesystem::path* file_;
  std::string name_;
  const json* value_;
};

/// The ids of a description's vocabulary, which must not change meanwhile.
class VocabularyIndex {
 public:
  explicit VocabularyIndex(const TokenizerDescription& description) {
    ids_.reserve(description.vocabulary.size());
    for (const VocabularyEntry& entry : description.vocabulary) {
      if (!ids_.emplace(entry.token, entry.id).second) twice_ = &entry;
    }
  }

  /// A token that occurs twice, or null.
  const VocabularyEntry* twice() const noexcept { return twice_; }

  std::optional<std::int32_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::unordered_map<std::string_view, std::int32_t> ids_;
  const VocabularyEntry* twice_ = nullptr;
};

void check_model_type(const Field& model) {
  if (const std::optional<Field> type = model.find("type")) {
    if (type->text() != "WordPiece") type->refuse("\"WordPiece\"");
  } else if (model.find("merges") || !model.find("continuing_subword_prefix")) {
    // Files of 2020 don't tell the type; WordPiece is the one with a prefix and without merges.
    model.refuse_with(R"(the field "type" is missing, expected "WordPiece")");
  }
}

void read_normalizer(const Field& field, BertNormalizerOptions& options) {
  if (field.value().is_null()) {
    options = {.clean_text = false, .handle_chinese_chars = false, .strip_accents = false, .lowercase = false};
    return;
  }
  const Field type = field.at("type");
  if (type.text() != "BertNormalizer") type.refuse("\"BertNormalizer\"");
  options.clean_text = field.at("clean_text").boolean();
  options.handle_chinese_chars = field.at("handle_chinese_chars").boolean();
  options.strip_accents = field.optional_boolean("strip_accents");
  options.lowercase = field.at("lowercase").boolean();
}

void read_pre_tokenizer(const Field& field) {
  if (field.value().is_null()) field.refuse("a BertPreTokenizer");
  const Field type = field.at("type");
  if (type.text() != "BertPreTokenizer") type.refuse("\"BertPreTokenizer\"");
}

AddedToken read_added_token(const Field& field) {
  AddedToken token;
  token.content = field.at("content").text();
  if (token.content.empty()) field.at("content").refuse("a token that isn't empty");
  token.single_word = field.at("single_word").boolean();
  token.lstrip = field.at("lstrip").boolean();
  token.rstrip = field.at("rstrip").boolean();
  token.normalized = field.at("normalized").boolean();
  return token;
}

/// Appends a token whose id the file gives. `tokenizers` numbers added tokens itself, by the vocabulary or behind it, and only
/// warns where the file says otherwise; which of the two the weights follow can't be known, so it is refused.
void append_added_token(const Field& field, AddedToken token, std::int32_t id, const VocabularyIndex& vocabulary,
                        TokenizerDescription& description) {
  const auto same = [&](const AddedToken& other) { return other.content == token.content; };
  if (std::any_of(description.added.begin(), description.added.end(), same)) field.refuse("a token that wasn't added before");
  const std::optional<std::int32_t> known = vocabulary.find(token.content);
  const auto is_new = [&](const AddedToken& other) { return !vocabulary.find(other.content); };
  const auto next = static_cast<std::int32_t>(description.vocabulary.size()) +
                    static_cast<std::int32_t>(std::count_if(description.added.begin(), description.added.end(), is_new));
  const std::int32_t expected = known.value_or(next);
  if (id != expected) {
    field.refuse_with(fmt::format("\"{}\" has id {}, but {} {}", token.content, id,
                                  known ? "the vocabulary gives it" : "the next free one is", expected));
  }
  description.vocabulary_size = std::max(description.vocabulary_size, id + 1);
  token.id = id;
  description.added.push_back(std::move(token));
}

void read_added_tokens(const Field& field, const VocabularyIndex& vocabulary, TokenizerDescription& description) {
  for (std::size_t i = 0; i < field.array_size(); ++i) {
    const Field element = field.element(i);
    append_added_token(element, read_added_token(element), element.at("id").id(), vocabulary, description);
  }
}

std::int32_t read_token_type(const Field& field) {
  return static_cast<std::int32_t>(field.number(std::numeric_limits<std::int32_t>::max()));
}

std::vector<TemplateStep> read_template(const Field& steps, const Field& special_tokens, std::int32_t vocabulary_size) {
  std::vector<TemplateStep> result;
  for (std::size_t i = 0; i < steps.array_size(); ++i) {
    const Field step = steps.element(i);
    if (const std::optional<Field> sequence = step.find("Sequence")) {
      const std::string which = sequence->at("id").text();
      if (which != "A" && which != "B") sequence->at("id").refuse(R"("A" or "B")");
      const auto kind = which == "A" ? TemplateStep::Kind::first_text : TemplateStep::Kind::second_text;
      result.push_back({kind, read_token_type(sequence->at("type_id")), {}});
    } else if (const std::optional<Field> special = step.find("SpecialToken")) {
      TemplateStep tokens{TemplateStep::Kind::special_tokens, read_token_type(special->at("type_id")), {}};
      const Field ids = special_tokens.at(special->at("id").text()).at("ids");
      for (std::size_t k = 0; k < ids.array_size(); ++k) {
        const Field id = ids.element(k);
        if (id.id() >= vocabulary_size) id.refuse(fmt::format("an id below the vocabulary's size, {}", vocabulary_size));
        tokens.ids.push_back(id.id());
      }
      result.push_back(std::move(tokens));
    } else {
      step.refuse("a Sequence or a SpecialToken");
    }
  }
  return result;
}

void check_template(const Field& field, const std::vector<TemplateStep>& steps, std::ptrdiff_t second_texts) {
  const auto count = [&](TemplateStep::Kind kind) {
    return std::count_if(steps.begin(), steps.end(), [kind](const TemplateStep& step) { return step.kind == kind; });
  };
  if (count(TemplateStep::Kind::first_text) != 1 || count(TemplateStep::Kind::second_text) != second_texts) {
    field.refuse(second_texts == 0 ? "the sequence A once and no other" : "the sequences A and B once each");
  }
}

/// [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with type 1 from B on.
void set_bert_template(std::int32_t cls, std::int32_t sep, TokenizerDescription& description) {
  using Kind = TemplateStep::Kind;
  description.single = {{Kind::special_tokens, 0, {cls}}, {Kind::first_text, 0, {}}, {Kind::special_tokens, 0, {sep}}};
  description.pair = description.single;
  description.pair.push_back({Kind::second_text, 1, {}});
  description.pair.push_back({Kind::special_tokens, 1, {sep}});
}

/// ["[SEP]", 102]
std::int32_t read_bert_special(const Field& field, std::int32_t vocabulary_size) {
  if (field.array_size() != 2) field.refuse("a token and its id");
  const Field id = field.element(1);
  if (id.id() >= vocabulary_size) id.refuse(fmt::format("an id below the vocabulary's size, {}", vocabulary_size));
  return id.id();
}

void read_post_processor(const Field& field, TokenizerDescription& description) {
  if (field.value().is_null()) field.refuse("a TemplateProcessing or a BertProcessing");
  const Field type = field.at("type");
  if (type.text() == "BertProcessing") {
    const std::int32_t cls = read_bert_special(field.at("cls"), description.vocabulary_size);
    set_bert_template(cls, read_bert_special(field.at("sep"), description.vocabulary_size), description);
  } else if (type.text() == "TemplateProcessing") {
    const Field special_tokens = field.at("special_tokens");
    description.single = read_template(field.at("single"), special_tokens, description.vocabulary_size);
    description.pair = read_template(field.at("pair"), special_tokens, description.vocabulary_size);
    check_template(field.at("single"), description.single, 0);
    check_template(field.at("pair"), description.pair, 1);
  } else {
    type.refuse(R"("TemplateProcessing" or "BertProcessing")");
  }
}

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

void read_vocabulary_lines(const std::filesystem::path& path, TokenizerDescription& description) {
  const std::string bytes = read_whole_file(path);
  std::string_view rest = bytes;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  std::unordered_map<std::string_view, std::size_t> lines;
  for (std::size_t line = 1; !rest.empty(); ++line) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view token = without_line_end(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto refuse = [&](const std::string& message) { throw FormatError(path, fmt::format("line {}", line), message); };
    if (line - 1 > kMaxId) refuse(fmt::format("more than {} tokens", kMaxId + 1));
    if (token.empty()) refuse("is empty, expected a token");
    if (!is_valid_utf8(token)) refuse(fmt::format("the token {} isn't UTF-8", token));
    const auto [first, inserted] = lines.emplace(token, line);
    if (!inserted) refuse(fmt::format("the token \"{}\" is already on line {}", token, first->second));
    description.vocabulary.push_back({std::string(token), static_cast<std::int32_t>(line - 1)});
  }
  if (description.vocabulary.empty()) throw FormatError(path, "line 1", "the file is empty, expected a token a line");
  description.vocabulary_size = static_cast<std::int32_t>(description.vocabulary.size());
}

/// The special tokens of a BERT tokenizer by their usual names.
struct SpecialNames {
  std::string unknown = "[UNK]", separator = "[SEP]", padding = "[PAD]", classifier = "[CLS]", mask = "[MASK]";
};

std::int32_t required_id(const std::filesystem::path& path, const VocabularyIndex& vocabulary, const std::string& token,
                         std::size_t lines) {
  const std::optional<std::int32_t> id = vocabulary.find(token);
  if (!id) throw FormatError(path, fmt::format("line {}", lines), fmt::format("the file ends without the token {}", token));
  return *id;
}

/// What a vocabulary file and the names of its special tokens imply.
void complete(const std::filesystem::path& path, const SpecialNames& names, const VocabularyIndex& vocabulary,
              TokenizerDescription& description) {
  const std::size_t lines = description.vocabulary.size();
  description.model.unknown_token = names.unknown;
  required_id(path, vocabulary, names.unknown, lines);
  set_bert_template(required_id(path, vocabulary, names.classifier, lines), required_id(path, vocabulary, names.separator, lines),
                    description);
  for (const std::string& name : {names.unknown, names.separator, names.padding, names.classifier, names.mask}) {
    const std::optional<std::int32_t> id = vocabulary.find(name);
    const auto same = [&](const AddedToken& other) { return other.content == name; };
    if (!id || std::any_of(description.added.begin(), description.added.end(), same)) continue;
    description.added.push_back({.content = name, .id = *id});
  }
}

/// A special token's name: a string, or an object with its content.
void read_special_name(const Field& configuration, const std::string& key, std::string& name) {
  const std::optional<Field> field = configuration.find(key);
  if (!field || field->value().is_null()) return;
  name = field->value().is_object() ? field->at("content").text() : field->text();
}

void check_tokenizer_class(const Field& configuration) {
  constexpr std::array<std::string_view, 10> kKnown = {
      "BertTokenizer",        "BertTokenizerFast",   "DistilBertTokenizer",     "DistilBertTokenizerFast", "ElectraTokenizer",
      "ElectraTokenizerFast", "MobileBertTokenizer", "MobileBertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"};
  const std::optional<Field> field = configuration.find("tokenizer_class");
  if (!field || field->value().is_null()) return;
  if (std::find(kKnown.begin(), kKnown.end(), field->text()) == kKnown.end()) field->refuse("\"BertTokenizer\" or one like it");
}

void read_added_tokens_decoder(const Field& configuration, const VocabularyIndex& vocabulary, TokenizerDescription& description) {
  const std::optional<Field> field = configuration.find("added_tokens_decoder");
  if (!field || field->value().is_null()) return;
  if (!field->value().is_object()) field->refuse("an object");
  // Keys are ids, which the document holds in the order of their digits.
  std::vector<std::pair<std::uint64_t, Field>> entries;
  for (const auto& [key, value] : field->value().items()) {
    const Field entry = field->at(key);
    const bool number = !key.empty() && key.size() <= 8 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!number || std::stoull(key) > kMaxId) entry.refuse_with("the key isn't an id");
    entries.emplace_back(std::stoull(key), entry);
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [id, entry] : entries) {
    append_added_token(entry, read_added_token(entry), static_cast<std::int32_t>(id), vocabulary, description);
  }
}

}  // namespace

TokenizerDescription read_tokenizer_json(const std::filesystem::path& path) {
  TokenizerDescription description;
  std::unordered_map<std::uint64_t, std::size_t> by_id;
  const auto entry = [&](std::string token, std::uint64_t id) {
    const auto refuse = [&](const std::string& message) {
      throw FormatError(path, fmt::format("model.vocab[\"{}\"]", token), message);
    };
    if (id > kMaxId) refuse(fmt::format("found {}, expected an id of 0 to {}", id, kMaxId));
    const auto [first, inserted] = by_id.emplace(id, description.vocabulary.size());
    if (!inserted) refuse(fmt::format("the id {} is already that of \"{}\"", id, description.vocabulary[first->second].token));
    description.vocabulary_size = std::max(description.vocabulary_size, static_cast<std::int32_t>(id + 1));
    description.vocabulary.push_back({std::move(token), static_cast<std::int32_t>(id)});
  };
  const json document = read_strict_json(path, {{"model", "vocab"}, entry});
  const Field root(path, "", document);
  if (const std::optional<Field> version = root.find("version"); version && version->text() != "1.0") version->refuse("\"1.0\"");

  const Field model = root.at("model");
  check_model_type(model);
  description.model.unknown_token = model.at("unk_token").text();
  description.model.continuing_prefix = model.at("continuing_subword_prefix").text();
  description.model.max_word_code_points = model.at("max_input_chars_per_word").number(std::numeric_limits<std::int32_t>::max());
  const Field entries = model.at("vocab");
  if (!entries.value().is_object()) entries.refuse("an object of tokens and their ids");
  if (description.vocabulary.empty()) entries.refuse("at least one token");
  const VocabularyIndex vocabulary(description);
  if (const VocabularyEntry* twice = vocabulary.twice()) {
    entries.refuse_with(fmt::format("the token \"{}\" occurs twice", twice->token));
  }
  if (!vocabulary.find(description.model.unknown_token)) model.at("unk_token").refuse("a token of the vocabulary");

  if (const std::optional<Field> added = root.find("added_tokens")) read_added_tokens(*added, vocabulary, description);
  read_normalizer(root.at("normalizer"), description.normalizer);
  read_pre_tokenizer(root.at("pre_tokenizer"));
  read_post_processor(root.at("post_processor"), description);
  return description;
}

TokenizerDescription read_vocabulary(const std::filesystem::path& path, const BertNormalizerOptions& normalizer) {
  TokenizerDescription description;
  description.normalizer = normalizer;
  read_vocabulary_lines(path, description);
  complete(path, {}, VocabularyIndex(description), description);
  return description;
}

TokenizerDescription read_vocabulary(const std::filesystem::path& path, const std::filesystem::path& configuration) {
  TokenizerDescription description;
  read_vocabulary_lines(path, description);
  const VocabularyIndex vocabulary(description);
  const json document = read_strict_json(configuration);
  const Field root(configuration, "", document);
  check_tokenizer_class(root);
  if (root.optional_boolean("do_basic_tokenize") == false) root.at("do_basic_tokenize").refuse("true");
  if (const std::optional<Field> kept = root.find("never_split"); kept && !kept->value().empty()) kept->refuse("no words");
  description.normalizer.lowercase = root.optional_boolean("do_lower_case").value_or(true);
  description.normalizer.handle_chinese_chars = root.optional_boolean("tokenize_chinese_chars").value_or(true);
  description.normalizer.strip_accents = root.optional_boolean("strip_accents");
  SpecialNames names;
  read_special_name(root, "unk_token", names.unknown);
  read_special_name(root, "sep_token", names.separator);
  read_special_name(root, "pad_token", names.padding);
  read_special_name(root, "cls_token", names.classifier);
  read_special_name(root, "mask_token", names.mask);
  read_added_tokens_decoder(root, vocabulary, description);
  complete(path, names, vocabulary, description);
  return description;
}

}  // namespace lathe
