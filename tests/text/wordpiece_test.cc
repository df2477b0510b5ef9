#include "lathe/text/wordpiece.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/error.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kMaxLength = 512;

constexpr std::string_view kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\n##a\na\nthe\ncat\n##s\n.\n,\n[\n]\nsep\n"
    "e\n##e\n\xE4\xB8\xAD\nCat\n";
/// Its tokens, in order.
namespace id {
enum : std::int32_t {
  pad,
  unk,
  cls,
  sep,
  mask,
  un,
  aff,
  able,
  continuing_a,
  a,
  the,
  cat,
  continuing_s,
  point,
  comma,
  open,
  close,
  word_sep,
  e,
  continuing_e,
  middle,
  capital_cat,
};
}  // namespace id

/// A folder of tokenizer files.
class WordPiece : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, std::string_view contents) const {
    std::ofstream(folder_ / name, std::ios::binary) << contents;
    return folder_ / name;
  }
  WordPieceTokenizer tokenizer(const BertNormalizerOptions& options = {}) const {
    return WordPieceTokenizer::from_vocabulary(write("vocab.txt", kVocabulary), options);
  }
  /// Ids without the frame.
  static Ids ids(const WordPieceTokenizer& tokenizer, std::string_view text) {
    Encoding encoding;
    tokenizer.encode(text, std::int64_t{1} << 20U, encoding);
    EXPECT_GE(encoding.ids.size(), 2U);
    EXPECT_EQ(encoding.ids.front(), id::cls);
    EXPECT_EQ(encoding.ids.back(), id::sep);
    return {encoding.ids.begin() + 1, encoding.ids.end() - 1};
  }

  /// A tokenizer.json in which `what` is replaced by `by`.
  std::filesystem::path write_json(std::string_view what = "", std::string_view by = "") const {
    std::string text = R"({"version":"1.0","truncation":{"max_length":3},"padding":{"strategy":{"Fixed":128}},
"added_tokens":[{"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":3,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":8,"content":"[NEW]","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false}],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
"pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}},
{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"[SEP]","type_id":1}}],
"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},
"decoder":{"type":"WordPiece"},
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"cat":4,"##s":5,"a":6,"new":7}}})";
    if (!what.empty()) {
      const std::size_t at = text.find(what);
      EXPECT_NE(at, std::string::npos) << what;
      text.replace(at, what.size(), by);
    }
    return write("tokenizer.json", text);
  }
  WordPieceTokenizer load_json(std::string_view what = "", std::string_view by = "") const {
    write_json(what, by);
    return WordPieceTokenizer::load(folder_.path());
  }
  /// The message with which a changed tokenizer.json is refused.
  std::string refusal(std::string_view what, std::string_view by) const {
    return message<FormatError>([&] { load_json(what, by); });
  }

  template <typename Expected, typename Action>
  static std::string message(Action&& action) {
    try {
      action();
    } catch (const Expected& error) {
      return error.what();
    }
    ADD_FAILURE() << "nothing was refused";
    return "";
  }

  TemporaryFolder folder_;
};

void expect_has(const std::string& text, std::string_view part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << text << "\" lacks \"" << part << "\"";
}

/// The spans of a text's tokens without frame, as "0-2 2-5".
std::string spans_of(const WordPieceTokenizer& tokenizer, std::string_view text) {
  Encoding encoding;
  tokenizer.encode(text, kMaxLength, encoding, Spans::code_points);
  EXPECT_EQ(encoding.spans.size(), encoding.ids.size());
  EXPECT_EQ(encoding.spans.front(), (TextSpan{0, 0, -1}));
  EXPECT_EQ(encoding.spans.back(), (TextSpan{0, 0, -1}));
  std::string result;
  for (std::size_t i = 1; i + 1 < encoding.spans.size(); ++i) {
    result += (i > 1 ? " " : "") + std::to_string(encoding.spans[i].begin) + "-" + std::to_string(encoding.spans[i].end);
  }
  return result;
}

TEST_F(WordPiece, SpansAreCodePointsOfTheTextAsItCame) {
  const WordPieceTokenizer bert = tokenizer();
  EXPECT_EQ(spans_of(bert, "unaffable cats."), "0-2 2-5 5-9 10-13 13-14 14-15");
  EXPECT_EQ(spans_of(bert, ""), "");
  // Accents, cleaned control characters, ideographs beside letters, four-byte characters: what the normal form changes.
  EXPECT_EQ(spans_of(bert, "\u00C9 e\u0301e"), "0-1 2-3 4-5");
  EXPECT_EQ(spans_of(bert, "c\u0001a\u200Dt"), "0-5");
  EXPECT_EQ(spans_of(bert, "a\u4E2Da"), "0-1 1-2 2-3");
  EXPECT_EQ(spans_of(bert, "\U0001F600 the"), "0-1 2-5");
  // The unknown token covers its word, a token typed into the text what was typed.
  EXPECT_EQ(spans_of(bert, "the unknownword."), "0-3 4-15 15-16");
  EXPECT_EQ(spans_of(bert, "a[SEP]a"), "0-1 1-6 6-7");
  EXPECT_EQ(spans_of(bert, "a\xFF\xFE cat"), "0-1 4-7");
}

TEST_F(WordPiece, SpansOfPairsAreCutWithTheirTokens) {
  const WordPieceTokenizer bert = tokenizer();
  Encoding encoding;
  bert.encode_pair("the cats", "a cat .", 6, Truncation::longest_first, encoding, Spans::code_points);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::the, id::sep, id::a, id::cat, id::sep}));
  EXPECT_EQ(encoding.spans, (std::vector<TextSpan>{{0, 0, -1}, {0, 3, 0}, {0, 0, -1}, {0, 1, 1}, {2, 5, 1}, {0, 0, -1}}));
  bert.encode("the cat", kMaxLength, encoding);
  EXPECT_TRUE(encoding.spans.empty());
}

TEST_F(WordPiece, TakesTheLongestPieces) {
  const WordPieceTokenizer bert = tokenizer();
  EXPECT_EQ(ids(bert, "unaffable cats"), (Ids{id::un, id::aff, id::able, id::cat, id::continuing_s}));
  EXPECT_EQ(ids(bert, "una"), (Ids{id::un, id::continuing_a}));
}

TEST_F(WordPiece, AWordWithAnUnknownPartIsUnknownAsAWhole) {
  EXPECT_EQ(ids(tokenizer(), "catx the xcat"), (Ids{id::unk, id::the, id::unk}));
}

TEST_F(WordPiece, AnEmptyTextIsItsFrame) {
  const WordPieceTokenizer bert = tokenizer();
  EXPECT_EQ(ids(bert, ""), Ids{});
  EXPECT_EQ(ids(bert, " \t\n\u3000 "), Ids{});
  EXPECT_EQ(ids(bert, std::string_view("\0\x01\u200b", 5)), Ids{});
}

TEST_F(WordPiece, NormalizesAsItsOptionsSay) {
  EXPECT_EQ(ids(tokenizer(), "THE C\u00c1T"), (Ids{id::the, id::cat}));
  EXPECT_EQ(ids(tokenizer({.lowercase = false}), "the Cat THE"), (Ids{id::the, id::capital_cat, id::unk}));
  EXPECT_EQ(ids(tokenizer({.strip_accents = false}), "C\u00c1T CAT"), (Ids{id::unk, id::cat}));
  EXPECT_EQ(ids(tokenizer(), "cat\u4e2dcat"), (Ids{id::cat, id::middle, id::cat}));
  EXPECT_EQ(ids(tokenizer({.handle_chinese_chars = false}), "cat\u4e2dcat"), (Ids{id::unk}));
  EXPECT_EQ(ids(tokenizer({.clean_text = false}), "c\u00adat"), (Ids{id::unk}));
  EXPECT_EQ(ids(tokenizer(), "c\u00adat"), (Ids{id::cat}));
}

TEST_F(WordPiece, PunctuationStandsAlone) {
  EXPECT_EQ(ids(tokenizer(), "cat.,the]"), (Ids{id::cat, id::point, id::comma, id::the, id::close}));
}

TEST_F(WordPiece, WordsOfMoreThan100CodePointsAreUnknown) {
  const WordPieceTokenizer bert = tokenizer();
  Ids hundred(100, id::continuing_e);
  hundred.front() = id::e;
  EXPECT_EQ(ids(bert, std::string(100, 'e')), hundred);
  EXPECT_EQ(ids(bert, std::string(101, 'e')), (Ids{id::unk}));
  // NOLINTNEXTLINE(bugprone-string-constructor): the length and the letter are not swapped, it is to be this long
  EXPECT_EQ(ids(bert, std::string(10'000'000, 'e')), (Ids{id::unk}));
  std::string accents;
  for (int i = 0; i < 100; ++i) accents += "\u00e9";
  EXPECT_EQ(ids(bert, accents), hundred) << "code points count, not bytes";
}

TEST_F(WordPiece, SpecialTokensInATextAreFoundBeforeNormalization) {
  const WordPieceTokenizer bert = tokenizer();
  EXPECT_EQ(ids(bert, "the[SEP]cat [MASK]"), (Ids{id::the, id::sep, id::cat, id::mask}));
  EXPECT_EQ(ids(bert, "[sep] [SEP"), (Ids{id::open, id::word_sep, id::close, id::open, id::word_sep}));
}

TEST_F(WordPiece, TextsThatAreNotUtf8AreRepaired) {
  const WordPieceTokenizer bert = tokenizer();
  Encoding encoding;
  bert.encode("cat \xFF the \xED\xA0\x80", kMaxLength, encoding);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::cat, id::the, id::sep})) << "U+FFFD is removed by clean_text";
  EXPECT_TRUE(encoding.repaired);
  bert.encode("cat", kMaxLength, encoding);
  EXPECT_FALSE(encoding.repaired);
  const WordPieceTokenizer keeping = tokenizer({.clean_text = false});
  keeping.encode("cat\xC3 the", kMaxLength, encoding);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::unk, id::the, id::sep}));
  bert.encode_pair("cat", "the\xFF", kMaxLength, Truncation::longest_first, encoding);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::cat, id::sep, id::the, id::sep}));
  EXPECT_TRUE(encoding.repaired);
}

TEST_F(WordPiece, CountsWhatIsCutAndWhatIsUnknown) {
  const WordPieceTokenizer bert = tokenizer();
  Encoding encoding;
  bert.encode("the cat xx the cat", 5, encoding);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::the, id::cat, id::unk, id::sep}));
  EXPECT_EQ(encoding.types, (Ids{0, 0, 0, 0, 0}));
  EXPECT_EQ(encoding.truncated, 2);
  EXPECT_EQ(encoding.unknown, 1);
  bert.encode("the cat", 2, encoding);
  EXPECT_EQ(encoding.ids, (Ids{id::cls, id::sep}));
  EXPECT_EQ(encoding.truncated, 2);
  expect_has(message<UsageError>([&] { bert.encode("the", 1, encoding); }), "1 tokens leaves no room for the 2 special");
}

struct PairCase {
  std::int64_t first, second, max_length;
  Truncation truncation;
  std::int64_t expected_first, expected_second;
};

TEST_F(WordPiece, PairsAreCutAsAsked) {
  const WordPieceTokenizer bert = tokenizer();
  using enum Truncation;
  const std::vector<PairCase> cases = {
      {4, 3, 10, longest_first, 4, 3},    // 7 + 3: just fits
      {8, 2, 10, longest_first, 5, 2},    // the longer one alone
      {2, 8, 10, longest_first, 2, 5},    //
      {9, 9, 10, longest_first, 3, 4},    // of equal ones the first is the shorter
      {9, 8, 10, longest_first, 4, 3},    //
      {8, 9, 10, longest_first, 3, 4},    //
      {5, 5, 3, longest_first, 0, 0},     // no room but for the frame
      {8, 4, 10, only_first, 3, 4},       //
      {4, 8, 10, only_second, 4, 3},      //
      {5, 5, 3, only_first, 0, 0},        // as Hugging Face has it
      {0, 4, 10, only_first, 0, 4},       //
      {20, 20, 50, only_second, 20, 20},  //
  };
  for (const PairCase& one : cases) {
    std::string first;
    std::string second;
    for (std::int64_t i = 0; i < one.first; ++i) first += "cat ";
    for (std::int64_t i = 0; i < one.second; ++i) second += "the ";
    Encoding encoding;
    bert.encode_pair(first, second, one.max_length, one.truncation, encoding);
    Ids expected{id::cls};
    expected.insert(expected.end(), static_cast<std::size_t>(one.expected_first), id::cat);
    expected.push_back(id::sep);
    Ids types(expected.size(), 0);
    expected.insert(expected.end(), static_cast<std::size_t>(one.expected_second), id::the);
    expected.push_back(id::sep);
    types.resize(expected.size(), 1);
    EXPECT_EQ(encoding.ids, expected) << one.first << " and " << one.second << " in " << one.max_length;
    EXPECT_EQ(encoding.types, types);
    EXPECT_EQ(encoding.truncated, one.first + one.second - one.expected_first - one.expected_second);
  }
  Encoding encoding;
  expect_has(message<UsageError>([&] { bert.encode_pair("a a", "a a a a a", 8, only_first, encoding); }),
             "a pair of 2 and 5 tokens doesn't fit into 5");
  EXPECT_THROW(bert.encode_pair("a a a a a", "a", 8, only_second, encoding), UsageError);
  EXPECT_THROW(bert.encode_pair("a", "a", 2, longest_first, encoding), UsageError);
}

TEST_F(WordPiece, KnowsItsVocabulary) {
  const WordPieceTokenizer bert = tokenizer();
  EXPECT_EQ(bert.vocabulary_size(), 22);
  EXPECT_EQ(bert.token(id::middle), "\u4e2d");
  EXPECT_EQ(bert.find("##able"), id::able);
  EXPECT_EQ(bert.find("able"), std::nullopt);
  EXPECT_EQ(bert.special_tokens().unknown, id::unk);
  EXPECT_EQ(bert.special_tokens().classifier, id::cls);
  EXPECT_EQ(bert.special_tokens().separator, id::sep);
  EXPECT_EQ(bert.special_tokens().padding, id::pad);
  EXPECT_EQ(bert.special_tokens().mask, id::mask);
  EXPECT_THROW(bert.token(22), LogicError);
  EXPECT_THROW(bert.token(-1), LogicError);
}

TEST_F(WordPiece, VocabulariesMayHaveCrlfAndAByteOrderMark) {
  std::string text = "\xEF\xBB\xBF";
  for (const char c : kVocabulary) text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  const WordPieceTokenizer bert = WordPieceTokenizer::from_vocabulary(write("crlf.txt", text), {});
  EXPECT_EQ(bert.vocabulary_size(), 22);
  EXPECT_EQ(ids(bert, "unaffable [SEP] the"), (Ids{id::un, id::aff, id::able, id::sep, id::the}));
}

TEST_F(WordPiece, RefusesVocabulariesThatAreNone) {
  const auto refuse = [&](std::string_view text) {
    return message<FormatError>([&] { WordPieceTokenizer::from_vocabulary(write("vocab.txt", text), {}); });
  };
  expect_has(refuse(""), "vocab.txt, line 1: the file is empty");
  expect_has(refuse("[UNK]\n[CLS]\n[SEP]\na\nb\na\n"), "line 6: the token \"a\" is already on line 4");
  expect_has(refuse("[UNK]\n[CLS]\na\n"), "line 3: the file ends without the token [SEP]");
  expect_has(refuse("[CLS]\n[SEP]\n"), "without the token [UNK]");
  expect_has(refuse("[UNK]\n[SEP]\n"), "without the token [CLS]");
  expect_has(refuse("[UNK]\n\n[CLS]\n[SEP]\n"), "line 2: is empty");
  expect_has(refuse("[UNK]\na\xFF\n[CLS]\n[SEP]\n"), "line 2: the token a");
  expect_has(message<FileError>([&] { WordPieceTokenizer::from_vocabulary(folder_ / "none.txt", {}); }), "none.txt");
  expect_has(message<FileError>([&] { WordPieceTokenizer::from_vocabulary(folder_.path(), {}); }), "is a folder");
}

TEST_F(WordPiece, AFolderWithoutTokenizerIsRefused) {
  expect_has(message<FileError>([&] { WordPieceTokenizer::load(folder_.path()); }), "neither tokenizer.json nor vocab.txt");
}

TEST_F(WordPiece, VocabularyAndConfiguration) {
  write("vocab.txt", kVocabulary);
  EXPECT_EQ(ids(WordPieceTokenizer::load(folder_.path()), "Cat"), (Ids{id::cat})) << "BERT's defaults";
  write("tokenizer_config.json", R"({"do_lower_case":false,"strip_accents":null,"unk_token":"[UNK]",
      "mask_token":{"content":"[MASK]","lstrip":true},"tokenizer_class":"BertTokenizer","never_split":null})");
  const WordPieceTokenizer cased = WordPieceTokenizer::load(folder_.path());
  EXPECT_EQ(ids(cased, "Cat cat"), (Ids{id::capital_cat, id::cat}));
  EXPECT_EQ(cased.files(), (std::vector{folder_ / "vocab.txt", folder_ / "tokenizer_config.json"}));

  const auto refuse = [&](std::string_view text) {
    write("tokenizer_config.json", text);
    return message<FormatError>([&] { WordPieceTokenizer::load(folder_.path()); });
  };
  expect_has(refuse(R"({"do_lower_case":"no"})"), "do_lower_case: found \"no\", expected true or false");
  expect_has(refuse(R"({"tokenizer_class":"RobertaTokenizer"})"), "tokenizer_class: found \"RobertaTokenizer\"");
  expect_has(refuse(R"({"sep_token":"</s>"})"), "without the token </s>");
  expect_has(refuse(R"({"never_split":["x"]})"), "never_split");
  expect_has(refuse(R"({"do_basic_tokenize":false})"), "do_basic_tokenize");
  expect_has(refuse(R"([])"), "found an array, expected an object");
  expect_has(refuse(R"({"added_tokens_decoder":{"9999999":{"content":"x","single_word":false,"lstrip":false,"rstrip":false,
      "normalized":false}}})"),
             "added_tokens_decoder.9999999: the key isn't an id");
}

TEST_F(WordPiece, TokensOfAConfigurationKeepTheirFlags) {
  write("vocab.txt", kVocabulary);
  write("tokenizer_config.json", R"({"added_tokens_decoder":{
      "22":{"content":"cat cat","single_word":true,"lstrip":false,"rstrip":true,"normalized":false,"special":false},
      "4":{"content":"[MASK]","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}}})");
  const WordPieceTokenizer bert = WordPieceTokenizer::load(folder_.path());
  EXPECT_EQ(bert.vocabulary_size(), 23);
  EXPECT_EQ(ids(bert, "the cat cat  [MASK] cat cats[SEP]"),
            (Ids{id::the, 22, id::mask, id::cat, id::cat, id::continuing_s, id::sep}));
}

TEST_F(WordPiece, TokenizerJson) {
  const WordPieceTokenizer bert = load_json();
  EXPECT_EQ(bert.vocabulary_size(), 9);
  EXPECT_EQ(bert.token(8), "[NEW]");
  EXPECT_EQ(bert.files(), std::vector{folder_ / "tokenizer.json"});
  EXPECT_EQ(bert.special_tokens().separator, 3);
  EXPECT_EQ(bert.special_tokens().mask, std::nullopt);
  Encoding encoding;
  bert.encode_pair("Cats a a a", "a[New][SEP]", kMaxLength, Truncation::longest_first, encoding);
  EXPECT_EQ(encoding.ids, (Ids{2, 4, 5, 6, 6, 6, 3, 6, 8, 3, 3})) << "its own truncation and padding are not used";
  EXPECT_EQ(encoding.types, (Ids{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}));
}

TEST_F(WordPiece, TokenizerJsonOf2020HasNoModelType) {
  Encoding encoding;
  load_json(R"("type":"WordPiece","unk_token")", R"("unk_token")").encode("cats", kMaxLength, encoding);
  EXPECT_EQ(encoding.ids, (Ids{2, 4, 5, 3}));
}

TEST_F(WordPiece, AnEmptyUnknownTokenIsAToken) {
  write("tokenizer.json", R"({"version":"1.0","normalizer":null,"pre_tokenizer":{"type":"BertPreTokenizer"},
      "post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
      "model":{"unk_token":"","continuing_subword_prefix":"##","max_input_chars_per_word":4,
      "vocab":{"":1,"[CLS]":2,"[SEP]":3,"a":4}}})");
  Encoding encoding;
  WordPieceTokenizer::load(folder_.path()).encode("a b", kMaxLength, encoding);
  EXPECT_EQ(encoding.ids, (Ids{2, 4, 1, 3}));
}

TEST_F(WordPiece, TokenizerJsonWithBertProcessingAndWithoutNormalizer) {
  write("tokenizer.json", R"({"version":"1.0","normalizer":null,"pre_tokenizer":{"type":"BertPreTokenizer"},
      "post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
      "model":{"unk_token":"[UNK]","continuing_subword_prefix":"","max_input_chars_per_word":4,
      "vocab":{"[UNK]":1,"[CLS]":2,"[SEP]":3,"A":4,"bc":7}}})");
  const WordPieceTokenizer bert = WordPieceTokenizer::load(folder_.path());
  Encoding encoding;
  bert.encode_pair("Abc a AAAAA", "bcA\u4e2d", kMaxLength, Truncation::longest_first, encoding);
  EXPECT_EQ(encoding.ids, (Ids{2, 4, 7, 1, 1, 3, 1, 3}));
  EXPECT_EQ(encoding.types, (Ids{0, 0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(encoding.unknown, 3);
  EXPECT_EQ(bert.vocabulary_size(), 8) << "ids may leave gaps";
  EXPECT_EQ(bert.token(5), "");
}

TEST_F(WordPiece, TheTemplateIsHonoured) {
  const WordPieceTokenizer bert =
      load_json(R"("single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}})",
                R"("single":[{"SpecialToken":{"id":"[CLS]","type_id":1}},{"Sequence":{"id":"A","type_id":2}})");
  Encoding encoding;
  bert.encode("cat", kMaxLength, encoding);
  EXPECT_EQ(encoding.types, (Ids{1, 2, 0}));
}

TEST_F(WordPiece, RefusesTokenizerJsonThatItDoesNotImplement) {
  expect_has(refusal(R"("type":"WordPiece","unk)", R"("type":"BPE","unk)"),
             R"(tokenizer.json, model.type: found "BPE", expected "WordPiece")");
  expect_has(refusal(R"("type":"BertNormalizer")", R"("type":"NFKC")"),
             R"(normalizer.type: found "NFKC", expected "BertNormalizer")");
  expect_has(refusal(R"({"type":"BertPreTokenizer"})", R"({"type":"Whitespace"})"), "pre_tokenizer.type: found \"Whitespace\"");
  expect_has(refusal(R"({"type":"BertPreTokenizer"})", "null"), "pre_tokenizer: found null");
  expect_has(refusal(R"("type":"TemplateProcessing")", R"("type":"RobertaProcessing")"),
             "post_processor.type: found \"RobertaProcessing\"");
  expect_has(refusal(R"("version":"1.0")", R"("version":"2.0")"), "version: found \"2.0\"");
  expect_has(refusal(R"("strip_accents":null)", R"("strip_accents":1)"),
             "normalizer.strip_accents: found 1, expected true or false");
  expect_has(refusal(R"("single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A")",
                     R"("single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"B")"),
             "post_processor.single: found");
  expect_has(refusal(R"("pair":[{"SpecialToken":{"id":"[CLS]")", R"("pair":[{"SpecialToken":{"id":"<s>")"),
             "post_processor.special_tokens: the field \"<s>\" is missing");
  expect_has(refusal(R"("ids":[2])", R"("ids":[9])"),
             "post_processor.special_tokens.[CLS].ids[0]: found 9, expected an id below");
}

TEST_F(WordPiece, RefusesTokenizerJsonThatContradictsItself) {
  expect_has(refusal(R"("a":6)", R"("cat":6)"), "model.vocab: the token \"cat\" occurs twice");
  expect_has(refusal(R"("a":6)", R"("a":4)"), R"(model.vocab["a"]: the id 4 is already that of "cat")");
  expect_has(refusal(R"("a":6)", R"("a":-6)"), "model.vocab.a: found -6, expected an id");
  expect_has(refusal(R"("a":6)", R"("a":18446744073709551616)"), "model.vocab.a: found 1.8446744073709552e+19, expected an id");
  expect_has(refusal(R"("a":6)", R"("a":4194304)"), "model.vocab[\"a\"]: found 4194304, expected an id of 0 to 4194303");
  expect_has(refusal(R"("a":6)", R"("a":6.0)"), "model.vocab.a: found 6.0");
  expect_has(refusal(R"("a":6)", R"("a":"6")"), "model.vocab.a: found \"6\"");
  expect_has(refusal(R"("a":6)", R"("a":{})"), "model.vocab.a: found an object");
  expect_has(refusal(R"({"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"cat":4,"##s":5,"a":6,"new":7})", "[]"),
             "model.vocab: found an array");
  expect_has(refusal(R"({"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"cat":4,"##s":5,"a":6,"new":7})", "{}"),
             "expected at least one token");
  expect_has(refusal(R"("unk_token":"[UNK]")", R"("unk_token":"<unk>")"), "model.unk_token: found \"<unk>\", expected a token");
  expect_has(refusal(R"({"id":8)", R"({"id":9)"), "added_tokens[2]: \"[NEW]\" has id 9, but the next free one is 8");
  expect_has(refusal(R"({"id":3)", R"({"id":2)"), "added_tokens[1]: \"[SEP]\" has id 2, but the vocabulary gives it 3");
  expect_has(refusal(R"("content":"[NEW]")", R"("content":"[SEP]")"), "added_tokens[2]");
  expect_has(refusal(R"("content":"[NEW]")", R"("content":"")"), "added_tokens[2].content: found \"\"");
  expect_has(refusal(R"("content":"[NEW]")", R"("content":"\u00ad")"), "becomes \"\" when normalized");
  expect_has(refusal(R"("clean_text":true,)", R"("clean_text":true,"clean_text":true,)"),
             "normalizer.clean_text: the key \"clean_text\" occurs twice");
  expect_has(refusal(R"("clean_text":true,)", ""), "normalizer: the field \"clean_text\" is missing");
  expect_has(refusal(R"({"version":"1.0",)", R"({"version":"1.0",,)"), "byte 18: ");
  expect_has(refusal(R"("decoder":{)", R"("decoder":{"x":)" + std::string(100, '[')), "nested more than 64 levels deep");
  write("tokenizer.json", "");
  EXPECT_THROW(WordPieceTokenizer::load(folder_.path()), FormatError);
  write("tokenizer.json", "[1]");
  EXPECT_THROW(WordPieceTokenizer::load(folder_.path()), FormatError);
  // Nothing hides behind a NUL byte.
  const std::filesystem::path path = write_json();
  std::ofstream(path, std::ios::app) << std::string_view("\0{}", 3);
  expect_has(message<FormatError>([&] { WordPieceTokenizer::load(folder_.path()); }), ": a NUL byte");
}

TEST_F(WordPiece, TruncatedFilesAreRefusedAtEveryLength) {
  write_json();
  const std::filesystem::path path = folder_ / "tokenizer.json";
  for (std::uintmax_t length = std::filesystem::file_size(path); length-- > 0;) {
    std::filesystem::resize_file(path, length);
    EXPECT_THROW(WordPieceTokenizer::load(folder_.path()), FormatError) << length;
  }
}

TEST_F(WordPiece, ManyTextsComeInOrderWhateverTheThreads) {
  const WordPieceTokenizer bert = tokenizer();
  std::vector<std::string> texts;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int k = 0; k < i % 7; ++k) text += k % 3 == 0 ? "unaffable " : "cats, ";
    texts.push_back(text + (i % 100 == 0 ? "xx \xFF" : ""));
  }
  const EncodedTexts one = encode_all(bert, texts, {.max_length = 12, .threads = 1});
  const EncodedTexts four = encode_all(bert, texts, {.max_length = 12, .threads = 4});
  EXPECT_TRUE(std::ranges::equal(one.samples.ids, four.samples.ids));
  EXPECT_TRUE(std::ranges::equal(one.samples.types, four.samples.types));
  EXPECT_TRUE(std::ranges::equal(one.samples.offsets, four.samples.offsets));
  ASSERT_EQ(one.samples.count(), 3000);
  std::int64_t truncated = 0;
  std::int64_t longest = 0;
  Encoding encoding;
  for (std::int64_t i = 0; i < one.samples.count(); ++i) {
    bert.encode(texts[static_cast<std::size_t>(i)], 12, encoding);
    const auto begin = one.samples.ids.begin() + one.samples.offsets[static_cast<std::size_t>(i)];
    ASSERT_EQ(Ids(begin, begin + one.samples.length(i)), encoding.ids) << i;
    truncated += encoding.truncated > 0 ? 1 : 0;
    longest = std::max(longest, static_cast<std::int64_t>(encoding.ids.size()) + encoding.truncated);
  }
  EXPECT_GT(truncated, 0);
  EXPECT_EQ(four.truncated, truncated);
  EXPECT_EQ(four.longest, longest);
  EXPECT_EQ(four.repaired, 30);
  EXPECT_GT(four.unknown, 0);
}

TEST_F(WordPiece, ManyPairsAndTheFirstThatCannotBeCut) {
  const WordPieceTokenizer bert = tokenizer();
  TextSource source;
  source.count = 2000;
  source.text = [](std::int64_t i) -> std::string_view { return i % 2 == 0 ? "the cat" : "cats"; };
  source.pair = [](std::int64_t i) -> std::string_view { return i >= 1500 ? "a a a a a a a a" : "a"; };
  const EncodedTexts pairs = encode_all(bert, source, {.max_length = 16, .threads = 3});
  EXPECT_EQ(pairs.samples.count(), 2000);
  EXPECT_EQ(Ids(pairs.samples.ids.begin(), pairs.samples.ids.begin() + 6),
            (Ids{id::cls, id::the, id::cat, id::sep, id::a, id::sep}));
  EXPECT_EQ(Ids(pairs.samples.types.begin(), pairs.samples.types.begin() + 6), (Ids{0, 0, 0, 0, 1, 1}));
  const EncodeOptions narrow{.max_length = 8, .truncation = Truncation::only_first, .threads = 3};
  expect_has(message<UsageError>([&] { encode_all(bert, source, narrow); }), "2 and 8 tokens");
  EXPECT_EQ(encode_all(bert, std::vector<std::string>{}, {}).samples.count(), 0);
}

TEST(WordPieceWeights, TokenizerJsonAndVocabularyOfMiniLmAgree) {
  const char* folder = std::getenv("LATHE_TEST_WEIGHTS");
  if (folder == nullptr) GTEST_SKIP() << "LATHE_TEST_WEIGHTS doesn't name the folder of all-MiniLM-L6-v2";
  const std::filesystem::path path(folder);
  const WordPieceTokenizer json = WordPieceTokenizer::load(path);
  const WordPieceTokenizer vocabulary = WordPieceTokenizer::from_vocabulary(path / "vocab.txt", {});
  ASSERT_EQ(json.vocabulary_size(), 30522);
  ASSERT_EQ(vocabulary.vocabulary_size(), 30522);
  EXPECT_EQ(std::count(json.files().begin(), json.files().end(), path / "tokenizer.json"), 1);
  Encoding a;
  Encoding b;
  for (std::int32_t id = 0; id < json.vocabulary_size(); ++id) {
    ASSERT_EQ(json.token(id), vocabulary.token(id));
    const std::string text = "A " + std::string(json.token(id)) + "x, [SEP] \u00c9t\u00e9";
    json.encode_pair(text, json.token(id), 16, Truncation::longest_first, a);
    vocabulary.encode_pair(text, json.token(id), 16, Truncation::longest_first, b);
    ASSERT_EQ(a.ids, b.ids) << text;
  }
  json.encode("a [MASK] of Tokens", kMaxLength, a);
  EXPECT_EQ(a.ids, (Ids{101, 1037, 103, 1997, 19204, 2015, 102}));
}

}  // namespace
}  // namespace lathe
