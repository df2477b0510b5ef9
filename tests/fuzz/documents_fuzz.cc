// Plain text for pre-training, and the sequences that it is cut into.
#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "lathe/text/documents.h"
#include "lathe/text/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

constexpr std::string_view kVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##a\n##b\n1\n.\n\xE4\xB8\xAD\n";
constexpr std::int64_t kPlenty = std::int64_t{1} << 40U;

WordPieceTokenizer small_tokenizer() {
  const MemoryFile file("vocab.txt");
  file.hold({reinterpret_cast<const std::uint8_t*>(kVocabulary.data()), kVocabulary.size()});
  return WordPieceTokenizer::from_vocabulary(file.path(), {});
}

using Paragraphs = std::vector<std::string>;

/// What the documents of a text are, found in the plainest way.
std::vector<Paragraphs> split(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::vector<Paragraphs> documents(1);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t\r\v\f") != std::string_view::npos) {
      documents.back().emplace_back(line);
    } else if (!documents.back().empty()) {
      documents.emplace_back();
    }
  }
  if (documents.back().empty()) documents.pop_back();
  return documents;
}

std::vector<Paragraphs> paragraphs_of(const Documents& documents) {
  std::vector<Paragraphs> all;
  for (std::int64_t document = 0; document < documents.count(); ++document) {
    all.emplace_back();
    for (std::int64_t i = documents.first_paragraph(document); i < documents.first_paragraph(document + 1); ++i)
      all.back().emplace_back(documents.paragraph(i));
  }
  return all;
}

/// The tokens of a document, end to end.
std::vector<std::int32_t> tokens_of(const WordPieceTokenizer& tokenizer, const Paragraphs& document) {
  std::vector<std::int32_t> tokens;
  Encoding encoding;
  for (const std::string& paragraph : document) {
    tokenizer.encode(paragraph, kPlenty, encoding);
    tokens.insert(tokens.end(), encoding.ids.begin() + 1, encoding.ids.end() - 1);
  }
  return tokens;
}

void check_sequences(const WordPieceTokenizer& tokenizer, const Documents& documents, std::int64_t max_length) {
  const DocumentSequences made = make_sequences(tokenizer, documents, {.max_length = max_length, .threads = 1});
  require(made.documents() == documents.count(), "a document has a place, with or without sequences");
  const SpecialTokens& special = tokenizer.special_tokens();
  const auto room = static_cast<std::size_t>(max_length) - 2;
  const std::vector<Paragraphs> paragraphs = paragraphs_of(documents);
  std::int64_t sequence = 0;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < made.documents(); ++i) {
    require(made.first_sequence[static_cast<std::size_t>(i)] == sequence, "sequences are those of the documents, in order");
    const std::vector<std::int32_t> all = tokens_of(tokenizer, paragraphs[static_cast<std::size_t>(i)]);
    for (std::size_t first = 0; first < all.size(); first += room) {
      const std::span<const std::int32_t> piece = std::span(all).subspan(first, std::min(room, all.size() - first));
      if (std::ranges::all_of(piece, [&](std::int32_t id) { return is_special(special, id); })) continue;
      require(sequence < made.samples.count(), "what can teach is in a sequence");
      const auto begin = static_cast<std::size_t>(made.samples.offsets[static_cast<std::size_t>(sequence)]);
      const auto length = static_cast<std::size_t>(made.samples.length(sequence));
      const std::span<const std::int32_t> ids = std::span(made.samples.ids).subspan(begin, length);
      require(ids.front() == special.classifier && ids.back() == special.separator, "a sequence is framed");
      require(std::ranges::equal(ids.subspan(1, length - 2), piece), "a sequence is a piece of its document");
      tokens += static_cast<std::int64_t>(piece.size());
      ++sequence;
    }
  }
  require(sequence == made.samples.count() && made.first_sequence.back() == sequence, "there are no other sequences");
  require(tokens == made.tokens, "tokens are counted");
}

}  // namespace
}  // namespace lathe::fuzz

/// The input is the file. Its length chooses how long sequences are, so that it needs nothing in front.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  static const MemoryFile memory("text.txt");
  static const lathe::WordPieceTokenizer tokenizer = small_tokenizer();
  constexpr std::array<std::int64_t, 4> kLengths = {3, 4, 7, 512};
  memory.hold({data, size});
  const std::array files = {memory.path()};
  const auto documents = accepted([&] { return lathe::read_documents(files); });
  if (!documents) return 0;
  const std::string_view text = text_of({data, size});
  require(lathe::is_valid_utf8(text), "only UTF-8 is read");
  require(paragraphs_of(*documents) == split(text), "lines are paragraphs, and empty ones end documents");
  check_sequences(tokenizer, *documents, kLengths[size % kLengths.size()]);
  return 0;
}
