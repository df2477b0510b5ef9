#include "lathe/text/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lathe/runtime/error.h"
#include "lathe/runtime/random.h"
#include "lathe/text/line_reader.h"
#include "lathe/text/utf8.h"

namespace lathe {

std::string_view Documents::paragraph(std::int64_t i) const {
  const auto at = static_cast<std::size_t>(i);
  return std::string_view(text_).substr(offsets_[at], offsets_[at + 1] - offsets_[at]);
}

/// Puts documents together, a line at a time.
class DocumentReader {
 public:
  void read(const std::filesystem::path& file) {
    LineReader lines(open_byte_source(file), file, kLongestParagraph);
    const std::int64_t before = documents_.paragraphs();
    while (lines.next()) add(lines);
    end_document();
    if (documents_.paragraphs() == before)
      throw FormatError(file, "line 1", "the file has no text; a line is a paragraph, and an empty line ends a document");
  }
  Documents take() { return std::move(documents_); }

 private:
  void add(const LineReader& lines) {
    const std::string_view line = lines.line();
    constexpr std::string_view kWhite = " \t\r\v\f";
    if (line.find_first_not_of(kWhite) == std::string_view::npos) return end_document();
    if (!is_valid_utf8(line)) {
      throw FormatError(lines.name(), fmt::format("line {}", lines.number()),
                        "is not UTF-8; convert the file, as by `iconv -f LATIN1 -t UTF-8`, or drop what is broken by "
                        "`iconv -c -t UTF-8`");
    }
    documents_.text_ += line;
    documents_.offsets_.push_back(documents_.text_.size());
  }
  void end_document() {
    const std::int64_t paragraphs = documents_.paragraphs();
    if (paragraphs > documents_.documents_.back()) documents_.documents_.push_back(paragraphs);
  }

  Documents documents_;
};

namespace {

/// The frame that a tokenizer puts around a text, which must be [CLS] and [SEP].
struct Frame {
  std::int32_t first, last;
};
Frame frame_of(const WordPieceTokenizer& tokenizer) {
  constexpr std::int64_t kEnough = 64;
  Encoding empty;
  tokenizer.encode("", kEnough, empty);
  if (empty.ids.size() != 2) {
    throw MismatchError(fmt::format("{}: puts {} special tokens around a text; pre-training takes two, [CLS] text [SEP]",
                                    tokenizer.files().front().string(), empty.ids.size()));
  }
  return {.first = empty.ids.front(), .last = empty.ids.back()};
}

class SequenceMaker {
 public:
  SequenceMaker(const WordPieceTokenizer& tokenizer, std::int64_t max_length)
      : special_(tokenizer.special_tokens()), frame_(frame_of(tokenizer)), room_(static_cast<std::size_t>(max_length) - 2) {}

  /// Tokens of the next paragraph of the document.
  void add(std::span<const std::int32_t> tokens) {
    while (!tokens.empty()) {
      const std::size_t taken = std::min(tokens.size(), room_ - open_.size());
      open_.insert(open_.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(taken));
      tokens = tokens.subspan(taken);
      if (open_.size() == room_) close_sequence();
    }
  }
  void end_document() {
    if (!open_.empty()) close_sequence();
    made_.first_sequence.push_back(std::ssize(samples_.offsets) - 1);
  }
  DocumentSequences take() {
    made_.samples = std::move(samples_);
    return std::move(made_);
  }

 private:
  void close_sequence() {
    const bool teaches = std::ranges::any_of(open_, [&](std::int32_t id) { return !is_special(special_, id); });
    if (teaches) {
      std::vector<std::int32_t>& ids = samples_.ids;
      ids.push_back(frame_.first);
      ids.insert(ids.end(), open_.begin(), open_.end());
      ids.push_back(frame_.last);
      samples_.offsets.push_back(static_cast<std::int64_t>(ids.size()));
      made_.tokens += static_cast<std::int64_t>(open_.size());
      made_.unknown += std::ranges::count(open_, special_.unknown);
    }
    open_.clear();
  }

  SpecialTokens special_;
  Frame frame_;
  std::size_t room_;
  std::vector<std::int32_t> open_;
  SampleLists samples_;
  DocumentSequences made_;
};

}  // namespace

Documents read_documents(std::span<const std::filesystem::path> files) {
  DocumentReader reader;
  for (const std::filesystem::path& file : files) reader.read(file);
  return reader.take();
}

bool is_special(const SpecialTokens& special, std::int32_t id) {
  return id == special.unknown || id == special.classifier || id == special.separator || id == special.padding ||
         id == special.mask;
}

DocumentSequences make_sequences(const WordPieceTokenizer& tokenizer, const Documents& documents,
                                 const SequenceOptions& options) {
  constexpr std::int64_t kLeast = 3;
  if (options.max_length < kLeast) {
    throw UsageError(fmt::format("sequences of {} tokens: [CLS] and [SEP] leave no room for text; take {} or more",
                                 options.max_length, kLeast));
  }
  SequenceMaker maker(tokenizer, options.max_length);
  // As long as they are: sequences are cut from whole documents.
  constexpr std::int64_t kUncut = std::int64_t{1} << 40;
  const EncodedTexts encoded = encode_all(
      tokenizer,
      TextSource{
          .count = documents.paragraphs(), .text = [&](std::int64_t i) { return documents.paragraph(i); }, .pair = nullptr},
      {.max_length = kUncut, .truncation = Truncation::longest_first, .threads = options.threads});
  for (std::int64_t document = 0; document < documents.count(); ++document) {
    for (std::int64_t i = documents.first_paragraph(document); i < documents.first_paragraph(document + 1); ++i) {
      const auto begin = static_cast<std::size_t>(encoded.samples.offsets[static_cast<std::size_t>(i)]) + 1;
      const auto length = static_cast<std::size_t>(encoded.samples.length(i)) - 2;
      maker.add(encoded.samples.ids.subspan(begin, length));
    }
    maker.end_document();
  }
  return maker.take();
}

TokenizedSamples sequences_of(const DocumentSequences& all, std::span<const std::int64_t> members) {
  std::vector<std::int64_t> sequences;
  for (const std::int64_t document : members) {
    const std::int64_t end = all.first_sequence[static_cast<std::size_t>(document) + 1];
    for (std::int64_t i = all.first_sequence[static_cast<std::size_t>(document)]; i < end; ++i) sequences.push_back(i);
  }
  return select(all.samples, sequences);
}

HeldOut hold_out(std::int64_t documents, double share, std::uint32_t seed) {
  if (documents < 2) {
    throw UsageError(fmt::format("a share of {} document{} can't be held out: both parts need one; an empty line ends a document",
                                 documents, documents == 1 ? "" : "s"));
  }
  const auto order = RandomNumbers(seed, RandomUse::split, 0).permutation(static_cast<std::int32_t>(documents));
  const auto held = std::clamp<std::int64_t>(std::llround(share * static_cast<double>(documents)), 1, documents - 1);
  HeldOut parts;
  parts.dev.assign(order.begin(), order.begin() + held);
  parts.train.assign(order.begin() + held, order.end());
  std::ranges::sort(parts.dev);
  std::ranges::sort(parts.train);
  return parts;
}

}  // namespace lathe
