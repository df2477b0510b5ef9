#pragma once
// Strict JSON for untrusted files, internal to checkpoint/. Refused beyond what the grammar refuses: duplicate keys, nesting
// deeper than a bound, NUL bytes. Integers are exact or not integers at all.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lathe {

/// What is wrong with a JSON text and, where the parser knows, at which byte of it.
class JsonError : public std::runtime_error {
 public:
  explicit JsonError(const std::string& message, std::optional<std::size_t> offset = std::nullopt)
      : std::runtime_error(message), offset_(offset) {}
  std::optional<std::size_t> offset() const noexcept { return offset_; }
  /// "line 3, column 7" in `text`, the text that was parsed; empty where the place isn't known.
  std::string where(std::string_view text) const;

 private:
  std::optional<std::size_t> offset_;
};

/// A number with a fraction or an exponent, or an integer beyond 64 signed bits; with its spelling, so that it can be written
/// again as it was.
struct JsonReal {
  double value = 0;
  std::string spelling;
};

/// Receives a document piece by piece, so that a reader holds no more of it than it needs. Exceptions pass through the parser.
class JsonEvents {
 public:
  JsonEvents() = default;
  JsonEvents(const JsonEvents&) = delete;
  JsonEvents& operator=(const JsonEvents&) = delete;
  JsonEvents(JsonEvents&&) = delete;
  JsonEvents& operator=(JsonEvents&&) = delete;
  virtual ~JsonEvents() = default;
  virtual void null() = 0;
  virtual void boolean(bool value) = 0;
  virtual void integer(std::int64_t value) = 0;
  virtual void real(JsonReal value) = 0;
  virtual void string(std::string value) = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
  virtual void begin_object() = 0;
  virtual void key(std::string name) = 0;
  virtual void end_object() = 0;
};

/// Parses the whole of `text`, one document. Nesting deeper than `most_depth` is refused. Throws JsonError.
void parse_json(std::string_view text, JsonEvents& events, std::size_t most_depth = 32);

struct JsonValue;
/// A template, so that a list of members can be named before JsonValue is complete.
template <class Value>
struct BasicJsonMember {
  std::string key;
  Value value;
};
using JsonMember = BasicJsonMember<JsonValue>;
using JsonArray = std::vector<JsonValue>;
/// Members in the order of the text.
using JsonObject = std::vector<JsonMember>;

/// A document in memory.
struct JsonValue {
  std::variant<std::nullptr_t, bool, std::int64_t, JsonReal, std::string, JsonArray, JsonObject> data = nullptr;

  bool is_null() const noexcept { return std::holds_alternative<std::nullptr_t>(data); }
  /// The value where it is of type T, else nullptr.
  template <class T>
  const T* get_if() const noexcept {
    return std::get_if<T>(&data);
  }
};

JsonValue parse_json(std::string_view text, std::size_t most_depth = 32);

/// The value under `key`, or nullptr.
const JsonValue* find_member(const JsonObject& object, std::string_view key);
/// Replaces the value under `key`, or appends it.
void set_member(JsonObject& object, std::string_view key, JsonValue value);
void erase_member(JsonObject& object, std::string_view key);

/// A real number in the shortest spelling that reads back as `value`, which must be finite.
JsonReal json_real(double value);

/// `text` in quotes, escaped. Throws LogicError where it isn't UTF-8.
std::string json_quoted(std::string_view text);

/// The document with two spaces of indentation and a line feed at its end, as Hugging Face writes it.
std::string json_text(const JsonValue& document);

/// `text` in quotes for an error message, cut where it is long.
std::string json_excerpt(std::string_view text);

/// A value for an error message: short, whatever it is ("null", "-3", "\"gelu\"", "a list", "an object").
std::string json_description(const JsonValue& value);

}  // namespace lathe
