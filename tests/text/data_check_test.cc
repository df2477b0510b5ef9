#include "lathe/text/data_check.h"

#include <gtest/gtest.h>

#include <fstream>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"
#include "tests/text/record_tools.h"

namespace lathe {
namespace {

using test::message_of;

class DataCheckTest : public testing::Test {
 protected:
  std::filesystem::path write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  DataCheck check(const std::string& data, const DataCheckOptions& options = {}) const {
    return check_data(write("data.tsv", data), options);
  }

  TemporaryFolder folder_;
};

TEST(TextHash, IgnoresWhiteSpaceAndNothingElse) {
  const TextHash hash = hash_of_text("a warm film", "");
  EXPECT_EQ(hash_of_text("  a\twarm \u3000 film\n", ""), hash);
  for (const char* other : {"a warm films", "awarm film", "A warm film", "a warm film.", "a warm"})
    EXPECT_NE(hash_of_text(other, ""), hash) << other;
  // The boundary between text and pair counts.
  EXPECT_NE(hash_of_text("a warm", "film"), hash);
  EXPECT_NE(hash_of_text("a", "warm film"), hash_of_text("a warm", "film"));
  EXPECT_EQ(hash_of_text("a warm film", " "), hash);
  // Bytes that aren't UTF-8 are no white space and don't vanish.
  EXPECT_NE(hash_of_text("a \xFF", ""), hash_of_text("a", ""));
}

TEST(TextHash, IsFnv1aOf128Bits) {
  // What is hashed is the text, a line feed, and the pair. Value of FNV-1a for "a\n", worked out with exact integers in Python.
  const TextHash hash = hash_of_text("a", "");
  EXPECT_EQ(hash.high, 0x0880954523AB1BE9U);
  EXPECT_EQ(hash.low, 0x5AA0733055B71A5AU);
}

TEST(LengthCounts, QuantilesCutsAndBins) {
  LengthCounts lengths;
  EXPECT_EQ(lengths.quantile(0.5), 0);
  EXPECT_EQ(lengths.longest(), 0);
  EXPECT_TRUE(lengths.histogram().empty());
  for (const std::int64_t length : {9, 10, 10, 20, 100}) lengths.add(length);
  EXPECT_EQ(lengths.rows(), 5);
  EXPECT_EQ(lengths.total(), 149);
  EXPECT_EQ(lengths.longest(), 100);
  EXPECT_EQ(lengths.quantile(0.2), 9);
  EXPECT_EQ(lengths.quantile(0.5), 10);
  EXPECT_EQ(lengths.quantile(0.8), 20);
  EXPECT_EQ(lengths.quantile(1), 100);
  EXPECT_EQ(lengths.cut_at(10).rows, 2);
  EXPECT_EQ(lengths.cut_at(10).lost, 10 + 90);
  EXPECT_EQ(lengths.cut_at(100).rows, 0);
  EXPECT_EQ(lengths.cut_at(0).lost, lengths.total());
  const auto bins = lengths.histogram();
  ASSERT_EQ(bins.size(), 4U);
  EXPECT_EQ(bins[0].first, 9);
  EXPECT_EQ(bins[0].last, 16);
  EXPECT_EQ(bins[0].rows, 3);
  EXPECT_EQ(bins[1].rows, 1);
  EXPECT_EQ(bins[2].rows, 0);
  EXPECT_EQ(bins[3].first, 65);
  EXPECT_EQ(bins[3].last, 128);
  EXPECT_EQ(bins[3].rows, 1);
  LengthCounts empty;
  empty.add(0);
  ASSERT_EQ(empty.histogram().size(), 1U);
  EXPECT_EQ(empty.histogram()[0].rows, 1);
}

TEST_F(DataCheckTest, DuplicatesAndContradictions) {
  const FileCheck found = check(
                              "id\ttext\tlabel\n"
                              "1\ta film\tgood\n"
                              "2\tanother\tbad\n"
                              "3\t a  film \tgood\n"
                              "4\ta film\tbad\n"
                              "5\t \tgood\n"
                              "6\tA film\tbad\n")
                              .data;
  EXPECT_EQ(found.report.records, 6);
  EXPECT_EQ(found.distinct_texts, 4);
  EXPECT_EQ(found.duplicate_rows, 2);
  ASSERT_EQ(found.duplicates.size(), 2U);
  EXPECT_EQ(found.duplicates[0].first_line, 2);
  EXPECT_EQ(found.duplicates[0].line, 4);
  EXPECT_EQ(found.contradictory_rows, 1);
  ASSERT_EQ(found.contradictions.size(), 1U);
  EXPECT_EQ(found.contradictions[0].first_line, 2);
  EXPECT_EQ(found.contradictions[0].line, 5);
  EXPECT_EQ(found.contradictions[0].first_label, "good");
  EXPECT_EQ(found.contradictions[0].label, "bad");
  EXPECT_EQ(found.contradictions[0].excerpt, "a film");
  EXPECT_EQ(found.empty_texts, 1);
  EXPECT_EQ(found.first_empty_text, 6);
  ASSERT_EQ(found.labels.size(), 2U);
  EXPECT_EQ(found.labels[0].count, 3);
  EXPECT_EQ(found.labels_refused, "");
  EXPECT_EQ(found.words.total(), 2 + 1 + 2 + 2 + 0 + 2);
  EXPECT_EQ(found.characters.longest(), 9);
  EXPECT_FALSE(found.tokens);
}

TEST_F(DataCheckTest, CountsAllAndKeepsAFewExamples) {
  std::string data = "text\tlabel\n";
  for (int i = 0; i < 20; ++i) data += i % 2 == 0 ? "same\t0\n" : "same\t1\n";
  const FileCheck found = check(data).data;
  EXPECT_EQ(found.duplicate_rows, 19);
  EXPECT_EQ(found.contradictory_rows, 10);
  EXPECT_EQ(found.duplicates.size(), kMostExamples);
  EXPECT_EQ(found.contradictions.size(), kMostExamples);
}

TEST_F(DataCheckTest, LabelsThatTrainingRefuses) {
  EXPECT_NE(check("text\tlabel\na\t0\nb\t0\n").data.labels_refused, "");
  const std::string regression = check("text\tlabel\na\t0.5\nb\t1.5\nc\t2\n").data.labels_refused;
  EXPECT_NE(regression.find("regression"), std::string::npos) << regression;
  const FileCheck partly = check("text\tlabel\na\t0\nb\t\nc\t1\n").data;
  EXPECT_EQ(partly.unlabelled, 1);
  EXPECT_EQ(partly.first_unlabelled, 3);
  const FileCheck none = check("text\tother\na\t0\nb\t1\n", {.records = {.text_column = "text"}}).data;
  EXPECT_TRUE(none.labels.empty());
  EXPECT_EQ(none.unlabelled, 0);
}

TEST_F(DataCheckTest, TextsAndLabelsOfTwoFiles) {
  const auto dev = write("dev.tsv", "text\tlabel\nfirst\tgood\nsecond \tgood\nnew\tbad\nnewer\tmixed\nsecond\tbad\n");
  const DataCheck found = check("text\tlabel\nfirst\tgood\nsecond\tbad\n", {.dev = dev});
  ASSERT_TRUE(found.dev && found.overlap);
  EXPECT_EQ(found.dev->duplicate_rows, 1);
  EXPECT_EQ(found.overlap->rows, 3);
  EXPECT_EQ(found.overlap->contradictory_rows, 1);
  ASSERT_EQ(found.overlap->examples.size(), 3U);
  EXPECT_EQ(found.overlap->examples[1].first_line, 3);
  EXPECT_EQ(found.overlap->examples[1].line, 3);
  EXPECT_EQ(found.overlap->examples[1].first_label, "bad");
  EXPECT_EQ(found.overlap->examples[1].label, "good");
  ASSERT_EQ(found.overlap->unknown_labels.size(), 1U);
  EXPECT_EQ(found.overlap->unknown_labels[0].name, "mixed");
  EXPECT_EQ(found.overlap->unknown_labels[0].first_line, 5);
}

TEST_F(DataCheckTest, LengthsInTokensOfTextsAndPairs) {
  const auto vocabulary = write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nfilm\n##s\n");
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::from_vocabulary(vocabulary, {});
  const FileCheck single = check("text\tlabel\na films\t0\nA strange\t1\n", {.tokenizer = &tokenizer}).data;
  ASSERT_TRUE(single.tokens);
  EXPECT_EQ(single.tokens->total(), 5 + 4);
  EXPECT_EQ(single.unknown_tokens, 1);
  EXPECT_EQ(single.tokens->cut_at(4).rows, 1);
  EXPECT_EQ(single.tokens->cut_at(4).lost, 1);
  const FileCheck pairs = check("text\tpair\tlabel\na films\ta\t0\na\t\t1\n",
                                {.records = {.text_column = "text", .pair_column = "pair"}, .tokenizer = &tokenizer})
                              .data;
  EXPECT_EQ(pairs.tokens->total(), 7 + 4);
  EXPECT_EQ(pairs.empty_texts, 1);
  EXPECT_EQ(pairs.words.total(), 3 + 1);
}

TEST_F(DataCheckTest, BatchesOfTheTokenizerLoseNoRow) {
  const auto vocabulary = write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n");
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::from_vocabulary(vocabulary, {});
  std::string data = "text\tlabel\n";
  for (int i = 0; i < 20'000; ++i) data += "a a\t" + std::to_string(i % 2) + "\n";
  const FileCheck found = check(data, {.tokenizer = &tokenizer, .threads = 2}).data;
  EXPECT_EQ(found.tokens->rows(), 20'000);
  EXPECT_EQ(found.tokens->total(), 4 * 20'000);
}

TEST_F(DataCheckTest, WhatIsNoDataSetIsRefused) {
  EXPECT_NE(message_of<FormatError>([&] { check("text\tlabel\na\tb\tc\n"); }).find("line 2"), std::string::npos);
  EXPECT_NE(message_of<FileError>([&] { check_data(folder_ / "absent.tsv", {}); }).find("absent.tsv"), std::string::npos);
}

}  // namespace
}  // namespace lathe
