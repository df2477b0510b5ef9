#include "lathe/checkpoint/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLongestExcerpt = 60;
constexpr std::size_t kLongestReason = 120;

/// nlohmann's event interface on our side: counts depth, remembers the keys of the open objects, keeps integers exact.
class StrictEvents final : public nlohmann::json_sax<Json> {
 public:
  StrictEvents(JsonEvents& events, std::size_t most_depth) : events_(events), most_depth_(most_depth) {}

  bool null() override {
    events_.null();
    return true;
  }
  bool boolean(bool value) override {
    events_.boolean(value);
    return true;
  }
  bool number_integer(number_integer_t value) override {
    events_.integer(value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) {
      events_.integer(static_cast<std::int64_t>(value));
    } else {
      events_.real({static_cast<double>(value), fmt::format("{}", value)});
    }
    return true;
  }
  bool number_float(number_float_t value, const string_t& spelling) override {
    events_.real({value, spelling});
    return true;
  }
  bool string(string_t& value) override {
    events_.string(std::move(value));
    return true;
  }
  bool binary(binary_t& /*value*/) override { throw LogicError("JSON text cannot hold binary values"); }
  bool start_object(std::size_t /*count*/) override {
    enter();
    keys_.emplace_back();
    events_.begin_object();
    return true;
  }
  bool key(string_t& name) override {
    if (keys_.size() == 1) outermost_key_ = name;
    if (!keys_.back().insert(name).second)
      throw JsonError(fmt::format("the key {} occurs twice in one object", json_excerpt(name)));
    events_.key(std::move(name));
    return true;
  }
  bool end_object() override {
    --depth_;
    keys_.pop_back();
    events_.end_object();
    return true;
  }
  bool start_array(std::size_t /*count*/) override {
    enter();
    events_.begin_array();
    return true;
  }
  bool end_array() override {
    --depth_;
    events_.end_array();
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/, const Json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ...": what follows the last of the
    // library's own prefixes is the reason.
    std::string_view reason = error.what();
    for (const std::string_view prefix : {"] ", "syntax error "}) {
      if (const std::size_t at = reason.find(prefix); at != std::string_view::npos) reason.remove_prefix(at + prefix.size());
    }
    throw JsonError(fmt::format("is not valid JSON: {}", shortened(reason, kLongestReason)), position == 0 ? 0 : position - 1);
  }

 private:
  void enter() {
    if (++depth_ <= most_depth_) return;
    const std::string where = keys_.empty() ? "is" : fmt::format("the key {} is", json_excerpt(outermost_key_));
    throw JsonError(fmt::format("{} nested deeper than {} levels", where, most_depth_));
  }

  JsonEvents& events_;
  std::size_t most_depth_;
  std::size_t depth_ = 0;
  std::string outermost_key_;  // the last in the document's own object
  // Ordered sets: their cost stays n log n whatever keys an attacker chooses.
  std::vector<std::set<std::string>> keys_;
};

class DocumentBuilder final : public JsonEvents {
 public:
  JsonValue take() { return std::move(root_); }

  void null() override { add({nullptr}); }
  void boolean(bool value) override { add({value}); }
  void integer(std::int64_t value) override { add({value}); }
  void real(JsonReal value) override { add({std::move(value)}); }
  void string(std::string value) override { add({std::move(value)}); }
  void begin_array() override { open_.push_back(&add({JsonArray()})); }
  void end_array() override { open_.pop_back(); }
  void begin_object() override { open_.push_back(&add({JsonObject()})); }
  void key(std::string name) override { std::get<JsonObject>(open_.back()->data).push_back({std::move(name), {}}); }
  void end_object() override { open_.pop_back(); }

 private:
  // Pointers to open containers stay good: a container only grows while it is the innermost one.
  JsonValue& add(JsonValue value) {
    if (open_.empty()) return root_ = std::move(value);
    if (auto* array = std::get_if<JsonArray>(&open_.back()->data)) return array->emplace_back(std::move(value));
    return std::get<JsonObject>(open_.back()->data).back().value = std::move(value);
  }

  JsonValue root_;
  std::vector<JsonValue*> open_;
};

class Writer {
 public:
  std::string take() { return std::move(text_); }

  void write(const JsonValue& value) {
    std::visit([this](const auto& held) { write(held); }, value.data);
  }

 private:
  void write(std::nullptr_t) { text_ += "null"; }
  void write(bool value) { text_ += value ? "true" : "false"; }
  void write(std::int64_t value) { text_ += fmt::format("{}", value); }
  void write(const JsonReal& value) { text_ += value.spelling; }
  void write(const std::string& value) { text_ += json_quoted(value); }
  void write(const JsonArray& array) {
    list('[', ']', array, [this](const JsonValue& value) { write(value); });
  }
  void write(const JsonObject& object) {
    list('{', '}', object, [this](const JsonMember& member) {
      text_ += json_quoted(member.key);
      text_ += ": ";
      write(member.value);
    });
  }

  void list(char open, char close, const auto& items, const auto& write_item) {
    text_ += open;
    indent_ += 2;
    for (std::size_t i = 0; i < items.size(); ++i) {
      text_ += i == 0 ? "\n" : ",\n";
      text_.append(indent_, ' ');
      write_item(items[i]);
    }
    indent_ -= 2;
    if (!items.empty()) text_.append("\n").append(indent_, ' ');
    text_ += close;
  }

  std::string text_;
  std::size_t indent_ = 0;
};

}  // namespace

std::string JsonError::where(std::string_view text) const {
  if (!offset_) return {};
  const std::string_view before = text.substr(0, *offset_);
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0: the first line
  return fmt::format("line {}, column {}", 1 + std::count(before.begin(), before.end(), '\n'), 1 + before.size() - line_start);
}

void parse_json(std::string_view text, JsonEvents& events, std::size_t most_depth) {
  // The lexer takes a NUL byte for the end of its input and would leave unread what follows.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) throw JsonError("holds a NUL byte", nul);
  StrictEvents strict(events, most_depth);
  Json::sax_parse(text.data(), text.data() + text.size(), &strict);
}

JsonValue parse_json(std::string_view text, std::size_t most_depth) {
  DocumentBuilder builder;
  parse_json(text, builder, most_depth);
  return builder.take();
}

const JsonValue* find_member(const JsonObject& object, std::string_view key) {
  const auto found = std::ranges::find(object, key, &JsonMember::key);
  return found == object.end() ? nullptr : &found->value;
}

void set_member(JsonObject& object, std::string_view key, JsonValue value) {
  const auto found = std::ranges::find(object, key, &JsonMember::key);
  if (found != object.end()) {
    found->value = std::move(value);
  } else {
    object.push_back({std::string(key), std::move(value)});
  }
}

void erase_member(JsonObject& object, std::string_view key) {
  std::erase_if(object, [key](const JsonMember& member) { return member.key == key; });
}

JsonReal json_real(double value) {
  std::string spelling = fmt::format("{}", value);
  if (spelling.find_first_of(".e") == std::string::npos) spelling += ".0";
  return {value, std::move(spelling)};
}

std::string json_quoted(std::string_view text) {
  try {
    return Json(text).dump();
  } catch (const Json::type_error&) {
    throw LogicError(fmt::format("{} cannot be written as JSON: it is not UTF-8", json_excerpt(text)));
  }
}

std::string json_text(const JsonValue& document) {
  Writer writer;
  writer.write(document);
  return writer.take() + "\n";
}

std::string json_excerpt(std::string_view text) { return fmt::format("\"{}\"", shortened(text, kLongestExcerpt)); }

std::string json_description(const JsonValue& value) {
  struct Describe {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool held) const { return held ? "true" : "false"; }
    std::string operator()(std::int64_t held) const { return fmt::format("{}", held); }
    std::string operator()(const JsonReal& held) const { return shortened(held.spelling, kLongestExcerpt); }
    std::string operator()(const std::string& held) const { return json_excerpt(held); }
    std::string operator()(const JsonArray&) const { return "a list"; }
    std::string operator()(const JsonObject&) const { return "an object"; }
  };
  return std::visit(Describe(), value.data);
}

}  // namespace lathe
