#include "lathe/runtime/error.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

TEST(Error, ShowsControlCharactersAndBadBytesAsHexadecimal) {
  EXPECT_EQ(printable("a\nb\tc\x1b[31m\x7f"), R"(a\x0Ab\x09c\x1B[31m\x7F)");
  EXPECT_EQ(printable("caf\xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80"), "caf\xC3\xA9 \xE4\xB8\xAD \xF0\x9F\x98\x80");
  EXPECT_EQ(printable("\xFF\xC0\xAF\xED\xA0\x80"), R"(\xFF\xC0\xAF\xED\xA0\x80)") << "no overlong forms, no surrogates";
  EXPECT_EQ(printable("\xC2\x9B"), R"(\xC2\x9B)") << "C1 controls reach terminals too";
  EXPECT_EQ(printable("cut \xE4\xB8"), R"(cut \xE4\xB8)");
}

TEST(Error, MessagesAreOneLine) {
  EXPECT_STREQ(FormatError("a\nb.tsv", "line 3", "two\nlines").what(), R"(a\x0Ab.tsv, line 3: two\x0Alines)");
}

TEST(Error, TellsUsersMistakesFromOurFaults) {
  EXPECT_EQ(UsageError("x").exit_status(), 2);
  EXPECT_EQ(FileError("f", "x").exit_status(), 2);
  EXPECT_EQ(NonFiniteError("x").exit_status(), 2);
  EXPECT_EQ(LogicError("x").exit_status(), 1);
}

}  // namespace
}  // namespace lathe
