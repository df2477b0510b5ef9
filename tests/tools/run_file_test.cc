#include "tools/run_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <string>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_run_file(text, "run.toml");
  } catch (const FormatError& failure) {
    return failure.what();
  }
  return "nothing thrown";
}

TEST(RunFile, GivesSettingsInTheirOrderWithTheirLines) {
  const auto settings =
      parse_run_file("lr = 5e-05\n\n[finetune]\nseed = 7\nmodel = \"a \\\"b\\\"\"\nno-header = true\n", "run.toml");
  ASSERT_EQ(settings.size(), 4U);
  EXPECT_EQ(settings[0].section, "");
  EXPECT_EQ(settings[0].value, RunValue(5e-5));
  EXPECT_EQ(settings[1].section, "finetune");
  EXPECT_EQ(settings[1].key, "seed");
  EXPECT_EQ(settings[1].value, RunValue(std::int64_t{7}));
  EXPECT_EQ(settings[1].line, 4);
  EXPECT_EQ(settings[2].value, RunValue(std::string("a \"b\"")));
  EXPECT_EQ(settings[2].line, 5);
  EXPECT_EQ(settings[3].value, RunValue(true));
}

TEST(RunFile, WhatIsWrittenIsReadAgain) {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, RunValue>> values = {
      {"whole", std::numeric_limits<std::int64_t>::max()},
      {"small", 5e-324},
      {"one", 1.0},
      {"third", 1.0 / 3.0},
      {"off", false},
      {"empty", std::string()},
      {"odd", std::string("tab\t quote\" slash\\ line\n \x01 \x7F \xC3\xA9")},
      {"files", std::vector<std::string>{"a b.txt", "c\".txt"}},
      {"a key with \"quotes\", dots.and = signs", std::string("x")}};
  write_run_file(folder.path(), {{.name = "finetune", .values = values}});
  const auto settings = read_run_file(folder / "run.toml");
  ASSERT_EQ(settings.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(settings[i].key, values[i].first);
    EXPECT_EQ(settings[i].value, values[i].second) << values[i].first;
  }
}

TEST(RunFile, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  const TemporaryFolder folder;
  write_run_file(folder.path(), {{.name = "finetune", .values = {{"label-column", std::string("a\xFF")}}}});
  EXPECT_EQ(read_run_file(folder / "run.toml").at(0).value, RunValue(std::string("a\xEF\xBF\xBD")));
}

TEST(RunFile, NumbersAreAsTheCommandLineWritesThem) {
  EXPECT_EQ(to_text(1.0), "1.0") << "--warmup 1.0 is a share, 1 a step";
  EXPECT_EQ(to_text(5e-5), "5e-05");
  EXPECT_EQ(to_text(std::int64_t{3}), "3");
  EXPECT_EQ(to_text(true), "true");
  EXPECT_EQ(to_text(std::vector<std::string>{"a.txt", "b.txt"}), "a.txt b.txt");
}

TEST(RunFile, WhatIsNoSettingIsRefusedWithItsLine) {
  EXPECT_EQ(refusal("a = 1\nb = [1, 2]\n"), "run.toml, line 2: 'b' is a list; a setting is text, a number, true or false");
  EXPECT_EQ(refusal("b = [\"a\", 2]\n"), "run.toml, line 1: 'b' is a list; a setting is text, a number, true or false");
  EXPECT_EQ(refusal("b = []\n"), "run.toml, line 1: 'b' is a list; a setting is text, a number, true or false");
  EXPECT_EQ(refusal("a = 2020-01-01\n"), "run.toml, line 1: 'a' is a date or time; a setting is text, a number, true or false");
  EXPECT_EQ(refusal("[finetune]\n[finetune.more]\na = 1\n"),
            "run.toml, line 2: 'more' is a table; a setting is text, a number, true or false");
  EXPECT_TRUE(refusal("a = 1\n\n= 2").starts_with("run.toml, line 3: ")) << refusal("a = 1\n\n= 2");
  EXPECT_TRUE(refusal("a = 1\na = 2").starts_with("run.toml, line 2: ")) << refusal("a = 1\na = 2");
  // A key that begins with no letter of keys, for which toml++ 3.3.0 has an assertion alone.
  EXPECT_TRUE(refusal(std::string_view("a = 1\n[\0", 8)).starts_with("run.toml, line 2: "));
  EXPECT_TRUE(refusal("a = 1\n[=").starts_with("run.toml, line 2: ")) << refusal("a = 1\n[=");
  // Characters for which toml++ 3.3.0 has no way out.
  EXPECT_EQ(refusal("a = 1\n[run]\xEF\xBB\xB7 = 1"), "run.toml, line 2: a character beyond ASCII stands outside of quotes");
  EXPECT_EQ(refusal("a = [2.\"\xEF\x96\xBF\"5]"), "run.toml, line 1: a quote stands where no text begins");
  EXPECT_EQ(refusal("a= 5e+5Jw5=\"\\r5e\xEF\xBB\xAF+\"\002"), "run.toml, line 1: a quote stands where no text begins");
  EXPECT_EQ(refusal("a = 5[\"\xEF\xBB\xAF\"]"), "run.toml, line 1: a quote stands where no text begins");
  EXPECT_EQ(refusal("a = 1979-05-27 \"\xEF\xBB\xAF\""), "run.toml, line 1: a quote stands where no text begins");
  EXPECT_EQ(refusal("a = [\n5=\"\xEF\xBB\xAF\"]"), "run.toml, line 1: a list of several lines; a setting is on one");
  EXPECT_EQ(refusal("a = {b=5=\"\xEF\xBB\xAF\"}"),
            "run.toml, line 1: a table in braces; a setting is text, a number, true or false");
  EXPECT_EQ(refusal("a = \"\"\"\nb\"\"\"\n"), "run.toml, line 1: a string of several lines; a setting is on one");
  EXPECT_TRUE(refusal("a = \"\xFF\"").starts_with("run.toml, line 1: ")) << refusal("a = \"\xFF\"");
}

TEST(RunFile, SizeAndDepthAreBounded) {
  EXPECT_EQ(refusal(std::string(kLargestRunFile + 1, '#')),
            "run.toml: has 1048577 bytes; a file of settings has at most 1048576");
  const std::string deep = "a = " + std::string(100'000, '[');
  EXPECT_TRUE(refusal(deep).starts_with("run.toml, line 1: ")) << refusal(deep);
  EXPECT_LT(refusal(deep).size(), 300U);
}

TEST(RunFile, FilesThatAreNoneAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THROW(read_run_file(folder / "absent.toml"), FileError);
  EXPECT_THROW(read_run_file(folder.path()), FileError);
}

}  // namespace
}  // namespace lathe
