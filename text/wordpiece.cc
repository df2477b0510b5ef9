#include "lathe/text/wordpiece.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/added_tokens.h"
#include "lathe/text/tokenizer_files.h"
#include "lathe/text/utf8.h"
#include "lathe/text/wordpiece_model.h"

namespace lathe {
namespace {

constexpr std::array<const char*, 4> kFileNames = {"tokenizer.json", "vocab.txt", "tokenizer_config.json",
                                                   "special_tokens_map.json"};

std::vector<AddedTokenFinder::Pattern> patterns_of_content(const std::vector<AddedToken>& added) {
  std::vector<AddedTokenFinder::Pattern> patterns;
  for (const AddedToken& token : added) {
    if (!token.normalized) patterns.push_back({token.content, token});
  }
  return patterns;
}

/// The patterns of added tokens that are sought in the normalized text.
std::vector<AddedTokenFinder::Pattern> patterns_of_normal_form(const std::filesystem::path& path,
                                                               const std::vector<AddedToken>& added,
                                                               const BertNormalizer& normalizer) {
  std::vector<AddedTokenFinder::Pattern> patterns;
  for (const AddedToken& token : added) {
    if (!token.normalized) continue;
    std::string text;
    normalizer.normalize(token.content, text);
    const auto same = [&](const AddedTokenFinder::Pattern& other) { return other.text == text; };
    if (text.empty() || std::any_of(patterns.begin(), patterns.end(), same)) {
      throw FormatError(path, "added_tokens",
                        fmt::format(R"("{}" becomes "{}" when normalized, expected a text that no other added token becomes)",
                                    token.content, text));
    }
    patterns.push_back({std::move(text), token});
  }
  return patterns;
}

std::int64_t special_count(const std::vector<TemplateStep>& steps) {
  std::int64_t count = 0;
  for (const TemplateStep& step : steps) count += static_cast<std::int64_t>(step.ids.size());
  return count;
}

std::int64_t size_of(std::span<const std::int32_t> ids) noexcept { return static_cast<std::int64_t>(ids.size()); }

/// Of well-formed UTF-8.
std::int32_t code_points_of(std::string_view text) noexcept {
  const auto begins = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; };
  return static_cast<std::int32_t>(std::ranges::count_if(text, begins));
}

struct Lengths {
  std::int64_t first, second;
};

/// The lengths that two texts of `from` tokens are cut to where `room` tokens fit and they have more.
Lengths truncated_lengths(Lengths from, std::int64_t room, Truncation truncation) {
  if (room == 0) return {0, 0};
  if (truncation == Truncation::longest_first) {
    std::int64_t shorter = std::min(from.first, from.second);
    std::int64_t longer = std::max(shorter, room - shorter);
    if (shorter + longer > room) {
      shorter = room / 2;
      longer = shorter + room % 2;
    }
    return from.first > from.second ? Lengths{longer, shorter} : Lengths{shorter, longer};
  }
  const bool cut_first = truncation == Truncation::only_first;
  const std::int64_t kept = room - (cut_first ? from.second : from.first);
  if (kept <= 0) {
    throw UsageError(fmt::format(
        "a pair of {} and {} tokens doesn't fit into {} (and special tokens) by shortening only the {} text: raise the "
        "maximum length, or shorten the longest first",
        from.first, from.second, room, cut_first ? "first" : "second"));
  }
  return cut_first ? Lengths{kept, from.second} : Lengths{from.first, kept};
}

}  // namespace

struct WordPieceTokenizer::Scratch {
  std::string repaired, normalized;
  std::vector<TextPiece> pieces, normalized_pieces;
  std::vector<std::uint64_t> hashes;
  std::vector<std::uint32_t> origins;  // of the bytes of `normalized`
  std::vector<std::size_t> lengths;
  std::vector<std::int32_t> first, second;
  std::vector<TextSpan> first_spans, second_spans;
};

class WordPieceTokenizer::Implementation {
 public:
  Implementation(TokenizerDescription description, const std::filesystem::path& source, std::vector<std::filesystem::path> files)
      : normalizer_(description.normalizer),
        model_(description.vocabulary, description.model),
        found_as_they_are_(patterns_of_content(description.added)),
        found_normalized_(patterns_of_normal_form(source, description.added, normalizer_)),
        single_(std::move(description.single)),
        pair_(std::move(description.pair)),
        single_specials_(special_count(single_)),
        pair_specials_(special_count(pair_)),
        tokens_(static_cast<std::size_t>(description.vocabulary_size)),
        added_(std::move(description.added)),
        files_(std::move(files)) {
    for (VocabularyEntry& entry : description.vocabulary) tokens_[static_cast<std::size_t>(entry.id)] = std::move(entry.token);
    for (const AddedToken& token : added_) tokens_[static_cast<std::size_t>(token.id)] = token.content;
    special_.unknown = model_.unknown_id();
    special_.padding = find("[PAD]");
    special_.mask = find("[MASK]");
    if (!single_.front().ids.empty()) special_.classifier = single_.front().ids.front();
    if (!single_.back().ids.empty()) special_.separator = single_.back().ids.back();
  }

  std::optional<std::int32_t> find(std::string_view token) const {
    const auto added = std::find_if(added_.begin(), added_.end(), [&](const AddedToken& one) { return one.content == token; });
    return added != added_.end() ? std::optional(added->id) : model_.find(token);
  }

  void encode(std::string_view text, std::int64_t max_length, Spans spans, Encoding& out, Scratch& scratch) const {
    check_length(max_length, single_specials_);
    out.repaired = false;
    tokenize(text, spans, scratch, scratch.first, scratch.first_spans, out.repaired);
    scratch.second.clear();
    const std::int64_t room = max_length - single_specials_;
    assemble(single_, {std::min(size_of(scratch.first), room), 0}, spans, scratch, out);
  }

  void encode_pair(std::string_view first, std::string_view second, std::int64_t max_length, Truncation truncation, Spans spans,
                   Encoding& out, Scratch& scratch) const {
    check_length(max_length, pair_specials_);
    out.repaired = false;
    tokenize(first, spans, scratch, scratch.first, scratch.first_spans, out.repaired);
    tokenize(second, spans, scratch, scratch.second, scratch.second_spans, out.repaired);
    const std::int64_t room = max_length - pair_specials_;
    Lengths lengths{size_of(scratch.first), size_of(scratch.second)};
    if (lengths.first + lengths.second > room) lengths = truncated_lengths(lengths, room, truncation);
    assemble(pair_, lengths, spans, scratch, out);
  }

  const SpecialTokens& special_tokens() const noexcept { return special_; }
  const std::vector<std::string>& tokens() const noexcept { return tokens_; }
  const std::vector<std::filesystem::path>& files() const noexcept { return files_; }

 private:
  static void check_length(std::int64_t max_length, std::int64_t specials) {
    if (max_length >= specials) return;
    throw UsageError(fmt::format("a maximum length of {} tokens leaves no room for the {} special tokens", max_length, specials));
  }

  /// Replaces `ids`, and `spans` where they are wanted, by the tokens of a text, without frame.
  void tokenize(std::string_view text, Spans wanted, Scratch& scratch, std::vector<std::int32_t>& ids,
                std::vector<TextSpan>& spans, bool& repaired) const {
    ids.clear();
    spans.clear();
    if (!is_valid_utf8(text)) {
      scratch.repaired = repair_utf8(text);
      text = scratch.repaired;
      repaired = true;
    }
    found_as_they_are_.split(text, scratch.pieces);
    if (wanted == Spans::none) {
      for (const TextPiece& piece : scratch.pieces) tokenize_piece(piece, scratch, ids);
      return;
    }
    // Pieces may overlap: white space that one added token takes may hold another.
    const char* at = text.data();
    std::int32_t begin = 0;
    for (const TextPiece& piece : scratch.pieces) {
      const char* start = piece.text.data();
      begin += code_points_of({at, start});
      at = start;
      tokenize_piece(piece, begin, scratch, ids, spans);
    }
  }

  void tokenize_piece(const TextPiece& piece, Scratch& scratch, std::vector<std::int32_t>& ids) const {
    if (piece.id) return ids.push_back(*piece.id);
    normalizer_.normalize(piece.text, scratch.normalized);
    const auto tokenize_words = [&](std::string_view normalized) {
      for_each_word(Unicode::tables(), normalized, [&](const Word& word) { model_.tokenize(word, scratch.hashes, ids); });
    };
    if (found_normalized_.empty()) return tokenize_words(scratch.normalized);
    found_normalized_.split(scratch.normalized, scratch.normalized_pieces);
    for (const TextPiece& part : scratch.normalized_pieces) {
      if (part.id) {
        ids.push_back(*part.id);
      } else {
        tokenize_words(part.text);
      }
    }
  }

  /// The same with spans; `begin` is the number of the piece's first code point in the text.
  void tokenize_piece(const TextPiece& piece, std::int32_t begin, Scratch& scratch, std::vector<std::int32_t>& ids,
                      std::vector<TextSpan>& spans) const {
    if (piece.id) {
      ids.push_back(*piece.id);
      spans.push_back({begin, begin + code_points_of(piece.text)});
      return;
    }
    normalizer_.normalize(piece.text, scratch.normalized, scratch.origins);
    const auto span_of = [&](std::string_view part) -> TextSpan {
      const std::uint32_t* first = scratch.origins.data() + (part.data() - scratch.normalized.data());
      return {begin + static_cast<std::int32_t>(first[0]), begin + static_cast<std::int32_t>(first[part.size() - 1]) + 1};
    };
    const auto tokenize_word = [&](const Word& word) {
      scratch.lengths.clear();
      model_.tokenize(word, scratch.hashes, ids, scratch.lengths);
      std::string_view rest = word.text;
      for (const std::size_t length : scratch.lengths) {
        spans.push_back(span_of(rest.substr(0, length)));
        rest.remove_prefix(length);
      }
    };
    found_normalized_.split(scratch.normalized, scratch.normalized_pieces);
    for (const TextPiece& part : scratch.normalized_pieces) {
      if (part.id) {
        ids.push_back(*part.id);
        spans.push_back(span_of(part.text));
      } else {
        for_each_word(Unicode::tables(), part.text, tokenize_word);
      }
    }
  }

  /// Frames the fronts of the texts in `scratch`, of the lengths given.
  void assemble(const std::vector<TemplateStep>& steps, Lengths lengths, Spans spans, const Scratch& scratch,
                Encoding& out) const {
    out.ids.clear();
    out.types.clear();
    out.spans.clear();
    for (const TemplateStep& step : steps) {
      std::span<const std::int32_t> ids = step.ids;
      if (step.kind == TemplateStep::Kind::first_text)
        ids = std::span(scratch.first).first(static_cast<std::size_t>(lengths.first));
      if (step.kind == TemplateStep::Kind::second_text) {
        ids = std::span(scratch.second).first(static_cast<std::size_t>(lengths.second));
      }
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.types.resize(out.ids.size(), step.type);
      if (spans == Spans::code_points) append_spans(step.kind, ids.size(), scratch, out.spans);
    }
    out.truncated = size_of(scratch.first) - lengths.first + size_of(scratch.second) - lengths.second;
    out.unknown = std::count(out.ids.begin(), out.ids.end(), special_.unknown);
  }

  /// Appends the spans of the front of a text, or of so many special tokens.
  static void append_spans(TemplateStep::Kind kind, std::size_t count, const Scratch& scratch, std::vector<TextSpan>& spans) {
    if (kind == TemplateStep::Kind::special_tokens) return spans.resize(spans.size() + count);
    const bool first = kind == TemplateStep::Kind::first_text;
    for (const TextSpan& span : std::span(first ? scratch.first_spans : scratch.second_spans).first(count))
      spans.push_back({span.begin, span.end, first ? 0 : 1});
  }

  BertNormalizer normalizer_;
  WordPieceModel model_;
  AddedTokenFinder found_as_they_are_, found_normalized_;
  std::vector<TemplateStep> single_, pair_;
  std::int64_t single_specials_, pair_specials_;
  std::vector<std::string> tokens_;  // by id
  std::vector<AddedToken> added_;
  SpecialTokens special_;
  std::vector<std::filesystem::path> files_;
};

WordPieceTokenizer::WordPieceTokenizer(std::shared_ptr<const Implementation> implementation)
    : implementation_(std::move(implementation)) {}

WordPieceTokenizer WordPieceTokenizer::load(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code ignored;
  for (const char* name : kFileNames) {
    if (std::filesystem::exists(folder / name, ignored)) files.push_back(folder / name);
  }
  const auto has = [&](const std::filesystem::path& path) { return std::find(files.begin(), files.end(), path) != files.end(); };
  const std::filesystem::path complete = folder / "tokenizer.json";
  const std::filesystem::path vocabulary = folder / "vocab.txt";
  const std::filesystem::path configuration = folder / "tokenizer_config.json";
  const bool from_complete = has(complete);
  if (!from_complete && !has(vocabulary)) {
    throw FileError(folder, "has neither tokenizer.json nor vocab.txt: copy the tokenizer's files into the model's folder");
  }
  TokenizerDescription description = from_complete        ? read_tokenizer_json(complete)
                                     : has(configuration) ? read_vocabulary(vocabulary, configuration)
                                                          : read_vocabulary(vocabulary, BertNormalizerOptions{});
  return WordPieceTokenizer(
      std::make_shared<const Implementation>(std::move(description), from_complete ? complete : configuration, std::move(files)));
}

WordPieceTokenizer WordPieceTokenizer::from_vocabulary(const std::filesystem::path& vocabulary,
                                                       const BertNormalizerOptions& options) {
  return WordPieceTokenizer(
      std::make_shared<const Implementation>(read_vocabulary(vocabulary, options), vocabulary, std::vector{vocabulary}));
}

void WordPieceTokenizer::encode(std::string_view text, std::int64_t max_length, Encoding& out, Spans spans) const {
  Scratch scratch;
  implementation_->encode(text, max_length, spans, out, scratch);
}

void WordPieceTokenizer::encode_pair(std::string_view first, std::string_view second, std::int64_t max_length,
                                     Truncation truncation, Encoding& out, Spans spans) const {
  Scratch scratch;
  implementation_->encode_pair(first, second, max_length, truncation, spans, out, scratch);
}

std::int32_t WordPieceTokenizer::vocabulary_size() const noexcept {
  return static_cast<std::int32_t>(implementation_->tokens().size());
}

const SpecialTokens& WordPieceTokenizer::special_tokens() const noexcept { return implementation_->special_tokens(); }

std::string_view WordPieceTokenizer::token(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) {
    throw LogicError(fmt::format("token id {} is outside the vocabulary of {}", id, vocabulary_size()));
  }
  return implementation_->tokens()[static_cast<std::size_t>(id)];
}

std::optional<std::int32_t> WordPieceTokenizer::find(std::string_view token) const { return implementation_->find(token); }

const std::vector<std::filesystem::path>& WordPieceTokenizer::files() const noexcept { return implementation_->files(); }

/// A run of consecutive texts, encoded by one thread.
struct BatchEncoder {
  std::int64_t begin, end;
  std::vector<std::int32_t> ids, types;
  std::vector<TextSpan> spans;
  std::vector<std::int64_t> lengths;
  std::int64_t truncated = 0, longest = 0, unknown = 0, repaired = 0;
  std::exception_ptr error;

  void run(const WordPieceTokenizer& tokenizer, const TextSource& texts, const EncodeOptions& options,
           WordPieceTokenizer::Scratch& scratch, Encoding& encoding) noexcept try {
    lengths.reserve(static_cast<std::size_t>(end - begin));
    const auto& implementation = *tokenizer.implementation_;
    for (std::int64_t i = begin; i < end; ++i) {
      if (texts.pair) {
        implementation.encode_pair(texts.text(i), texts.pair(i), options.max_length, options.truncation, options.spans, encoding,
                                   scratch);
      } else {
        implementation.encode(texts.text(i), options.max_length, options.spans, encoding, scratch);
      }
      ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
      types.insert(types.end(), encoding.types.begin(), encoding.types.end());
      spans.insert(spans.end(), encoding.spans.begin(), encoding.spans.end());
      lengths.push_back(size_of(encoding.ids));
      truncated += encoding.truncated > 0 ? 1 : 0;
      longest = std::max(longest, size_of(encoding.ids) + encoding.truncated);
      unknown += encoding.unknown;
      repaired += encoding.repaired ? 1 : 0;
    }
  } catch (...) {
    error = std::current_exception();
  }
};

EncodedTexts encode_all(const WordPieceTokenizer& tokenizer, const TextSource& texts, const EncodeOptions& options) {
  constexpr std::int64_t kRun = 512;  // small enough to share out evenly, large enough not to be felt
  const std::int64_t count = (texts.count + kRun - 1) / kRun;
  std::vector<BatchEncoder> runs(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    runs[static_cast<std::size_t>(i)].begin = i * kRun;
    runs[static_cast<std::size_t>(i)].end = std::min(texts.count, (i + 1) * kRun);
  }
  const int threads = static_cast<int>(std::clamp<std::int64_t>(options.threads > 0 ? options.threads : omp_get_max_threads(), 1,
                                                                std::max<std::int64_t>(count, 1)));
#pragma omp parallel num_threads(threads)
  {
    WordPieceTokenizer::Scratch scratch;
    Encoding encoding;
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) {
      runs[static_cast<std::size_t>(i)].run(tokenizer, texts, options, scratch, encoding);
    }
  }

  EncodedTexts result;
  SampleLists samples;
  std::size_t tokens = 0;
  for (const BatchEncoder& run : runs) {
    if (run.error) std::rethrow_exception(run.error);
    tokens += run.ids.size();
  }
  samples.ids.reserve(tokens);
  samples.types.reserve(tokens);
  if (options.spans != Spans::none) result.spans.reserve(tokens);
  samples.offsets.reserve(static_cast<std::size_t>(texts.count) + 1);
  for (BatchEncoder& run : runs) {
    samples.ids.insert(samples.ids.end(), run.ids.begin(), run.ids.end());
    samples.types.insert(samples.types.end(), run.types.begin(), run.types.end());
    result.spans.insert(result.spans.end(), run.spans.begin(), run.spans.end());
    for (const std::int64_t length : run.lengths) samples.offsets.push_back(samples.offsets.back() + length);
    result.truncated += run.truncated;
    result.longest = std::max(result.longest, run.longest);
    result.unknown += run.unknown;
    result.repaired += run.repaired;
    run = {};  // gives its memory back while the whole grows
  }
  result.samples = std::move(samples);
  return result;
}

EncodedTexts encode_all(const WordPieceTokenizer& tokenizer, std::span<const std::string> texts, const EncodeOptions& options) {
  TextSource source;
  source.count = static_cast<std::int64_t>(texts.size());
  source.text = [texts](std::int64_t i) -> std::string_view { return texts[static_cast<std::size_t>(i)]; };
  return encode_all(tokenizer, source, options);
}

}  // namespace lathe
