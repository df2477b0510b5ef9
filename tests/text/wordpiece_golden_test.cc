// The tokenizer against Hugging Face's, by digests that scripts/golden_tokenizer.py wrote from the same inputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/text/bert_normalizer.h"
#include "lathe/text/unicode.h"
#include "lathe/text/wordpiece.h"
#include "tests/temporary_folder.h"

namespace lathe {
namespace {

constexpr std::int64_t kUnlimited = std::int64_t{1} << 40U;
constexpr std::int64_t kGroup = 1000;
constexpr std::uint64_t kFactor = 0x9E3779B97F4A7C15U;

class Digest {
 public:
  template <typename Values>
  void add(const Values& values) {
    for (const auto value : values) append(std::uint64_t{static_cast<std::uint32_t>(value)} + 1);
    append(0);
  }
  void add_text(std::string_view text) {
    for (const char byte : text) append(static_cast<std::uint64_t>(static_cast<unsigned char>(byte)) + 1);
    append(0);
  }
  void add_encoding(const Encoding& encoding) {
    add(encoding.ids);
    add(encoding.types);
  }
  void add_offsets(std::span<const std::int32_t> ids, std::span<const TextSpan> spans) {
    add(ids);
    std::vector<std::int32_t> bounds;
    for (const TextSpan& span : spans) bounds.insert(bounds.end(), {span.begin, span.end});
    add(bounds);
  }
  std::string hex() const {
    std::ostringstream text;
    text << std::hex << std::setw(16) << std::setfill('0') << state_;
    return text.str();
  }

 private:
  void append(std::uint64_t value) { state_ = state_ * kFactor + value; }
  std::uint64_t state_ = 0;
};

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!bytes.empty() && bytes.back() == '\n') bytes.pop_back();
  std::vector<std::string> lines;
  for (std::size_t begin = 0;;) {
    const std::size_t end = bytes.find('\n', begin);
    lines.push_back(bytes.substr(begin, end - begin));
    if (end == std::string::npos) return lines;
    begin = end + 1;
  }
}

/// Compares digests of `count` inputs with the file `name`.txt; add(i, digest) adds what becomes of input i.
template <typename Add>
void expect_digests(const std::string& name, std::int64_t count, Add&& add) {
  std::vector<std::string> expected = lines_of(std::filesystem::path(LATHE_GOLDEN_TOKENIZER) / (name + ".txt"));
  std::erase_if(expected, [](const std::string& line) { return line.starts_with('#'); });
  ASSERT_EQ(static_cast<std::int64_t>(expected.size()), (count + kGroup - 1) / kGroup) << name;
  for (std::int64_t group = 0; group * kGroup < count; ++group) {
    Digest digest;
    for (std::int64_t i = group * kGroup; i < std::min(count, (group + 1) * kGroup); ++i) add(i, digest);
    EXPECT_EQ(digest.hex(), expected[static_cast<std::size_t>(group)])
        << name << ": inputs " << group * kGroup << " to " << (group + 1) * kGroup - 1;
  }
}

void expect_encoded(const std::string& name, const WordPieceTokenizer& tokenizer, const std::vector<std::string>& texts) {
  // All threads, so that the order of results is tested too.
  const EncodedTexts encoded = encode_all(tokenizer, texts, {.max_length = kUnlimited, .truncation = {}, .threads = 2});
  ASSERT_EQ(encoded.samples.count(), static_cast<std::int64_t>(texts.size()));
  EXPECT_EQ(encoded.truncated, 0);
  EXPECT_EQ(encoded.repaired, 0);
  expect_digests(name, encoded.samples.count(), [&](std::int64_t i, Digest& digest) {
    const auto first = static_cast<std::size_t>(encoded.samples.offsets[static_cast<std::size_t>(i)]);
    const auto length = static_cast<std::size_t>(encoded.samples.length(i));
    digest.add(std::span(encoded.samples.ids).subspan(first, length));
    digest.add(std::span(encoded.samples.types).subspan(first, length));
  });
}

void expect_offsets(const std::string& name, const WordPieceTokenizer& tokenizer, const std::vector<std::string>& texts) {
  const EncodedTexts encoded =
      encode_all(tokenizer, texts, {.max_length = kUnlimited, .truncation = {}, .threads = 2, .spans = Spans::code_points});
  ASSERT_EQ(encoded.spans.size(), encoded.samples.ids.size());
  expect_digests(name, encoded.samples.count(), [&](std::int64_t i, Digest& digest) {
    const auto first = static_cast<std::size_t>(encoded.samples.offsets[static_cast<std::size_t>(i)]);
    const auto length = static_cast<std::size_t>(encoded.samples.length(i));
    digest.add_offsets(std::span(encoded.samples.ids).subspan(first, length), std::span(encoded.spans).subspan(first, length));
  });
}

// The random inputs of the script, drawn by the same rules.

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t below(std::uint64_t bound) {
    state_ += kFactor;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return (z ^ (z >> 31U)) % bound;
  }

 private:
  std::uint64_t state_;
};

constexpr std::u32string_view kSpaces = U" \t\n\r\u000b\u0085\u00a0\u1680\u2003\u2028\u202f\u3000\u200b\ufeff\u00ad\ufffd";

const std::vector<std::string>& typed() {
  static const std::vector<std::string> texts = {
      "[SEP]",  "[CLS]",  "[UNK]",   "[MASK]",    "[PAD]", "[sep]", "[SEP",      "##ing",       "[unused1]", "\u0130", "\u1e9e",
      "\u212b", "<both>", "<right>", "<right>  ", "<",     "word",  "Caf\u00e9", "CAFE\u0301s", "\u4e2d",    "<NORM>", "<norm> "};
  return texts;
}

std::string random_text(SplitMix64& random) {
  std::string text;
  const auto append = [&](std::uint64_t code) { append_code_point(static_cast<char32_t>(code), text); };
  const std::uint64_t pieces = random.below(24);
  for (std::uint64_t piece = 0; piece < pieces; ++piece) {
    const std::uint64_t kind = random.below(20);
    if (kind < 6) {
      const std::size_t begin = text.size();
      const std::uint64_t letters = 1 + random.below(9);
      for (std::uint64_t i = 0; i < letters; ++i) append('a' + random.below(26));
      if (random.below(4) == 0) text[begin] = static_cast<char>(text[begin] - 'a' + 'A');
    } else if (kind == 6) {
      append(' ');
    } else if (kind == 7) {
      append(kSpaces[random.below(kSpaces.size())]);
    } else if (kind == 8) {
      append(33 + random.below(94));
    } else if (kind == 9) {
      append(0xC0 + random.below(0x190));
    } else if (kind == 10) {
      append(0x300 + random.below(0x70));
    } else if (kind == 11) {
      append(0x4E00 + random.below(0x5200));
    } else if (kind == 12) {
      append(0x1F300 + random.below(0x800));
    } else if (kind == 13) {
      append(random.below(0xA0));
    } else if (kind == 14) {
      const std::uint64_t code = random.below(0x110000);
      append(code >= 0xD800 && code < 0xE000 ? 'x' : code);
    } else if (kind == 15) {
      text += typed()[random.below(typed().size())];
    } else if (kind == 16) {
      append(0x370 + random.below(0x1C00));
    } else if (kind == 17) {
      append(0xAC00 + random.below(11172));
    } else if (kind == 18) {
      append(0x2000 + random.below(0x1000));
    } else if (random.below(50) == 0) {
      text.append(95 + random.below(12), 'e');
    } else {
      append(0x10000 + random.below(0x10000));
    }
  }
  return text;
}

void expect_random(const std::string& name, const WordPieceTokenizer& tokenizer, std::int64_t count, Spans spans = Spans::none) {
  Encoding encoding;
  std::int64_t impossible = 0;
  const auto add_encoding = [&](Digest& digest) {
    if (spans == Spans::none) return digest.add_encoding(encoding);
    digest.add_offsets(encoding.ids, encoding.spans);
  };
  expect_digests(name, count, [&](std::int64_t i, Digest& digest) {
    SplitMix64 random(static_cast<std::uint64_t>(i));
    const std::uint64_t mode = random.below(4);
    const std::string first = random_text(random);
    if (mode <= 1) {
      tokenizer.encode(first, mode == 0 ? kUnlimited : static_cast<std::int64_t>(2 + random.below(30)), encoding, spans);
      return add_encoding(digest);
    }
    const std::string second = random_text(random);
    Truncation truncation = Truncation::longest_first;
    if (mode == 3) truncation = random.below(2) == 0 ? Truncation::only_first : Truncation::only_second;
    const auto max_length = static_cast<std::int64_t>(3 + random.below(60));
    try {
      tokenizer.encode_pair(first, second, max_length, truncation, encoding, spans);
      add_encoding(digest);
    } catch (const UsageError&) {
      ++impossible;
      digest.add(std::vector<std::uint32_t>{0xFFFFFFFFU});
    }
  });
  EXPECT_GT(impossible, 0);
}

std::vector<char32_t> code_points() {
  std::vector<char32_t> codes;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xD800 || c >= 0xE000) codes.push_back(c);
  }
  return codes;
}

void expect_code_points(const std::string& name, const WordPieceTokenizer& tokenizer) {
  const std::vector<char32_t> codes = code_points();
  Encoding encoding;
  std::string text;
  expect_digests(name, 2 * static_cast<std::int64_t>(codes.size()), [&](std::int64_t i, Digest& digest) {
    const bool between = i % 2 == 1;
    text.clear();
    if (between) text.push_back('a');
    append_code_point(codes[static_cast<std::size_t>(i / 2)], text);
    if (between) text.push_back('b');
    tokenizer.encode(text, kUnlimited, encoding);
    digest.add_encoding(encoding);
  });
}

/// A code point alone, between letters, and among marks of several combining classes.
std::string among_marks(char32_t code) {
  std::string c;
  append_code_point(code, c);
  return (c + " a").append(c).append("b e\u0301\U0001d16d").append(c).append("\u302e\U0001d165\u0323d");
}

void expect_normal_forms(const std::string& name, const BertNormalizerOptions& options) {
  const std::vector<char32_t> codes = code_points();
  const BertNormalizer normalizer(options);
  std::string normal;
  expect_digests(name, static_cast<std::int64_t>(codes.size()), [&](std::int64_t i, Digest& digest) {
    normalizer.normalize(among_marks(codes[static_cast<std::size_t>(i)]), normal);
    digest.add_text(normal);
  });
}

/// By a vocabulary of single characters, so that words which stay marks and letters give a token for each.
void expect_offsets_of_code_points(const std::string& name, const BertNormalizerOptions& options) {
  const TemporaryFolder folder;
  std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (const char* prefix : {"", "##"}) {
    for (const char32_t c : code_points()) {
      if (!((c > 0x20 && c < 0x3000) || (c >= 0x1D100 && c < 0x1D200) || (c >= 0x3020 && c < 0x3040))) continue;
      vocabulary += prefix;
      append_code_point(c, vocabulary);
      vocabulary += '\n';
    }
  }
  std::ofstream(folder / "vocab.txt", std::ios::binary) << vocabulary;
  std::vector<std::string> texts;
  for (const char32_t c : code_points()) texts.push_back(among_marks(c));
  expect_offsets(name, WordPieceTokenizer::from_vocabulary(folder / "vocab.txt", options), texts);
}

TEST(WordPieceGolden, NormalFormsOfBertUncased) { expect_normal_forms("normal_uncased", {}); }

TEST(WordPieceGolden, NormalFormsOfBertCased) { expect_normal_forms("normal_cased", {.lowercase = false}); }

TEST(WordPieceGolden, NormalFormsWithLowercaseOnly) {
  expect_normal_forms("normal_lowercase", {.clean_text = false, .handle_chinese_chars = false, .strip_accents = false});
}

TEST(WordPieceGolden, NormalFormsWithAccentsStrippedOnly) {
  expect_normal_forms("normal_stripped",
                      {.clean_text = false, .handle_chinese_chars = false, .strip_accents = true, .lowercase = false});
}

TEST(WordPieceGolden, WordsAroundEveryCodePoint) {
  const std::vector<char32_t> codes = code_points();
  expect_digests("words", static_cast<std::int64_t>(codes.size()), [&](std::int64_t i, Digest& digest) {
    std::string c;
    append_code_point(codes[static_cast<std::size_t>(i)], c);
    std::string text = c;
    text.append(" a").append(c).append("b").append(c).append(c);
    for_each_word(Unicode::tables(), text, [&](const Word& word) { digest.add_text(word.text); });
  });
}

TEST(WordPieceGolden, RandomTextsWithAddedTokensOfEveryKind) {
  const auto folder = std::filesystem::path(LATHE_GOLDEN_TOKENIZER) / "added_tokens";
  expect_random("random_added", WordPieceTokenizer::load(folder), 50000);
}

TEST(WordPieceGolden, OffsetsOfRandomTextsWithAddedTokensOfEveryKind) {
  const auto folder = std::filesystem::path(LATHE_GOLDEN_TOKENIZER) / "added_tokens";
  expect_random("offsets_random_added", WordPieceTokenizer::load(folder), 50000, Spans::code_points);
}

TEST(WordPieceGolden, OffsetsOfEveryCodePointAmongMarks) { expect_offsets_of_code_points("offsets_code_points", {}); }

TEST(WordPieceGolden, OffsetsOfEveryCodePointLowercasedOnly) {
  expect_offsets_of_code_points("offsets_code_points_lowercase",
                                {.clean_text = false, .handle_chinese_chars = false, .strip_accents = false});
}

/// With the data sets and vocabularies of the folder that LATHE_TEST_DATA names.
class WordPieceGoldenData : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("LATHE_TEST_DATA");
    if (folder == nullptr) GTEST_SKIP() << "LATHE_TEST_DATA doesn't name the folder of data sets and vocabularies";
    data_ = folder;
  }

  WordPieceTokenizer tokenizer(const std::string& name, const BertNormalizerOptions& options = {}) const {
    return WordPieceTokenizer::from_vocabulary(data_ / "vocab" / ("bert-base-" + name) / "vocab.txt", options);
  }

  std::vector<std::string> lines(const std::vector<std::string>& files) const {
    std::vector<std::string> all;
    for (const std::string& file : files) {
      for (std::string& line : lines_of(data_ / file)) all.push_back(std::move(line));
    }
    return all;
  }

  /// The first columns, without the headers.
  std::vector<std::string> texts(const std::vector<std::string>& files) const {
    std::vector<std::string> all;
    for (const std::string& file : files) {
      const std::vector<std::string> rows = lines({file});
      for (std::size_t i = 1; i < rows.size(); ++i) all.push_back(rows[i].substr(0, rows[i].find('\t')));
    }
    return all;
  }

  std::filesystem::path data_;
};

TEST_F(WordPieceGoldenData, Sst2) { expect_encoded("sst2", tokenizer("uncased"), texts({"sst2/train.tsv", "sst2/dev.tsv"})); }

TEST_F(WordPieceGoldenData, WikiSample) {
  expect_encoded("wiki", tokenizer("uncased"),
                 lines({"wiki-sample/wiki_00", "wiki-sample/wiki_01", "wiki-sample/wiki_02", "wiki-sample/wiki_03"}));
}

TEST_F(WordPieceGoldenData, WikiSampleCased) {
  expect_encoded("wiki_cased", tokenizer("cased", {.lowercase = false}), lines({"wiki-sample/wiki_00"}));
}

TEST_F(WordPieceGoldenData, ChineseReviews) {
  const std::vector<std::string> reviews = texts({"zh-reviews/train.tsv", "zh-reviews/dev.tsv"});
  expect_encoded("zh_reviews", tokenizer("chinese", {.lowercase = false}), reviews);
  expect_encoded("zh_reviews_lower", tokenizer("chinese"), reviews);
}

TEST_F(WordPieceGoldenData, EveryCodePoint) { expect_code_points("code_points", tokenizer("uncased")); }

TEST_F(WordPieceGoldenData, EveryCodePointCased) {
  expect_code_points("code_points_cased", tokenizer("cased", {.lowercase = false}));
}

TEST_F(WordPieceGoldenData, RandomTexts) { expect_random("random", tokenizer("uncased"), 100000); }

TEST_F(WordPieceGoldenData, OffsetsOfSst2) {
  expect_offsets("offsets_sst2", tokenizer("uncased"), texts({"sst2/train.tsv", "sst2/dev.tsv"}));
}

TEST_F(WordPieceGoldenData, OffsetsOfTheWikiSample) {
  expect_offsets("offsets_wiki", tokenizer("uncased"), lines({"wiki-sample/wiki_00"}));
}

TEST_F(WordPieceGoldenData, OffsetsOfRandomTexts) {
  expect_random("offsets_random", tokenizer("uncased"), 50000, Spans::code_points);
  expect_random("offsets_random_cased", tokenizer("cased", {.lowercase = false}), 20000, Spans::code_points);
  expect_random("offsets_random_chinese", tokenizer("chinese"), 20000, Spans::code_points);
}

TEST_F(WordPieceGoldenData, RandomTextsCased) { expect_random("random_cased", tokenizer("cased", {.lowercase = false}), 20000); }

}  // namespace
}  // namespace lathe
