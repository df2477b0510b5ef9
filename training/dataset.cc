#include "lathe/training/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/checkpoint/input_file.h"
#include "lathe/runtime/content_hash.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// To be raised where the same text and the same tokenizer's files give other tokens than before, so that no cache's are taken.
constexpr int kTokenization = 1;

/// A hash of 128 bits, made of two, and the bytes that it is of.
class Fingerprint {
 public:
  void add(std::span<const std::byte> data) {
    first_.add(data);
    second_.add(data);
  }
  void add_text(std::string_view text) {
    const std::uint64_t size = text.size();
    add(std::as_bytes(std::span(&size, 1)));
    add(std::as_bytes(std::span(text)));
  }
  std::string text() const { return fmt::format("{:016x}{:016x} of {} bytes", first_.value(), second_.value(), first_.size()); }

 private:
  ContentHash first_{0}, second_{1};
};

std::string fingerprint_of(const fs::path& path) {
  const InputFile file(path);
  Fingerprint print;
  std::vector<std::byte> buffer(std::size_t{1} << 20U);
  for (std::uint64_t at = 0; at < file.size(); at += buffer.size()) {
    const auto piece = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), file.size() - at));
    file.read(at, piece);
    print.add(piece);
  }
  return print.text();
}

/// All that tokens depend on beside texts, a line each.
std::string key_of(const WordPieceTokenizer& tokenizer, std::string_view kind, std::int32_t max_length) {
  std::string key = fmt::format("tokenization {}\n{} of at most {} tokens\n", kTokenization, kind, max_length);
  for (const fs::path& file : tokenizer.files()) key += fmt::format("{} {}\n", file.filename().string(), fingerprint_of(file));
  // A vocabulary alone doesn't tell what is done to a text before: this text does.
  Encoding probe;
  tokenizer.encode("Aa \u00C5\u00E9\u0130 \u4E2D\u6587 a\u0001b [MASK] don't, caf\u0065\u0301", 64, probe);
  Fingerprint print;
  print.add(std::as_bytes(std::span(probe.ids)));
  print.add(std::as_bytes(std::span(probe.types)));
  return key + fmt::format("a known text {}\n", print.text());
}

std::string key_of(const WordPieceTokenizer& tokenizer, const Records& records, TextKind kind, std::int32_t max_length) {
  Fingerprint texts;
  for (std::int64_t i = 0; i < records.size(); ++i) {
    texts.add_text(records.text(i));
    if (kind == TextKind::pair) texts.add_text(records.pair(i));
  }
  return key_of(tokenizer, kind == TextKind::pair ? "pairs, the longer cut first," : "texts", max_length) +
         fmt::format("{} rows {}\n", records.size(), texts.text());
}

/// What shows that a file isn't what it was.
struct Stamp {
  std::uintmax_t size;
  fs::file_time_type written;
  bool operator==(const Stamp&) const = default;
};
std::vector<Stamp> stamps_of(std::span<const fs::path> files) {
  std::vector<Stamp> stamps;
  for (const fs::path& file : files) {
    std::error_code failure;
    const std::uintmax_t size = fs::file_size(file, failure);
    stamps.push_back({.size = size, .written = fs::last_write_time(file, failure)});
  }
  return stamps;
}

void require_types_below(std::int64_t types, const TokenizedSamples& samples, const WordPieceTokenizer& tokenizer,
                         TextKind kind) {
  const auto highest = std::ranges::max_element(samples.types);
  if (highest == samples.types.end() || *highest < types) return;
  throw MismatchError(
      fmt::format("{}: {} get the token type {}, but config.json's type_vocab_size is {}: take the tokenizer that the "
                  "model was trained with",
                  tokenizer.files().front().string(), kind == TextKind::pair ? "pairs" : "texts", *highest, types));
}

/// A template need not put [CLS] in front; an empty text then has no token that a head could read.
void require_tokens(const TokenizedSamples& samples, const Records& records) {
  for (std::int64_t i = 0; i < records.size(); ++i) {
    if (samples.length(i) > 0) continue;
    throw FormatError(records.source(), fmt::format("line {}", records.line(i)),
                      "the text makes no token, and the model's tokenizer puts none around it: there is nothing to classify");
  }
}

}  // namespace

TokenizedTexts tokenize(const Classifier& classifier, const Records& records, TextKind kind, std::int32_t max_length, int threads,
                        TokenCache* cache) {
  TextSource source{.count = records.size(), .text = [&](std::int64_t i) { return records.text(i); }};
  if (kind == TextKind::pair) source.pair = [&](std::int64_t i) { return records.pair(i); };
  const WordPieceTokenizer& tokenizer = classifier.tokenizer();
  const auto encode = [&] {
    return encode_all(tokenizer, source, {.max_length = max_length, .truncation = Truncation::longest_first, .threads = threads});
  };
  TokenizedTexts encoded;
  if (cache == nullptr) {
    static_cast<EncodedTexts&>(encoded) = encode();
  } else {
    const std::string key = key_of(tokenizer, records, kind, max_length);
    auto [tokens, found] = cache->get(key, tokenizer.vocabulary_size(), [&] {
      EncodedTexts made = encode();
      return StoredTokens{.samples = std::move(made.samples),
                          .groups = {},
                          .counts = {made.truncated, made.longest, made.unknown, made.repaired}};
    });
    encoded.samples = std::move(tokens.samples);
    encoded.truncated = tokens.counts[0];
    encoded.longest = tokens.counts[1];
    encoded.unknown = tokens.counts[2];
    encoded.repaired = tokens.counts[3];
    encoded.from_cache = found;
    if (encoded.samples.count() != records.size()) {
      throw FormatError(cache->entry(key), "",
                        fmt::format("has {} texts where {} has {}: remove it", encoded.samples.count(), records.source().string(),
                                    records.size()));
    }
  }
  require_types_below(classifier.config().token_types, encoded.samples, tokenizer, kind);
  require_tokens(encoded.samples, records);
  return encoded;
}

TokenizedDocuments tokenize_documents(const WordPieceTokenizer& tokenizer, std::span<const fs::path> files,
                                      std::int32_t max_length, int threads, TokenCache* cache) {
  TokenizedDocuments result;
  const auto read = [&] {
    const Documents documents = read_documents(files);
    result.paragraphs = documents.paragraphs();
    return make_sequences(tokenizer, documents, {.max_length = max_length, .threads = threads});
  };
  if (cache == nullptr) {
    static_cast<DocumentSequences&>(result) = read();
    return result;
  }
  const std::vector<Stamp> before = stamps_of(files);
  std::string key = key_of(tokenizer, "sequences of documents", max_length);
  for (const fs::path& file : files) key += fmt::format("text {}\n", fingerprint_of(file));
  auto [tokens, found] = cache->get(key, tokenizer.vocabulary_size(), [&] {
    DocumentSequences made = read();
    if (stamps_of(files) != before)
      throw FileError(files.front(), "has changed, or a file beside it has, while it was read: begin again");
    return StoredTokens{.samples = std::move(made.samples),
                        .groups = std::move(made.first_sequence),
                        .counts = {made.tokens, made.unknown, result.paragraphs, 0}};
  });
  result.samples = std::move(tokens.samples);
  result.first_sequence = std::move(tokens.groups);
  result.tokens = tokens.counts[0];
  result.unknown = tokens.counts[1];
  result.paragraphs = tokens.counts[2];
  result.from_cache = found;
  return result;
}

}  // namespace lathe
