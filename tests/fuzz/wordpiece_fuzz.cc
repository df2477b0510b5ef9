// encode() on any text, with a tokenizer that has every kind of added token and with BERT's usual ones.
#include <array>
#include <string>
#include <vector>

#include "tests/fuzz/encoding_rules.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

constexpr std::string_view kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nab\nabc\ncafe\ncaf\xC3\xA9\nthe\nThe\n##a\n##b\n##c\n##bc\n##s\n1\n##1\n.\n,\n'"
    "\n-\n"
    "!\n\xE4\xB8\xAD\n##\xE4\xB8\xAD\n\xCE\xB1\n##\xCE\xB1\n\xF0\x9F\x98\x80\n\xC3\x9F\n##\xCC\x81\n\xE1\x84\x80\n##"
    "\xE1\x85\xA1\n\xEF\xBF\xBD\n";

/// Uncased, with added tokens that take white space, stand alone, or are sought in the normalized text.
constexpr std::string_view kTokenizerJson = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[
{"id":2,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":3,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":8,"content":"<l>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":false},
{"id":9,"content":"<r>","single_word":false,"lstrip":false,"rstrip":true,"normalized":false,"special":false},
{"id":10,"content":"one","single_word":true,"lstrip":false,"rstrip":false,"normalized":false,"special":false},
{"id":11,"content":"N\u00c9","single_word":false,"lstrip":true,"rstrip":true,"normalized":true,"special":false},
{"id":12,"content":"<lr>","single_word":true,"lstrip":true,"rstrip":true,"normalized":false,"special":false}],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]},
"decoder":null,"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":8,
"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"a":4,"##a":5,"##b":6,"b":7}}})";

Bytes bytes_of(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

WordPieceTokenizer with_vocabulary(bool lowercase) {
  const MemoryFile file("vocab.txt");
  file.hold(bytes_of(kVocabulary));
  return WordPieceTokenizer::from_vocabulary(file.path(), {.lowercase = lowercase});
}

WordPieceTokenizer with_added_tokens() {
  const MemoryFile file("tokenizer.json");
  file.hold(bytes_of(kTokenizerJson));
  return WordPieceTokenizer::load(file.folder());
}

/// The tokens without the [CLS] in front and the [SEP] behind.
std::vector<std::int32_t> inner_ids(const WordPieceTokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = encoded(tokenizer, text).ids;
  return {ids.begin() + 1, ids.end() - 1};
}

std::vector<std::int32_t> joined(std::vector<std::int32_t> ids, const std::vector<std::int32_t>& more) {
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

void check_pair(const WordPieceTokenizer& tokenizer, std::string_view first, std::string_view second, std::int64_t room,
                Truncation truncation) {
  const std::int32_t separator = *tokenizer.special_tokens().separator;
  Encoding whole;
  tokenizer.encode_pair(first, second, kPlenty, Truncation::longest_first, whole);
  check_ids(tokenizer, whole);
  const std::vector<std::int32_t> expected =
      joined(joined(encoded(tokenizer, first).ids, inner_ids(tokenizer, second)), {separator});
  require(whole.ids == expected, "a pair is its texts, framed");
  Encoding cut;
  if (!accepted([&] { return tokenizer.encode_pair(first, second, 3 + room, truncation, cut), true; })) {
    require(truncation != Truncation::longest_first, "the longest can always be cut first");
    return;
  }
  check_ids(tokenizer, cut);
  const auto length = static_cast<std::int64_t>(whole.ids.size());
  require(static_cast<std::int64_t>(cut.ids.size()) == std::min(length, 3 + room), "a pair is cut to the length, not below");
  require(cut.truncated == length - static_cast<std::int64_t>(cut.ids.size()), "what is cut of a pair is counted");
}

}  // namespace
}  // namespace lathe::fuzz

/// The input is the text. Its length chooses the tokenizer and what is cut, so that it needs nothing in front.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  using lathe::Truncation;
  static const std::array tokenizers = {with_vocabulary(true), with_vocabulary(false), with_added_tokens()};
  constexpr std::array kTruncations = {Truncation::longest_first, Truncation::only_first, Truncation::only_second};
  const std::size_t kind = size % tokenizers.size();
  const lathe::WordPieceTokenizer& tokenizer = tokenizers[kind];
  const std::string_view text = text_of({data, size});
  check_encoding(tokenizer, text);

  // The front and the rest as two texts; what is cut inside a character is repaired.
  const std::string_view first = text.substr(0, size / 2);
  const std::string_view second = text.substr(size / 2);
  const std::int64_t room = size == 0 ? 0 : data[0] % 16;
  check_pair(tokenizer, first, second, room, kTruncations[size / tokenizers.size() % kTruncations.size()]);
  if (kind == 2) return 0;  // one of its added tokens takes white space, across lines too
  const std::string both = lathe::repair_utf8(first) + "\n" + lathe::repair_utf8(second);
  require(inner_ids(tokenizer, both) == joined(inner_ids(tokenizer, first), inner_ids(tokenizer, second)),
          "texts on two lines are tokenized as each alone");
  return 0;
}
