#include "lathe/text/line_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using namespace std::string_literals;
using test::message_of;

/// Hands over `contents` at most `step` bytes a time and notes the largest buffer that it was offered.
class SlowSource final : public ByteSource {
 public:
  SlowSource(std::string contents, std::size_t step) : contents_(std::move(contents)), step_(step) {}
  std::size_t read(char* to, std::size_t capacity) override {
    const std::size_t count = std::min({capacity, step_, contents_.size() - position_});
    std::memcpy(to, contents_.data() + position_, count);
    position_ += count;
    return count;
  }

 private:
  std::string contents_;
  std::size_t step_;
  std::size_t position_ = 0;
};

/// A source of one endless line; counts what is taken of it.
class EndlessSource final : public ByteSource {
 public:
  explicit EndlessSource(std::size_t* taken) : taken_(taken) {}
  std::size_t read(char* to, std::size_t capacity) override {
    std::memset(to, 'x', capacity);
    *taken_ += capacity;
    return capacity;
  }

 private:
  std::size_t* taken_;
};

using Line = std::tuple<std::string, std::string, std::int64_t>;

std::vector<Line> lines_of(const std::string& contents, std::size_t step, std::size_t limit = 1000) {
  LineReader reader(std::make_unique<SlowSource>(contents, step), "data", limit);
  std::vector<Line> lines;
  while (reader.next()) lines.emplace_back(reader.line(), reader.terminator(), reader.number());
  EXPECT_FALSE(reader.next());
  return lines;
}

TEST(LineReader, EndsLinesAtLfAndCrlfHoweverBytesArrive) {
  for (std::size_t step = 1; step < 8; ++step) {
    EXPECT_EQ(lines_of("one\ntwo\r\n\n\r\nfi\rve\r\r\nsix", step),
              (std::vector<Line>{
                  {"one", "\n", 1}, {"two", "\r\n", 2}, {"", "\n", 3}, {"", "\r\n", 4}, {"fi\rve\r", "\r\n", 5}, {"six", "", 6}}))
        << step;
    EXPECT_EQ(lines_of("", step), std::vector<Line>());
    EXPECT_EQ(lines_of("\n", step), (std::vector<Line>{{"", "\n", 1}}));
    EXPECT_EQ(lines_of("a\r", step), (std::vector<Line>{{"a", "\r", 1}}));
    EXPECT_EQ(lines_of("a\0b\n"s, step), (std::vector<Line>{{"a\0b"s, "\n", 1}}));
  }
}

TEST(LineReader, DropsAByteOrderMarkAtTheStartOnly) {
  for (std::size_t step = 1; step < 8; ++step) {
    EXPECT_EQ(lines_of("\xEF\xBB\xBF"
                       "a\n\xEF\xBB\xBF",
                       step),
              (std::vector<Line>{{"a", "\n", 1}, {"\xEF\xBB\xBF", "", 2}}));
    EXPECT_EQ(lines_of("\xEF\xBB\xBF", step), std::vector<Line>());
    EXPECT_EQ(lines_of("\xEF\xBB", step), (std::vector<Line>{{"\xEF\xBB", "", 1}}));
    EXPECT_NE(message_of<FormatError>([&] { lines_of("\xFF\xFEt\0"s, step); }).find("data, line 1: the file is UTF-16"),
              std::string::npos);
    EXPECT_NE(message_of<FormatError>([&] { lines_of("\xFE\xFF\0t"s, step); }).find("data, line 1: the file is UTF-16"),
              std::string::npos);
  }
}

TEST(LineReader, LimitsALineExactly) {
  for (const std::size_t limit : {0, 1, 2, 3, 7, 100}) {
    const std::string longest(limit, 'x');
    const std::string too_long = "\n" + longest + "x";
    for (const std::string end : {"", "\n", "\r\n", "\r"}) {
      for (const std::size_t step : {1, 2, 1000}) {
        // An empty line without an end is no line.
        if (longest.empty() && end.empty()) continue;
        EXPECT_EQ(lines_of(longest + end, step, limit), (std::vector<Line>{{longest, end, 1}})) << limit;
        EXPECT_EQ(
            message_of<FormatError>([&] { lines_of(too_long + end, step, limit); }),
            "data, line 2: the line is longer than " + std::to_string(limit) + " bytes; is this the right file and format?");
      }
    }
  }
}

TEST(LineReader, TakesNoMoreThanTheLimitOfAnEndlessLine) {
  constexpr std::size_t kLimit = 3'000'000;
  std::size_t taken = 0;
  LineReader reader(std::make_unique<EndlessSource>(&taken), "data", kLimit);
  EXPECT_THROW(reader.next(), FormatError);
  EXPECT_EQ(taken, kLimit + 2);
}

TEST(LineReader, KnowsWhetherALineIsThere) {
  std::istringstream stream("one\ntwo\nthree");
  LineReader reader(stream_byte_source(stream, "data"), "data", 100);
  EXPECT_FALSE(reader.is_ready()) << "nothing was asked of the source";
  ASSERT_TRUE(reader.next());
  EXPECT_TRUE(reader.is_ready());
  ASSERT_TRUE(reader.next());
  EXPECT_FALSE(reader.is_ready()) << "more of the third line may come";
  ASSERT_TRUE(reader.next());
  EXPECT_TRUE(reader.is_ready()) << "the end is known";
  EXPECT_FALSE(reader.next());
}

}  // namespace
}  // namespace lathe
