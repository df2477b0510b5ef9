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

TEST(Error, MessagesShowNoControlCharacters) {
  EXPECT_EQ(printable("a\x1b[2J\x7f"), R"(a\x1B[2J\x7F)");
  // NOLINTNEXTLINE(misc-misleading-bidirectional): these are what must not be shown
  EXPECT_EQ(printable("\xC2\x9B|\xE2\x80\xAE|\xE2\x80\xA8|\xE2\x81\xA6"), R"(\xC2\x9B|\xE2\x80\xAE|\xE2\x80\xA8|\xE2\x81\xA6)");
  EXPECT_EQ(printable("\xE2\x80\x93"), "\xE2\x80\x93") << "a dash is shown";
}

TEST(Error, ShortensInTheMiddle) {
  EXPECT_EQ(shortened("abcdefghij", 10), "abcdefghij");
  EXPECT_EQ(shortened("abcdefghijk", 10), "abc...hijk");
  EXPECT_EQ(shortened("abcdefghijk", 2), "..");
  // Whole characters of two bytes, at every length.
  const std::string text = "\xC3\xA4\xC3\xB6\xC3\xBC\xC3\xA4\xC3\xB6\xC3\xBC\xC3\xA4\xC3\xB6\xC3\xBC";
  for (std::size_t most = 0; most <= text.size(); ++most) {
    EXPECT_LE(shortened(text, most).size(), most);
    EXPECT_EQ(shortened(text, most).find('\\'), std::string::npos);
    EXPECT_EQ(printable(shortened(text, most)), shortened(text, most)) << most;
  }
}

TEST(Error, MessagesAreShortWhateverTheyHold) {
  const std::string path = "/" + std::string(3000, 'd') + "/model.safetensors";
  const std::string long_text = std::string(500, '\n') + "use another";
  for (const std::size_t size : {0U, 50U, 5000U}) {
    const std::string where = "tensor " + std::string(size, 't') + ".weight";
    const std::string line = FormatError(path, where, long_text).what();
    EXPECT_LE(line.size(), kLongestMessage);
    for (const char* part : {"/ddd", "/model.safetensors, tensor ", ".weight: ", "use another"})
      EXPECT_NE(line.find(part), std::string::npos) << part << " is missing in " << line;
    EXPECT_LE(std::string(UsageError(where).what()).size(), kLongestMessage);
  }
  EXPECT_LE(std::string(FileError(path, long_text).what()).size(), kLongestMessage);
}

TEST(Error, TellsUsersMistakesFromOurFaults) {
  EXPECT_EQ(UsageError("x").exit_status(), 2);
  EXPECT_EQ(FileError("f", "x").exit_status(), 2);
  EXPECT_EQ(NonFiniteError("x").exit_status(), 2);
  EXPECT_EQ(LogicError("x").exit_status(), 1);
}

}  // namespace
}  // namespace lathe
