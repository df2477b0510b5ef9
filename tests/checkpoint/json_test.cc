#include "lathe/checkpoint/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::message_of;

std::string refusal(std::string_view text) {
  return message_of<JsonError>([&] { parse_json(text); });
}

TEST(Json, RoundTripKeepsOrderAndSpelling) {
  const std::string text =
      "{\n  \"b\": [\n    1,\n    -9223372036854775808,\n    1e-12,\n    0.10,\n    18446744073709551616\n  ],\n"
      "  \"a\": {},\n  \"c\": [],\n  \"d\": \"q\\\"\\n\xC3\xA9\",\n  \"e\": null,\n  \"f\": true\n}\n";
  EXPECT_EQ(json_text(parse_json(text)), text);
}

TEST(Json, IntegersAreExactOrNotIntegers) {
  const JsonValue value =
      parse_json("[9223372036854775807, -9223372036854775808, 9223372036854775808, 18446744073709551616, 1.0]");
  const auto& array = *value.get_if<JsonArray>();
  EXPECT_EQ(*array[0].get_if<std::int64_t>(), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(*array[1].get_if<std::int64_t>(), std::numeric_limits<std::int64_t>::min());
  for (const std::size_t i : {2, 3, 4}) EXPECT_NE(array[i].get_if<JsonReal>(), nullptr) << i;
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_EQ(refusal(R"({"a": 1, "b": {"a": 2}, "a": 3})"), "the key \"a\" occurs twice in one object");
  EXPECT_EQ(refusal(R"({"b": [{"x": 1, "\u0078": 2}]})"), "the key \"x\" occurs twice in one object");
  EXPECT_EQ(refusal(R"([{"a": 1}, {"a": 1}])"), "(nothing thrown)");
}

TEST(Json, RefusesDeepNesting) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(32)), "(nothing thrown)");
  EXPECT_EQ(refusal(nested(33)), "is nested deeper than 32 levels");
  EXPECT_EQ(refusal(std::string(1'000'000, '[')), "is nested deeper than 32 levels");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{}x", "{} {}", "[1,]", "{\"a\":1,}", "[01]", "[.5]", "[NaN]", "[1e999]", "\"\x80\"",
                           R"("\ud800")", "'a'", "// c\n{}", "\"a\tb\"", "tru"}) {
    EXPECT_NE(refusal(text), "(nothing thrown)") << text;
  }
  using namespace std::literals;
  EXPECT_EQ(refusal("{}\0junk"sv), "holds a NUL byte");
}

TEST(Json, SyntaxErrorsGiveTheirPlaceAndStayShort) {
  const std::string text = "{\n  \"a\": 1,\n  \"b\": x" + std::string(100'000, 'y') + "\n}";
  try {
    parse_json(text);
    FAIL() << "parsed";
  } catch (const JsonError& error) {
    EXPECT_EQ(error.where(text), "line 3, column 8");
    EXPECT_LT(std::string_view(error.what()).size(), 300U) << error.what();
    EXPECT_EQ(std::string_view(error.what()).find("json.exception"), std::string_view::npos) << error.what();
  }
}

TEST(Json, RealsReadBackAsTheyWere) {
  EXPECT_EQ(json_real(1e-12).spelling, "1e-12");
  EXPECT_EQ(json_real(0.1).spelling, "0.1");
  EXPECT_EQ(json_real(1).spelling, "1.0");
  EXPECT_EQ(json_real(0).spelling, "0.0");
  EXPECT_EQ(std::stod(json_real(0.1 + 0.2).spelling), 0.1 + 0.2);
}

TEST(Json, QuotesOnlyUtf8) {
  EXPECT_EQ(json_quoted("a\x01\"\\"), R"("a\u0001\"\\")");
  EXPECT_THROW(json_quoted("\xFF"), LogicError);
}

}  // namespace
}  // namespace lathe
