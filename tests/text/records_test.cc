#include "lathe/text/records.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <streambuf>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using namespace std::string_literals;
using test::labels_of;
using test::lines_of;
using test::message_of;
using test::read_string;
using test::texts_of;
using Strings = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

RecordOptions as(DataFormat format, LabelUse labels = LabelUse::required) { return {.format = format, .labels = labels}; }

DataSet read_tsv(const std::string& contents) { return read_string(contents, as(DataFormat::tsv)); }
DataSet read_csv(const std::string& contents) { return read_string(contents, as(DataFormat::csv)); }
DataSet read_jsonl(const std::string& contents) { return read_string(contents, as(DataFormat::json_lines)); }
DataSet read_txt(const std::string& contents) { return read_string(contents, as(DataFormat::text, LabelUse::optional)); }

std::string tsv_error(const std::string& contents) {
  return message_of<FormatError>([&] { read_tsv(contents); });
}
std::string csv_error(const std::string& contents) {
  return message_of<FormatError>([&] { read_csv(contents); });
}
std::string jsonl_error(const std::string& contents) {
  return message_of<FormatError>([&] { read_jsonl(contents); });
}

class TemporaryFile {
 public:
  TemporaryFile(const std::string& name, const std::string& contents)
      : path_(std::filesystem::path(testing::TempDir()) / (std::to_string(::getpid()) + "." + name)) {
    std::ofstream(path_, std::ios::binary) << contents;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  TemporaryFile(TemporaryFile&&) = delete;
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Formats

TEST(DataFormats, FollowTheExtension) {
  EXPECT_EQ(data_format_of("a/b.tsv"), DataFormat::tsv);
  EXPECT_EQ(data_format_of("B.CSV"), DataFormat::csv);
  EXPECT_EQ(data_format_of("x.jsonl"), DataFormat::json_lines);
  EXPECT_EQ(data_format_of("x.ndjson"), DataFormat::json_lines);
  EXPECT_EQ(data_format_of("x.json"), DataFormat::json_lines);
  EXPECT_EQ(data_format_of("x.y.txt"), DataFormat::text);
  for (const char* name : {"x", "x.", ".tsv", "x.parquet", "tsv", "x.tsv/y"})
    EXPECT_THROW(data_format_of(name), UsageError) << name;
}

TEST(DataFormats, HaveNames) {
  for (const DataFormat format : {DataFormat::tsv, DataFormat::csv, DataFormat::json_lines, DataFormat::text}) {
    EXPECT_EQ(parse_data_format(data_format_name(format)), format);
  }
  EXPECT_EQ(message_of<UsageError>([] { parse_data_format("xml"); }),
            "no data format is called 'xml'; there are tsv, csv, jsonl and txt");
  EXPECT_THROW(parse_data_format("TSV"), UsageError);
}

// TSV

TEST(Tsv, FieldsAreLiteral) {
  const DataSet data = read_tsv("text\tlabel\n\"a\"\t1\n \"b,\t0\nc\\td \t1\n\t0\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"\"a\"", " \"b,", "c\\td ", ""}));
  EXPECT_EQ(labels_of(data.records), (Strings{"1", "0", "1", "0"}));
  EXPECT_EQ(lines_of(data.records), (Numbers{2, 3, 4, 5}));
  EXPECT_EQ(data.report.records, 4);
  EXPECT_EQ(data.report.format, DataFormat::tsv);
  EXPECT_EQ(data.report.text_column, "text");
  EXPECT_EQ(data.report.label_column, "label");
  EXPECT_EQ(data.report.pair_column, "");
}

TEST(Tsv, LineEndsMarksAndEmptyLinesMakeNoDifference) {
  const Strings texts = {"a", "b"};
  for (const std::string contents :
       {"text\tlabel\na\t1\nb\t0\n", "text\tlabel\r\na\t1\r\nb\t0\r\n", "text\tlabel\na\t1\nb\t0", "text\tlabel\r\na\t1\nb\t0\r",
        "\xEF\xBB\xBFtext\tlabel\r\na\t1\r\nb\t0", "\n\r\ntext\tlabel\n\na\t1\n\n\nb\t0\n\n"}) {
    const DataSet data = read_tsv(contents);
    EXPECT_EQ(texts_of(data.records), texts);
    EXPECT_EQ(labels_of(data.records), (Strings{"1", "0"}));
  }
}

TEST(Tsv, SkippedLinesCount) {
  const DataSet data = read_tsv("\ntext\tlabel\n\r\na\t1\n\nb\t0\n\n");
  EXPECT_EQ(data.report.empty_lines, 4);
  EXPECT_EQ(lines_of(data.records), (Numbers{4, 6}));
}

TEST(Tsv, ALoneCarriageReturnIsText) { EXPECT_EQ(texts_of(read_tsv("text\tlabel\na\rb\t1\n").records), Strings{"a\rb"}); }

TEST(Tsv, LoneCarriageReturnsAsLineEndsAreRecognised) {
  EXPECT_EQ(tsv_error("text\tlabel\ra\t1\rb\t0\r"),
            "data, line 1: lines end in a lone CR, as on old Macintoshes; convert them to LF");
}

TEST(Tsv, AWrongNumberOfFieldsIsRefusedWithItsLine) {
  EXPECT_EQ(tsv_error("text\tlabel\na\t1\nb\tb\t0\n"), "data, line 3: found 3 fields, expected 2: 'text', 'label'");
  EXPECT_EQ(tsv_error("text\tlabel\n\na\n"), "data, line 3: found 1 field, expected 2: 'text', 'label'");
}

TEST(Tsv, PairsAndOtherColumns) {
  std::istringstream stream("id\tquestion\tnote\tanswer\tlabel\n7\tq\tlong enough to be read by someone\ta\tyes\n");
  const DataSet data =
      read_records(stream, "data", {.format = DataFormat::tsv, .text_column = "question", .pair_column = "answer"});
  const Record record = data.records[0];
  EXPECT_EQ(record.text, "q");
  EXPECT_EQ(record.pair, "a");
  EXPECT_EQ(record.label, "yes");
  EXPECT_EQ(record.line, 2);
  ASSERT_EQ(data.report.ignored.size(), 2U);
  EXPECT_EQ(data.report.ignored[0].name, "id");
  EXPECT_FALSE(data.report.ignored[0].looks_like_text);
  EXPECT_EQ(data.report.ignored[1].name, "note");
  EXPECT_TRUE(data.report.ignored[1].looks_like_text);
}

TEST(Tsv, NulBytesAreKept) { EXPECT_EQ(texts_of(read_tsv("text\tlabel\na\0b\t1\n"s).records), Strings{"a\0b"s}); }

TEST(Tsv, InvalidUtf8IsKeptAndCounted) {
  const DataSet data = read_tsv("text\tlabel\nok\t1\ncaf\xE9\t1\n\xFF\t0\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"ok", "caf\xE9", "\xFF"}));
  EXPECT_EQ(data.report.invalid_utf8, 2);
  EXPECT_EQ(data.report.first_invalid_utf8, 3);
}

TEST(Tsv, TooManyColumnsAreRefused) {
  EXPECT_EQ(tsv_error("text\tlabel" + std::string(65'534, '\t') + "\n" + std::string(65'536, '\t') + "\n"),
            "data, line 2: more than 65536 fields in one row");
}

// CSV

TEST(Csv, ReadsQuotedFields) {
  const DataSet data = read_csv("text,label\n\"a, b\",1\n\"say \"\"hi\"\"\",0\n\"\",1\nplain,\"0\"\n,1\n\"\"\"\",0\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"a, b", "say \"hi\"", "", "plain", "", "\""}));
  EXPECT_EQ(labels_of(data.records), (Strings{"1", "0", "1", "0", "1", "0"}));
}

TEST(Csv, LineEndsInsideQuotesAreTextAndCountAsLines) {
  const DataSet data = read_csv("text,label\r\n\"one\r\ntwo\n\n\rthree\",1\r\nfour,0\r\n\"five\n\",1");
  EXPECT_EQ(texts_of(data.records), (Strings{"one\r\ntwo\n\n\rthree", "four", "five\n"}));
  EXPECT_EQ(lines_of(data.records), (Numbers{2, 6, 7}));
  EXPECT_EQ(data.report.empty_lines, 0);
}

TEST(Csv, QuotedHeadersWithMarkAndLineEnds) {
  std::istringstream stream("\xEF\xBB\xBF\"the\ntext\",\"label\"\na,1\n");
  const DataSet data = read_records(stream, "data", {.format = DataFormat::csv});
  EXPECT_EQ(data.report.text_column, "the\ntext");
  EXPECT_EQ(lines_of(data.records), Numbers{3});
}

TEST(Csv, QuotesAtTheEndOfTheFile) {
  EXPECT_EQ(labels_of(read_csv("text,label\na,\"1\"").records), Strings{"1"});
  EXPECT_EQ(labels_of(read_csv("text,label\na,\"1\"\r").records), Strings{"1"});
  EXPECT_EQ(labels_of(read_csv("text,label\na,\"1\"\"\"").records), Strings{"1\""});
  EXPECT_EQ(csv_error("text,label\na,1\n\"b,0\nc,1\n"), "data, line 3: the quote opened here is never closed");
  EXPECT_EQ(csv_error("text,label\n\"a\nb\",\"1"), "data, line 3: the quote opened here is never closed");
  EXPECT_EQ(csv_error("text,label\na,\""), "data, line 2: the quote opened here is never closed");
  EXPECT_EQ(csv_error("text,label\na,\"\"\""), "data, line 2: the quote opened here is never closed");
}

TEST(Csv, QuotesElsewhereAreLiteralOrRefused) {
  EXPECT_EQ(texts_of(read_csv("text,label\nan 8\" disk,1\n \"b\",0\n").records), (Strings{"an 8\" disk", " \"b\""}));
  EXPECT_EQ(csv_error("text,label\n\"a\"b,1\n"),
            "data, line 2: text after a closing quote; a quote inside a quoted field is written twice");
  EXPECT_EQ(csv_error("text,label\n\"a\nb\" ,1\n"),
            "data, line 3: text after a closing quote; a quote inside a quoted field is written twice");
}

TEST(Csv, AWrongNumberOfFieldsIsRefusedWithTheLineOfTheRow) {
  EXPECT_EQ(csv_error("text,label\n\"a\nb\",1,2\n"), "data, line 2: found 3 fields, expected 2: 'text', 'label'");
  EXPECT_EQ(csv_error("text,label\na,1,\n"), "data, line 2: found 3 fields, expected 2: 'text', 'label'");
}

TEST(Csv, EmptyLinesAreSkippedQuotedEmptinessIsNot) {
  const DataSet data = read_string("text\n\n\"\"\n\nb\n", as(DataFormat::csv, LabelUse::optional));
  EXPECT_EQ(texts_of(data.records), (Strings{"", "b"}));
  EXPECT_EQ(data.report.empty_lines, 2);
}

TEST(Csv, AnUnclosedQuoteStopsAtTheLimit) {
  std::string contents = "text,label\na,1\n\"b,0\n";
  for (int i = 0; i < 100; ++i) contents += "0123456789,1\n";
  std::istringstream stream(contents);
  EXPECT_EQ(message_of<FormatError>([&] { read_records(stream, "data", {.format = DataFormat::csv, .max_record_bytes = 200}); }),
            "data, line 3: the row is longer than 200 bytes; is the quote opened in line 3 ever closed?");
}

// JSON lines

TEST(JsonLines, ReadsStringsNumbersAndTruth) {
  const DataSet data = read_jsonl(
      "{\"text\": \"a\", \"label\": 1}\n { \"label\" : true , \"text\" : \"b\" } \n{\"text\":1.50,\"label\":\"x\"}\n"
      "{\"text\":-3,\"label\":false}\r\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"a", "b", "1.50", "-3"}));
  EXPECT_EQ(labels_of(data.records), (Strings{"1", "true", "x", "false"}));
  EXPECT_EQ(lines_of(data.records), (Numbers{1, 2, 3, 4}));
}

TEST(JsonLines, ReadsEscapes) {
  const DataSet data = read_jsonl(R"({"text": "\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000", "label": "\u4e2d"})");
  EXPECT_EQ(texts_of(data.records), Strings{"\"\\/\b\f\n\r\t\u00e9\U0001F600\0"s});
  EXPECT_EQ(labels_of(data.records), Strings{"\u4e2d"});
}

TEST(JsonLines, RefusesLoneSurrogates) {
  for (const std::string text : {R"(\ud83d)", R"(\ude00)", R"(\ud83dx)", R"(\ud83d\ud83d)", R"(\ud8)"}) {
    EXPECT_NE(jsonl_error("{\"text\": \"" + text + "\", \"label\": 1}").find("data, line 1: not valid JSON at byte"),
              std::string::npos)
        << text;
  }
}

TEST(JsonLines, KeepsTheDigitsOfHugeNumbers) {
  const DataSet data = read_jsonl(
      "{\"text\": 123456789012345678901234567890, \"label\": 18446744073709551616}\n{\"text\": 1e300, \"label\": "
      "-9223372036854775809}\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"123456789012345678901234567890", "1e300"}));
  EXPECT_EQ(labels_of(data.records), (Strings{"18446744073709551616", "-9223372036854775809"}));
  EXPECT_EQ(jsonl_error("{\"text\": \"a\", \"label\": 1e999}").find("data, line 1: not valid JSON at byte 28: number overflow"),
            0U);
}

TEST(JsonLines, RefusesValuesThatAreNoText) {
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\n{\"text\":null,\"label\":1}"),
            "data, line 2: 'text' is null; a string, a number, true or false is needed");
  EXPECT_EQ(jsonl_error("{\"text\":[\"a\"],\"label\":1}"),
            "data, line 1: 'text' is an array; a string, a number, true or false is needed");
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":{}}"),
            "data, line 1: 'label' is an object; a string, a number, true or false is needed");
}

TEST(JsonLines, RefusesMissingMembersWithTheLine) {
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\n\n{\"txt\":\"a\",\"label\":1}"),
            "data, line 3: no column 'text'; there are 'txt', 'label'");
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\"}"), "data, line 2: no column 'label'; there are 'text'");
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\n{}"), "data, line 2: no column 'text'; there are ");
}

TEST(JsonLines, RefusesDuplicatesOfWhatIsUsedOnly) {
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1,\"text\":\"b\"}"), "data, line 1: the column 'text' is there twice");
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\",\"label\":1,\"label\":0}"),
            "data, line 2: 'label' is there twice");
  EXPECT_EQ(read_jsonl("{\"x\":1,\"text\":\"a\",\"x\":2,\"label\":1}").records.size(), 1);
}

TEST(JsonLines, RefusesWhatIsNotOneObject) {
  EXPECT_EQ(jsonl_error("[{\"text\":\"a\",\"label\":1}]"),
            "data, line 1: found an array; JSON lines hold one object a line, such as {\"text\": \"...\"}");
  EXPECT_EQ(jsonl_error("\"a\""), "data, line 1: found a string; JSON lines hold one object a line, such as {\"text\": \"...\"}");
  EXPECT_NE(jsonl_error("{\n  \"text\": \"a\"\n}\n").find("line 1: not valid JSON at byte 2: "), std::string::npos);
  EXPECT_NE(jsonl_error("{\n  \"text\": \"a\"\n}\n").find("an object must end in the line where it starts"), std::string::npos);
  for (const std::string line :
       {R"({"text":"a","label":1}{})", R"({"text":"a","label":1},)", R"({"text":"a" "label":1})", "{'text':'a'}",
        R"({"text":"a","label":1,})", R"({"text":"a","label":01})", R"({"text":"a","label":NaN})",
        "{\"text\":\"a\tb\",\"label\":1}", "text", R"({"text":"a","label":1} // note)"}) {
    EXPECT_EQ(jsonl_error("\n" + line).find("data, line 2: not valid JSON at byte "), 0U)
        << line << ": " << jsonl_error("\n" + line);
  }
}

TEST(JsonLines, RefusesNulBytes) {
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":1}\0 garbage"s),
            "data, line 1: not valid JSON at byte 23: a NUL byte; JSON writes it as \\u0000");
}

TEST(JsonLines, BoundsNesting) {
  const auto nested = [](std::size_t depth) {
    return R"({"text":"a","label":1,"x":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(read_jsonl(nested(63)).records.size(), 1);
  EXPECT_EQ(jsonl_error(nested(64)), "data, line 1: nested deeper than 64 levels");
  EXPECT_EQ(jsonl_error(nested(1'000'000)), "data, line 1: nested deeper than 64 levels");
}

TEST(JsonLines, NestedMembersAreNotTheRecords) {
  const DataSet data = read_jsonl(R"({"meta":{"text":"inner","label":9},"tags":[{"text":"x"}],"text":"outer","label":1})");
  EXPECT_EQ(texts_of(data.records), Strings{"outer"});
  EXPECT_EQ(labels_of(data.records), Strings{"1"});
}

TEST(JsonLines, BoundsMembers) {
  std::string line = R"({"text":"a","label":1)";
  for (int i = 0; i < 65'535; ++i) line += ",\"x\":0";
  EXPECT_EQ(jsonl_error(line + "}"), "data, line 1: more than 65536 members in one object");
}

TEST(JsonLines, LeftoversOfALongerLineAreGone) {
  const DataSet data =
      read_string("{\"text\":\"a\",\"x\":1,\"label\":\"yes\"}\n{\"text\":\"b\"}\n{\"text\":\"c\",\"label\":null}\n",
                  as(DataFormat::json_lines, LabelUse::optional));
  EXPECT_EQ(texts_of(data.records), (Strings{"a", "b", "c"}));
  EXPECT_EQ(labels_of(data.records), (Strings{"yes", "", ""}));
}

TEST(JsonLines, OptionalLabelsMayComeLater) {
  const DataSet data =
      read_string("{\"review\":\"a\"}\n{\"review\":\"b\",\"label\":1}\n", as(DataFormat::json_lines, LabelUse::optional));
  EXPECT_EQ(labels_of(data.records), (Strings{"", "1"}));
  EXPECT_EQ(data.report.label_column, "label");
  EXPECT_EQ(data.report.text_column, "review");
}

TEST(JsonLines, InvalidUtf8IsReplacedAndCounted) {
  const DataSet data = read_jsonl("{\"text\":\"ok\",\"label\":1}\n{\"text\":\"caf\xE9\",\"label\":1}\n");
  EXPECT_EQ(texts_of(data.records), (Strings{"ok", "caf\uFFFD"}));
  EXPECT_EQ(data.report.invalid_utf8, 1);
  EXPECT_EQ(data.report.first_invalid_utf8, 2);
}

TEST(JsonLines, ReportsIgnoredColumns) {
  const DataSet data = read_jsonl(
      "{\"id\":7,\"text\":\"a\",\"body\":\"a long story that goes on\",\"label\":1}\n"
      "{\"id\":8,\"text\":\"b\",\"body\":\"another story, no shorter\",\"label\":1}\n");
  ASSERT_EQ(data.report.ignored.size(), 2U);
  EXPECT_EQ(data.report.ignored[0].name, "id");
  EXPECT_FALSE(data.report.ignored[0].looks_like_text);
  EXPECT_EQ(data.report.ignored[1].name, "body");
  EXPECT_TRUE(data.report.ignored[1].looks_like_text);
}

TEST(JsonLines, BlankLinesAndMarksAreSkipped) {
  const DataSet data = read_jsonl("\xEF\xBB\xBF{\"text\":\"a\",\"label\":1}\r\n\r\n  \t\n{\"text\":\"b\",\"label\":1}");
  EXPECT_EQ(lines_of(data.records), (Numbers{1, 4}));
  EXPECT_EQ(data.report.empty_lines, 2);
}

// Plain text

TEST(PlainText, EachLineIsAText) {
  const DataSet data = read_txt("\xEF\xBB\xBFlabel\tx\r\n\n \"b\"\r\n{\"c\"}\r\n\r\nlast");
  EXPECT_EQ(texts_of(data.records), (Strings{"label\tx", "", " \"b\"", "{\"c\"}", "", "last"}));
  EXPECT_EQ(lines_of(data.records), (Numbers{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(labels_of(data.records), Strings(6, ""));
  EXPECT_EQ(data.report.empty_lines, 0);
  EXPECT_EQ(texts_of(read_txt("\n").records), Strings{""});
}

TEST(PlainText, HasNeitherLabelsNorPairs) {
  EXPECT_EQ(message_of<UsageError>([] { read_string("a\n", as(DataFormat::text)); }),
            "data: plain text (txt) has one text a line and no labels; use tsv, csv or jsonl");
  EXPECT_EQ(message_of<UsageError>([] { read_string("a\n", {.pair_column = "b", .labels = LabelUse::optional}); }),
            "data: plain text (txt) has one text a line and no pairs of texts; use tsv, csv or jsonl");
}

TEST(PlainText, IsWhatAStreamHoldsUnlessSaidAndNamesOfColumnsDontMatter) {
  const DataSet data = read_string("text\nb\n", {.text_column = "sentence", .labels = LabelUse::optional});
  EXPECT_EQ(texts_of(data.records), (Strings{"text", "b"}));
}

// All formats

TEST(Records, EmptyLabelsAreRefusedWhereLabelsAreNeeded) {
  EXPECT_EQ(tsv_error("text\tlabel\na\t1\nb\t\n"), "data, line 3: the label is empty (column 'label')");
  EXPECT_EQ(jsonl_error("{\"text\":\"a\",\"label\":\"\"}"), "data, line 1: the label is empty (column 'label')");
  const DataSet data = read_string("text\tlabel\na\t1\nb\t\n", as(DataFormat::tsv, LabelUse::optional));
  EXPECT_EQ(labels_of(data.records), (Strings{"1", ""}));
  EXPECT_EQ(data.records.label_index(1), -1);
}

TEST(Records, EmptyInputsCanBeAccepted) {
  for (const DataFormat format : {DataFormat::tsv, DataFormat::csv, DataFormat::json_lines, DataFormat::text}) {
    const RecordOptions options{.format = format, .labels = LabelUse::optional, .empty = EmptyInput::accepted};
    EXPECT_EQ(read_string("", options).records.size(), 0) << data_format_name(format);
    EXPECT_EQ(read_string("\xEF\xBB\xBF", options).records.size(), 0) << data_format_name(format);
  }
  const RecordOptions options{.format = DataFormat::csv, .empty = EmptyInput::accepted};
  EXPECT_EQ(read_string("text,label\n", options).records.size(), 0);
  // What is there is still checked.
  EXPECT_NE(message_of<FormatError>([&] { read_string("body,label\na\n", options); }), "nothing thrown");
}

/// Options for files like AG News': label, title, description.
RecordOptions without_header(DataFormat format) {
  return {.format = format, .header = HeaderRow::absent, .text_column = "2", .pair_column = "3", .label_column = "1"};
}

TEST(NoHeader, TheFirstRowIsARecordAndColumnsGoByTheirNumbers) {
  for (const DataFormat format : {DataFormat::tsv, DataFormat::csv}) {
    const bool tabs = format == DataFormat::tsv;
    const DataSet data = read_string(tabs ? "\xEF\xBB\xBF"
                                            "3\ttitle\tmore\r\n\n4\tb\tc"
                                          : "\"3\",\"title\",\"more\"\n\n\"4\",\"b\",\"c\"\n",
                                     without_header(format));
    ASSERT_EQ(data.records.size(), 2);
    EXPECT_EQ(data.records[0].text, "title");
    EXPECT_EQ(data.records[0].pair, "more");
    EXPECT_EQ(data.records[0].label, "3");
    EXPECT_EQ(data.records[0].line, 1);
    EXPECT_EQ(data.records[1].line, 3);
    EXPECT_EQ(data.report.text_column, "2");
    EXPECT_EQ(data.report.pair_column, "3");
    EXPECT_EQ(data.report.label_column, "1");
  }
}

TEST(NoHeader, TheTextMayBeTheOnlyOtherColumn) {
  RecordOptions options = without_header(DataFormat::csv);
  options.text_column.clear();
  options.pair_column.clear();
  EXPECT_EQ(read_string("1,a\n2,b\n", options).records[0].text, "a");
  EXPECT_EQ(message_of<UsageError>([&] { read_string("1,a,b\n", options); }),
            "data, line 1: which column is the text? None is called 'text' or 'sentence'; name one of '2', '3'; without a "
            "header, columns go by their numbers");
}

TEST(NoHeader, ARowIsARecordOnItsOwn) { EXPECT_EQ(read_string("1\ta\tb", without_header(DataFormat::tsv)).records.size(), 1); }

TEST(NoHeader, RowsHaveAsManyFieldsAsTheFirst) {
  EXPECT_EQ(message_of<FormatError>([] { read_string("1\ta\tb\n2\ta\n", without_header(DataFormat::tsv)); }),
            "data, line 2: found 2 fields, expected 3 as in the first row");
  EXPECT_EQ(message_of<FormatError>([] { read_string("1\ta\n", without_header(DataFormat::tsv)); }),
            "data, line 1: no column '3'; there are '1', '2'; without a header, columns go by their numbers");
}

TEST(NoHeader, NothingIsStillNothing) {
  EXPECT_EQ(message_of<FormatError>([] { read_string("\n\n", without_header(DataFormat::tsv)); }),
            "data: no records, only empty lines");
  EXPECT_EQ(message_of<FormatError>([] { read_string("", without_header(DataFormat::csv)); }),
            "data: empty; a data file is needed");
}

TEST(NoHeader, FormatsThatHaveNoHeaderAreAsEver) {
  const RecordOptions options = {.format = DataFormat::json_lines, .header = HeaderRow::absent};
  EXPECT_EQ(read_string("{\"text\": \"a\", \"label\": 1}\n", options).records[0].text, "a");
}

TEST(Records, EmptyAndHeaderOnlyFilesAreRefused) {
  for (const std::string contents : {"", "\xEF\xBB\xBF"}) {
    EXPECT_EQ(tsv_error(contents), "data: empty; a data file is needed");
    EXPECT_EQ(csv_error(contents), "data: empty; a data file is needed");
    EXPECT_EQ(jsonl_error(contents), "data: empty; a data file is needed");
    EXPECT_EQ(message_of<FormatError>([&] { read_txt(contents); }), "data: empty; a data file is needed");
  }
  EXPECT_EQ(tsv_error("text\tlabel"), "data: no records after the header");
  EXPECT_EQ(csv_error("text,label\n\n\r\n"), "data: no records after the header");
  EXPECT_EQ(jsonl_error("\n\n"), "data: no records, only empty lines");
}

TEST(Records, FilesThatCannotBeReadSayWhy) {
  const std::filesystem::path folder = testing::TempDir();
  EXPECT_NE(message_of<FileError>([&] {
              read_records(folder / "absent" / "x.tsv");
            }).find("absent/x.tsv: can't open: No such file or directory"),
            std::string::npos);
  EXPECT_NE(message_of<FileError>([&] { read_records(folder); }).find(": is a folder; a data file is needed"), std::string::npos);
  const TemporaryFile file("data.parquet", "PAR1");
  EXPECT_NE(message_of<UsageError>([&] { read_records(file.path()); }).find("the name doesn't tell the format"),
            std::string::npos);
}

TEST(Records, TheFormatGivenWinsOverTheName) {
  const TemporaryFile file("data.csv", "text\tlabel\na, b\t1\n");
  EXPECT_EQ(texts_of(read_records(file.path(), as(DataFormat::tsv)).records), Strings{"a, b"});
  EXPECT_NE(
      message_of<FormatError>([&] { read_records(file.path()); }).find("data.csv, line 1: no column 'label'; there is only"),
      std::string::npos);
}

TEST(Records, LongLinesAreRefusedWithTheLine) {
  const std::string contents = "text\tlabel\na\t1\n" + std::string(5000, 'x') + "\t1\n";
  std::istringstream stream(contents);
  EXPECT_EQ(message_of<FormatError>([&] { read_records(stream, "data", {.format = DataFormat::tsv, .max_record_bytes = 5001}); }),
            "data, line 3: the line is longer than 5001 bytes; is this the right file and format?");
  EXPECT_EQ(read_tsv(contents).records.text(1).size(), 5000U);
}

TEST(Records, TheDefaultLimitIs64Mebibytes) {
  const RecordOptions options;
  EXPECT_EQ(options.max_record_bytes, std::size_t{67'108'864});
  const std::string longest(options.max_record_bytes, 'x');
  EXPECT_EQ(read_txt(longest + "\n").records.text(0).size(), longest.size());
  EXPECT_NE(message_of<FormatError>([&] { read_txt("a\n" + longest + "x\n"); }).find("data, line 2: "), std::string::npos);
}

TEST(Records, CountLabelsByFirstOccurrence) {
  const DataSet data = read_tsv("text\tlabel\na\tpos\nb\tneg\nc\tpos\n");
  const std::vector<Records::LabelName>& names = data.records.label_names();
  ASSERT_EQ(names.size(), 2U);
  EXPECT_EQ(names[0].name, "pos");
  EXPECT_EQ(names[0].count, 2);
  EXPECT_EQ(names[0].first_line, 2);
  EXPECT_EQ(names[1].name, "neg");
  EXPECT_EQ(names[1].count, 1);
  EXPECT_EQ(names[1].first_line, 3);
  EXPECT_EQ(data.records.label_index(2), 0);
}

TEST(Records, SurviveCopyMoveAndClear) {
  DataSet data = read_tsv("text\tlabel\nfirst\tpos\nsecond\tneg\n");
  const Records copy = data.records;
  Records moved = std::move(data.records);
  EXPECT_EQ(texts_of(copy), (Strings{"first", "second"}));
  EXPECT_EQ(texts_of(moved), (Strings{"first", "second"}));
  EXPECT_EQ(moved.source(), "data");
  moved.clear();
  EXPECT_EQ(moved.size(), 0);
  moved.append({.text = "third", .label = "new", .line = 9});
  EXPECT_EQ(texts_of(moved), Strings{"third"});
  EXPECT_EQ(labels_of(moved), Strings{"new"});
  EXPECT_EQ(lines_of(moved), Numbers{9});
  ASSERT_EQ(moved.label_names().size(), 1U);
  EXPECT_EQ(moved.label_names()[0].count, 1);
}

// One record at a time

TEST(RecordReader, IsDoneForGoodAtTheEnd) {
  std::istringstream stream("a\n");
  RecordReader reader(stream, "standard input", {.labels = LabelUse::optional});
  Record record;
  EXPECT_TRUE(reader.next(record));
  EXPECT_FALSE(reader.next(record));
  EXPECT_FALSE(reader.next(record));
  EXPECT_EQ(reader.report().records, 1);
}

TEST(RecordReader, KnowsItsColumnsAfterTheFirstRecord) {
  std::istringstream stream("review\tid\tlabel\na\t1\tx\nb\t2\ty\n");
  RecordReader reader(stream, "data", {.format = DataFormat::tsv, .text_column = "review"});
  Record record;
  ASSERT_TRUE(reader.next(record));
  EXPECT_EQ(reader.report().text_column, "review");
  EXPECT_EQ(reader.report().records, 1);
  RecordReader moved = std::move(reader);
  ASSERT_TRUE(moved.next(record));
  EXPECT_EQ(record.text, "b");
}

/// A terminal: each line arrives by itself, and what isn't typed yet is waited for.
class TypedBuffer final : public std::streambuf {
 public:
  explicit TypedBuffer(Strings lines) : lines_(std::move(lines)) {}
  std::size_t lines_taken() const { return taken_; }

 protected:
  int_type underflow() override {
    if (taken_ == lines_.size()) return traits_type::eof();
    std::string& line = lines_[taken_++];
    setg(line.data(), line.data(), line.data() + line.size());
    return traits_type::to_int_type(line.front());
  }

 private:
  Strings lines_;
  std::size_t taken_ = 0;
};

TEST(RecordReader, HandsOverALineBeforeTheNextIsTyped) {
  TypedBuffer typed({"one\n", "two\n", "three\n"});
  std::istream stream(&typed);
  RecordReader reader(stream, "standard input", {.labels = LabelUse::optional});
  Record record;
  for (const std::size_t line : {1U, 2U, 3U}) {
    ASSERT_TRUE(reader.next(record));
    EXPECT_EQ(record.line, static_cast<std::int64_t>(line));
    EXPECT_EQ(typed.lines_taken(), line);
  }
  EXPECT_FALSE(reader.next(record));
}

TEST(RecordReader, ReadsAPipeAsItIsWritten) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / (std::to_string(::getpid()) + ".pipe.jsonl");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::promise<void> first_read;
  std::future<void> writer = std::async(std::launch::async, [&] {
    std::ofstream pipe(path);
    pipe << "{\"text\":\"a\"}\n" << std::flush;
    first_read.get_future().wait();
    pipe << "{\"text\":\"b\"}\n" << std::flush;
  });
  RecordReader reader(path, {.labels = LabelUse::optional});
  Record record;
  EXPECT_TRUE(reader.next(record));
  EXPECT_EQ(record.text, "a");
  first_read.set_value();
  EXPECT_TRUE(reader.next(record));
  EXPECT_EQ(record.text, "b");
  EXPECT_FALSE(reader.next(record));
  writer.get();
  std::filesystem::remove(path);
}

// Real files

TEST(RealData, Sst2) {
  const auto folder = test::test_data();
  if (!folder) GTEST_SKIP() << "LATHE_TEST_DATA isn't set";
  const DataSet train = read_records(*folder / "sst2" / "train.tsv");
  EXPECT_EQ(train.records.size(), 67'349);
  EXPECT_EQ(train.report.text_column, "sentence");
  EXPECT_EQ(train.report.empty_lines, 0);
  EXPECT_EQ(train.report.invalid_utf8, 0);
  EXPECT_TRUE(train.report.ignored.empty());
  EXPECT_EQ(train.records.text(0), "when are bears bears and ");
  EXPECT_EQ(train.records.line(67'348), 67'350);
  const DataSet dev = read_records(*folder / "sst2" / "dev.tsv");
  EXPECT_EQ(dev.records.size(), 872);
}

TEST(RealData, ChineseReviews) {
  const auto folder = test::test_data();
  if (!folder) GTEST_SKIP() << "LATHE_TEST_DATA isn't set";
  const DataSet train = read_records(*folder / "zh-reviews" / "train.tsv");
  EXPECT_EQ(train.records.size(), 15'360);
  EXPECT_EQ(train.report.text_column, "text");
  EXPECT_EQ(train.report.invalid_utf8, 0);
  EXPECT_EQ(read_records(*folder / "zh-reviews" / "dev.tsv").records.size(), 2'000);
}

TEST(RealData, AFileWithoutAHeaderListsWhatItsFirstRowHolds) {
  const auto folder = test::test_data();
  if (!folder) GTEST_SKIP() << "LATHE_TEST_DATA isn't set";
  const std::string message = message_of<UsageError>(
      [&] { read_records(*folder / "movie-reviews" / "movieReviewSnippets_GroundTruth.txt", as(DataFormat::tsv)); });
  EXPECT_NE(message.find("line 1: which column is the text?"), std::string::npos) << message;
  EXPECT_NE(message.find("'2.26666666667'"), std::string::npos) << message;
}

}  // namespace
}  // namespace lathe
