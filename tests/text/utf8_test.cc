#include "lathe/text/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace lathe {
namespace {

using namespace std::string_literals;

TEST(Utf8, AcceptsEveryCodePointAndNoSurrogate) {
  for (unsigned code = 0; code < 0x110000; ++code) {
    std::string text = "01234567";  // so that the check by words comes before
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += {static_cast<char>(0xC0 | code >> 6U), static_cast<char>(0x80 | (code & 0x3FU))};
    } else if (code < 0x10000) {
      text += {static_cast<char>(0xE0 | code >> 12U), static_cast<char>(0x80 | (code >> 6U & 0x3FU)),
               static_cast<char>(0x80 | (code & 0x3FU))};
    } else {
      text += {static_cast<char>(0xF0 | code >> 18U), static_cast<char>(0x80 | (code >> 12U & 0x3FU)),
               static_cast<char>(0x80 | (code >> 6U & 0x3FU)), static_cast<char>(0x80 | (code & 0x3FU))};
    }
    const bool surrogate = code >= 0xD800 && code < 0xE000;
    ASSERT_EQ(is_valid_utf8(text), !surrogate) << std::hex << code;
    ASSERT_EQ(repair_utf8(text) == text, !surrogate) << std::hex << code;
  }
}

TEST(Utf8, RefusesIllFormedSequences) {
  for (const std::string_view text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2x", "\xE0\x9F\x80", "\xE2\x82", "\xED\xA0\x80", "\xF0\x8F\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xFE", "abcdefgh\xE9t\xE9"}) {
    EXPECT_FALSE(is_valid_utf8(text)) << testing::PrintToString(text);
  }
}

// Expected: Python's bytes.decode("utf-8", errors="replace").
TEST(Utf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(repair_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                        "b\x80"
                        "c\x80\xBF"
                        "d"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(repair_utf8("caf\xE9 noir"), "caf\uFFFD noir");
  EXPECT_EQ(repair_utf8(""), "");
}

TEST(Utf8, PrefixKeepsSequencesWhole) {
  EXPECT_EQ(utf8_prefix("ab\u20ACc", 10), "ab\u20ACc");
  EXPECT_EQ(utf8_prefix("ab\u20ACc", 5), "ab\u20AC");
  EXPECT_EQ(utf8_prefix("ab\u20ACc", 4), "ab");
  EXPECT_EQ(utf8_prefix("ab\u20ACc", 3), "ab");
  EXPECT_EQ(utf8_prefix("ab\u20ACc", 2), "ab");
  EXPECT_EQ(utf8_prefix("\U0001F600", 3), "");
  EXPECT_EQ(utf8_prefix("\x80\x80\x80\x80\x80\x80", 4).size(), 1U);
}

}  // namespace
}  // namespace lathe
