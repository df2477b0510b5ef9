#include "lathe/text/documents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using List = std::vector<std::int32_t>;

class DocumentsTest : public testing::Test {
 protected:
  fs::path write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  Documents read(const std::string& text) const { return read_documents(std::vector{write("text.txt", text)}); }
  std::string refusal(const std::string& text) const {
    try {
      read(text);
    } catch (const FormatError& failure) {
      EXPECT_EQ(failure.path(), folder_ / "text.txt");
      return failure.what();
    }
    return "nothing thrown";
  }
  WordPieceTokenizer tokenizer() const {
    std::ofstream file(folder_ / "vocab.txt");
    for (const std::string& token : tiny_vocabulary()) file << token << '\n';
    file.close();
    return WordPieceTokenizer::load(folder_.path());
  }
  /// Ids of sequence `i`.
  static List ids(const TokenizedSamples& samples, std::size_t i) {
    return {samples.ids.begin() + samples.offsets[i], samples.ids.begin() + samples.offsets[i + 1]};
  }

  TemporaryFolder folder_;
};

TEST_F(DocumentsTest, LinesAreParagraphsAndEmptyLinesEndDocuments) {
  const Documents documents = read("\xEF\xBB\xBF\na film\r\ngood\n\n \t \nbad\n\n");
  EXPECT_EQ(documents.count(), 2);
  ASSERT_EQ(documents.paragraphs(), 3);
  EXPECT_EQ(documents.paragraph(0), "a film");
  EXPECT_EQ(documents.paragraph(1), "good");
  EXPECT_EQ(documents.paragraph(2), "bad");
  EXPECT_EQ(documents.first_paragraph(1), 2);
  EXPECT_EQ(documents.first_paragraph(2), 3);
}

TEST_F(DocumentsTest, TheEndOfAFileEndsItsLastDocument) {
  const Documents documents = read_documents(std::vector{write("a.txt", "a film"), write("b.txt", "good\n\nbad")});
  EXPECT_EQ(documents.count(), 3);
  EXPECT_EQ(documents.paragraph(0), "a film");
}

TEST_F(DocumentsTest, WhatIsNoTextIsRefusedWithItsLine) {
  EXPECT_NE(refusal("").find("text.txt, line 1: the file has no text"), std::string::npos) << refusal("");
  EXPECT_NE(refusal("\n \n").find("the file has no text"), std::string::npos);
  EXPECT_NE(refusal("good\n\ncaf\xE9\n").find("text.txt, line 3: is not UTF-8"), std::string::npos) << refusal("caf\xE9");
  const std::string wide({'\xFF', '\xFE', 'g', '\0', 'o', '\0'});
  EXPECT_NE(refusal(wide).find("UTF-16"), std::string::npos) << refusal(wide);
  EXPECT_THROW(read_documents(std::vector{folder_ / "absent.txt"}), FileError);
}

TEST_F(DocumentsTest, ParagraphsOfADocumentFillSequences) {
  // Ids: [CLS] 2, [SEP] 3, a 5, film 6, good 7, bad 8, great 9, dull 10.
  const Documents documents = read("a film\ngood bad great\n\ndull\n");
  for (const int threads : {1, 2}) {
    const DocumentSequences made = make_sequences(tokenizer(), documents, {.max_length = 5, .threads = threads});
    ASSERT_EQ(made.samples.count(), 3);
    EXPECT_EQ(ids(made.samples, 0), (List{2, 5, 6, 7, 3})) << "cut where it is full, across paragraphs";
    EXPECT_EQ(ids(made.samples, 1), (List{2, 8, 9, 3}));
    EXPECT_EQ(ids(made.samples, 2), (List{2, 10, 3})) << "not across documents";
    EXPECT_EQ(made.first_sequence, (std::vector<std::int64_t>{0, 2, 3}));
    EXPECT_EQ(made.tokens, 6);
    EXPECT_TRUE(made.samples.types.empty()) << "all are 0";
  }
}

TEST_F(DocumentsTest, WhatTeachesNothingIsLeftOut) {
  const Documents documents = read("[SEP] [MASK]\n\nfrobnicate good\n\n[CLS]\n");
  const DocumentSequences made = make_sequences(tokenizer(), documents, {.max_length = 3, .threads = 1});
  ASSERT_EQ(made.samples.count(), 1) << "special tokens written in the text, and an unknown one by itself";
  EXPECT_EQ(ids(made.samples, 0), (List{2, 7, 3}));
  EXPECT_EQ(made.first_sequence, (std::vector<std::int64_t>{0, 0, 1, 1}));
}

TEST_F(DocumentsTest, AFrameMustBeClsAndSep) {
  EXPECT_THROW(make_sequences(tokenizer(), read("good"), {.max_length = 2, .threads = 1}), UsageError);
}

TEST_F(DocumentsTest, DocumentsAreHeldOutWhole) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "good\nbad film\n\n";
  const DocumentSequences made = make_sequences(tokenizer(), read(text), {.max_length = 4, .threads = 1});
  ASSERT_EQ(made.documents(), 40);
  const HeldOut parts = hold_out(40, 0.1, 7);
  EXPECT_EQ(parts.dev.size(), 4U);
  std::vector<std::int64_t> all = parts.train;
  all.insert(all.end(), parts.dev.begin(), parts.dev.end());
  std::ranges::sort(all);
  std::vector<std::int64_t> expected(40);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(all, expected);
  EXPECT_EQ(sequences_of(made, parts.dev).count(), 8);
  EXPECT_EQ(sequences_of(made, parts.train).count(), 72);
  EXPECT_EQ(hold_out(40, 0.1, 7).dev, parts.dev);
  EXPECT_NE(hold_out(40, 0.1, 8).dev, parts.dev);
  EXPECT_EQ(hold_out(2, 0.001, 1).dev.size(), 1U) << "at least one";
  EXPECT_EQ(hold_out(2, 0.999, 1).train.size(), 1U);
  EXPECT_THROW(hold_out(1, 0.5, 1), UsageError);
}

}  // namespace
}  // namespace lathe
