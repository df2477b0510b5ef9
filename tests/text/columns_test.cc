#include "lathe/text/columns.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/text/quoted_list.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using test::message_of;
using Names = std::vector<std::string_view>;

ColumnChoice choose(const Names& names, const RecordOptions& options = {}) { return choose_columns(names, options, "data", 1); }

TEST(Columns, TextDefaultsToTextThenSentenceThenTheOnlyOther) {
  EXPECT_EQ(choose({"sentence", "text", "label"}).text, 1U);
  EXPECT_EQ(choose({"id", "sentence", "label"}).text, 1U);
  EXPECT_EQ(choose({"label", "review"}).text, 1U);
  EXPECT_EQ(choose({"", "label", "review"}).text, 2U) << "a column of row numbers without a name isn't meant";
  EXPECT_EQ(choose({"a", "b", "label"}, {.pair_column = "a"}).text, 1U);
  EXPECT_EQ(choose({"text", "b", "label"}, {.pair_column = "text"}).text, 1U);
  EXPECT_EQ(choose({"text", "sentence"}, {.label_column = "text"}).text, 1U);
  EXPECT_EQ(choose({"label"}, {.label_column = {}, .labels = LabelUse::optional}).text, 0U);
  EXPECT_EQ(choose({"review"}, {.labels = LabelUse::optional}).text, 0U);
}

TEST(Columns, NamedColumnsAreTaken) {
  const ColumnChoice choice =
      choose({"text", "q", "p", "gold"}, {.text_column = "p", .pair_column = "q", .label_column = "gold"});
  EXPECT_EQ(choice.text, 2U);
  EXPECT_EQ(choice.pair, std::optional<std::size_t>(1));
  EXPECT_EQ(choice.label, std::optional<std::size_t>(3));
}

TEST(Columns, LabelsMayBeOptional) {
  EXPECT_EQ(choose({"text"}, {.labels = LabelUse::optional}).label, std::nullopt);
  EXPECT_EQ(choose({"text", "label"}, {.labels = LabelUse::optional}).label, std::optional<std::size_t>(1));
}

TEST(Columns, AmbiguityListsTheCandidates) {
  EXPECT_EQ(message_of<UsageError>([] {
              choose({"title", "body", "label"});
            }),
            "data, line 1: which column is the text? None is called 'text' or 'sentence'; name one of 'title', 'body'");
}

TEST(Columns, MessagesGuessAtHeaders) {
  EXPECT_EQ(message_of<FormatError>([] {
              choose({"1", "2", "3"}, {.text_column = "2"});
            }),
            "data, line 1: no column 'label'; there are '1', '2', '3'; without a header, columns go by their numbers");
  EXPECT_EQ(
      message_of<UsageError>([] {
        choose({"3", "Stocks fall"});
      }),
      "data, line 1: which column is the text? None is called 'text' or 'sentence'; name one of '3', 'Stocks fall'; is this a "
      "record, in a file without a header?");
}

TEST(Columns, MissingOnesListThoseThereAre) {
  EXPECT_EQ(message_of<FormatError>([] {
              choose({"text", "gold"});
            }),
            "data, line 1: no column 'label'; there are 'text', 'gold'");
  EXPECT_EQ(message_of<FormatError>([] {
              choose({"text", "label"}, {.text_column = "body"});
            }),
            "data, line 1: no column 'body'; there are 'text', 'label'");
  EXPECT_EQ(message_of<FormatError>([] {
              choose({"text", "label"}, {.pair_column = "b"});
            }),
            "data, line 1: no column 'b'; there are 'text', 'label'");
  EXPECT_EQ(message_of<FormatError>([] { choose({"label"}); }), "data, line 1: no column for the text; there is only 'label'");
  EXPECT_EQ(message_of<FormatError>([] { choose({"text\tlabel"}); }),
            "data, line 1: no column 'label'; there is only 'text\\x09label'; it holds tabs: is the format tsv?");
}

TEST(Columns, UsedColumnsMayNotBeThereTwiceOthersMay) {
  EXPECT_EQ(message_of<FormatError>([] { choose({"text", "label", "text"}); }), "data, line 1: the column 'text' is there twice");
  EXPECT_EQ(message_of<FormatError>([] {
              choose({"label", "label", "text"});
            }),
            "data, line 1: the column 'label' is there twice");
  EXPECT_EQ(choose({"x", "x", "text", "label"}).text, 2U);
}

TEST(Columns, OneColumnCantBeTwoThings) {
  EXPECT_THROW(check_column_options({.text_column = "a", .pair_column = "a"}), UsageError);
  EXPECT_THROW(check_column_options({.text_column = "label"}), UsageError);
  EXPECT_THROW(check_column_options({.pair_column = "label"}), UsageError);
  EXPECT_THROW(check_column_options({.label_column = {}}), UsageError);
  EXPECT_NO_THROW(check_column_options({.label_column = {}, .labels = LabelUse::optional}));
  EXPECT_NO_THROW(check_column_options({}));
}

TEST(Columns, ListsAreCut) {
  EXPECT_EQ(quoted_list(Names{}), "");
  EXPECT_EQ(quoted_list(Names{"a", "", "c"}), "'a', '', 'c'");
  EXPECT_EQ(quoted_list(Names{"a", "b", "c", "d"}, 2), "'a', 'b' and 2 more");
  const std::string longer = std::string(38, 'x') + "\u20AC";
  EXPECT_EQ(quoted_list(Names{longer}), "'" + std::string(38, 'x') + "...'");
}

TEST(Columns, TellsTextFromNumbersAndKeys) {
  const auto looks = [](const Names& values) {
    ColumnStatistics statistics;
    for (const std::string_view value : values) statistics.add(value);
    return statistics.looks_like_text();
  };
  EXPECT_TRUE(looks({"a gorgeous, witty, seductive movie", "it is what it is, and no more"}));
  EXPECT_TRUE(looks({"这家酒店的房间很干净，服务也很好", "手机质量很差，不要买"}));
  EXPECT_FALSE(looks({"9f86d081884c7d659a2feaa0c55ad015", "60303ae22b998861bce3b28f33eec1be"}));
  EXPECT_FALSE(looks({"0.25", "1.5"}));
  EXPECT_FALSE(looks({"New York", "a b c"}));
  EXPECT_FALSE(looks({"2024-01-01 00:00:00+00:00", "2024-01-02 00:00:00+00:00"}));
  EXPECT_FALSE(looks({}));
}

}  // namespace
}  // namespace lathe
