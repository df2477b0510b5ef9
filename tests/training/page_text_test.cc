#include "lathe/training/page_text.h"
#include "lathe/training/number_text.h"

#include <gtest/gtest.h>

#include <limits>

#include "lathe/text/utf8.h"
#include "tests/training/markup.h"

namespace lathe {
namespace {

TEST(PageText, EscapesWhatMarkupIsMadeOf) {
  EXPECT_EQ(escaped("a<b & c>d"), "a&lt;b &amp; c&gt;d");
  EXPECT_EQ(escaped(R"("x" onload='y')"), "&quot;x&quot; onload=&#39;y&#39;");
  EXPECT_EQ(escaped("&amp;"), "&amp;amp;") << "what looks like a reference is text too";
  EXPECT_EQ(escaped(""), "");
  EXPECT_EQ(escaped("größer, 好, 🎬"), "größer, 好, 🎬");
}

TEST(PageText, ShowsWhatIsNoText) {
  EXPECT_EQ(escaped(std::string_view("a\0b\x1b[2J\n\t\x7f", 10)), "a\\x00b\\x1B[2J\\x0A\\x09\\x7F");
  EXPECT_EQ(escaped("\xC2\x85"), "\\xC2\\x85") << "a control character beyond ASCII";
  EXPECT_EQ(escaped("\xFF\xC3("), "\\xFF\\xC3(");
  EXPECT_EQ(escaped("\xED\xA0\x80"), "\\xED\\xA0\\x80") << "a surrogate";
  EXPECT_EQ(escaped("\xEF\xBF\xBE\xEF\xBF\xBF\xEF\xBF\xBD"), "\\xEF\\xBF\\xBE\\xEF\\xBF\\xBF\xEF\xBF\xBD");
}

TEST(PageText, AnyBytesBecomeXml) {
  // All pairs of bytes, between tags and in attributes with either quote.
  std::string text;
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; b += a < 128 ? 5 : 1) text.append({static_cast<char>(a), static_cast<char>(b)});
  }
  for (unsigned code = 0xFFF0; code < 0x10000; ++code)
    text.append({'\xEF', static_cast<char>(0x80 | (code >> 6U & 63U)), static_cast<char>(0x80 | (code & 63U))});
  const std::string shown = escaped(text);
  EXPECT_TRUE(is_valid_utf8(shown));
  EXPECT_EQ(markup_fault("<a b=\"" + shown + "\" c='" + shown + "'>" + shown + "</a>"), "");
  EXPECT_NE(markup_fault("<a>" + text + "</a>"), "") << "the parser accepts anything";
}

TEST(PageText, ShortensBetweenCharacters) {
  EXPECT_EQ(beginning("abc", 3), "abc");
  EXPECT_EQ(beginning("abcd", 3), "abc…");
  EXPECT_EQ(beginning("aäb", 2), "a…");
  EXPECT_EQ(beginning("", 0), "");
}

TEST(PageText, GroupsDigits) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(-1234567), "-1,234,567");
  EXPECT_EQ(grouped(-100), "-100");
  EXPECT_EQ(grouped(std::numeric_limits<std::int64_t>::min()), "-9,223,372,036,854,775,808");
}

}  // namespace
}  // namespace lathe
