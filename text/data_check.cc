#include "lathe/text/data_check.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/labels.h"
#include "lathe/text/unicode.h"
#include "lathe/text/utf8.h"

namespace lathe {
namespace {

constexpr std::int64_t kShortest = 8;
constexpr std::int64_t kUnlimited = std::int64_t{1} << 40U;
constexpr std::size_t kMostExcerptBytes = 60;
/// Texts are tokenized so many at a time, or fewer where they are long.
constexpr std::int64_t kBatchRows = 8192;
constexpr std::size_t kBatchBytes = std::size_t{16} << 20U;

/// FNV-1a of 128 bits: offset basis and prime, 2^88 + 0x13B, are those of its authors' page (Fowler, Noll, Vo).
class Fnv128 {
 public:
  void add(char byte) { state_ = (state_ ^ static_cast<unsigned char>(byte)) * kPrime; }
  void add(std::string_view bytes) {
    for (const char byte : bytes) add(byte);
  }
  TextHash value() const {
    return {.high = static_cast<std::uint64_t>(state_ >> 64U), .low = static_cast<std::uint64_t>(state_)};
  }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr Wide kPrime = (Wide{1} << 88U) + 0x13B;
  Wide state_ = (Wide{0x6C62272E07BB0142} << 64U) + 0x62B821756295C58D;
};

/// Calls use(word) for each run of a text between white space. What isn't UTF-8 is no white space.
template <class Use>
void for_each_run(std::string_view text, const Use& use) {
  const Unicode& unicode = Unicode::tables();
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  const char* const end = text.data() + text.size();
  const char* begin = text.data();
  for (const char* p = begin; p != end;) {
    const char* const start = p;
    if ((unicode.traits(next_code_point(p)) & traits::kWhiteSpace) == 0) continue;
    if (start != begin) use(std::string_view(begin, static_cast<std::size_t>(start - begin)));
    begin = p;
  }
  if (end != begin) use(std::string_view(begin, static_cast<std::size_t>(end - begin)));
}

std::int64_t characters_of(std::string_view text) {
  return std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; });
}

/// A text and its pair without regard to white space.
struct Summary {
  TextHash hash;
  std::int64_t words = 0;
  std::int64_t pair_words = 0;
};

Summary summary_of(std::string_view text, std::string_view pair) {
  Summary summary;
  Fnv128 hash;
  const auto add = [&](std::string_view part, std::int64_t& words) {
    for_each_run(part, [&](std::string_view word) {
      if (words++ > 0) hash.add(' ');
      hash.add(word);
    });
  };
  add(text, summary.words);
  hash.add('\n');
  add(pair, summary.pair_words);
  summary.hash = hash.value();
  return summary;
}

struct HashOfHash {
  std::size_t operator()(const TextHash& hash) const noexcept { return static_cast<std::size_t>(hash.low ^ hash.high); }
};

/// Where a text first occurs in a file.
struct FirstOccurrence {
  std::int64_t line = 0;
  std::int32_t label = -1;  // index in the file's labels, -1 for none
};
using TextIndex = std::unordered_map<TextHash, FirstOccurrence, HashOfHash>;

std::string excerpt_of(const Record& record) {
  const std::string_view front = utf8_prefix(record.text, kMostExcerptBytes);
  return std::string(front).append(front.size() < record.text.size() ? "..." : "");
}

/// Reads one file and remembers its texts.
class FileChecker {
 public:
  explicit FileChecker(const DataCheckOptions& options) : options_(options) {
    if (options.tokenizer != nullptr) check_.tokens.emplace();
  }

  /// `use(record, hash)` is called for each record, after it was looked at.
  template <class Use>
  FileCheck run(const std::filesystem::path& path, const Use& use) {
    RecordOptions records = options_.records;
    records.labels = LabelUse::optional;
    RecordReader reader(path, std::move(records));
    rows_ = Records(path);
    for (Record record; reader.next(record);) {
      const TextHash hash = look_at(record);
      use(record, hash);
      if (options_.tokenizer != nullptr) add_to_batch(record);
    }
    tokenize_batch();
    check_.report = reader.report();
    check_.labels = rows_.label_names();
    check_.distinct_texts = static_cast<std::int64_t>(texts_.size());
    if (check_.report.label_column.empty()) check_.unlabelled = check_.first_unlabelled = 0;
    return std::move(check_);
  }

  const FirstOccurrence* find(const TextHash& hash) const {
    const auto found = texts_.find(hash);
    return found == texts_.end() ? nullptr : &found->second;
  }
  /// Why the labels can't be trained on; empty where they can, and where there are none.
  std::string refusal() const {
    if (rows_.label_names().empty()) return "";
    try {
      LabelSet::from_data(rows_);
    } catch (const FormatError& refusal) {
      return refusal.what();
    }
    return "";
  }
  std::string label_name(std::int32_t index) const {
    return index < 0 ? std::string() : rows_.label_names()[static_cast<std::size_t>(index)].name;
  }

 private:
  bool is_pair() const { return !options_.records.pair_column.empty(); }

  TextHash look_at(const Record& record) {
    // Only the label and the line of a row are kept, which is what LabelSet::from_data wants.
    rows_.append({.label = record.label, .line = record.line});
    if (record.label.empty() && check_.unlabelled++ == 0) check_.first_unlabelled = record.line;

    const Summary summary = summary_of(record.text, record.pair);
    check_.words.add(summary.words + summary.pair_words);
    check_.characters.add(characters_of(record.text) + characters_of(record.pair));
    const bool empty = summary.words == 0 || (is_pair() && summary.pair_words == 0);
    if (empty && check_.empty_texts++ == 0) check_.first_empty_text = record.line;
    compare_with_earlier(record, summary.hash);
    return summary.hash;
  }

  void compare_with_earlier(const Record& record, const TextHash& hash) {
    const std::int32_t label = rows_.label_index(rows_.size() - 1);
    const auto [earlier, fresh] = texts_.try_emplace(hash, FirstOccurrence{.line = record.line, .label = label});
    if (fresh) return;
    const RepeatedText example{.excerpt = excerpt_of(record),
                               .first_line = earlier->second.line,
                               .line = record.line,
                               .first_label = label_name(earlier->second.label),
                               .label = std::string(record.label)};
    ++check_.duplicate_rows;
    if (check_.duplicates.size() < kMostExamples) check_.duplicates.push_back(example);
    if (label < 0 || earlier->second.label < 0 || label == earlier->second.label) return;
    ++check_.contradictory_rows;
    if (check_.contradictions.size() < kMostExamples) check_.contradictions.push_back(example);
  }

  void add_to_batch(const Record& record) {
    batch_.append({.text = record.text, .pair = record.pair, .line = record.line});
    batch_bytes_ += record.text.size() + record.pair.size();
    if (batch_.size() == kBatchRows || batch_bytes_ >= kBatchBytes) tokenize_batch();
  }

  void tokenize_batch() {
    if (batch_.size() == 0) return;
    TextSource source{.count = batch_.size(), .text = [this](std::int64_t i) { return batch_.text(i); }};
    if (is_pair()) source.pair = [this](std::int64_t i) { return batch_.pair(i); };
    const EncodedTexts encoded =
        encode_all(*options_.tokenizer, source, {.max_length = kUnlimited, .truncation = {}, .threads = options_.threads});
    for (std::int64_t i = 0; i < encoded.samples.count(); ++i) check_.tokens->add(encoded.samples.length(i));
    check_.unknown_tokens += encoded.unknown;
    batch_.clear();
    batch_bytes_ = 0;
  }

  const DataCheckOptions& options_;
  FileCheck check_;
  TextIndex texts_;
  Records rows_;   // labels and lines; no texts
  Records batch_;  // texts that await the tokenizer
  std::size_t batch_bytes_ = 0;
};

}  // namespace

std::int64_t LengthCounts::quantile(double share) const {
  const double wanted = share * static_cast<double>(rows_);
  std::int64_t seen = 0;
  for (const auto& [length, rows] : rows_by_length_) {
    seen += rows;
    if (static_cast<double>(seen) >= wanted) return length;
  }
  return longest();
}

LengthCounts::Cut LengthCounts::cut_at(std::int64_t length) const {
  Cut cut;
  for (auto at = rows_by_length_.upper_bound(length); at != rows_by_length_.end(); ++at) {
    cut.rows += at->second;
    cut.lost += at->second * (at->first - length);
  }
  return cut;
}

std::vector<LengthCounts::Bin> LengthCounts::histogram() const {
  std::vector<Bin> bins;
  if (rows_ == 0) return bins;
  auto at = rows_by_length_.begin();
  for (Bin bin{.first = 0, .last = kShortest, .rows = 0}; at != rows_by_length_.end(); bin = {bin.last + 1, 2 * bin.last, 0}) {
    for (; at != rows_by_length_.end() && at->first <= bin.last; ++at) bin.rows += at->second;
    if (bin.rows > 0 || !bins.empty()) bins.push_back(bin);
  }
  return bins;
}

TextHash hash_of_text(std::string_view text, std::string_view pair) { return summary_of(text, pair).hash; }

DataCheck check_data(const std::filesystem::path& path, const DataCheckOptions& options) {
  DataCheck result;
  FileChecker data(options);
  result.data = data.run(path, [](const Record&, const TextHash&) {});
  result.data.labels_refused = data.refusal();
  if (!options.dev) return result;

  OverlapCheck overlap;
  FileChecker dev(options);
  result.dev = dev.run(*options.dev, [&](const Record& record, const TextHash& hash) {
    const FirstOccurrence* first = data.find(hash);
    if (first == nullptr) return;
    const std::string first_label = data.label_name(first->label);
    ++overlap.rows;
    if (!first_label.empty() && !record.label.empty() && first_label != record.label) ++overlap.contradictory_rows;
    if (overlap.examples.size() == kMostExamples) return;
    overlap.examples.push_back({.excerpt = excerpt_of(record),
                                .first_line = first->line,
                                .line = record.line,
                                .first_label = first_label,
                                .label = std::string(record.label)});
  });
  std::unordered_set<std::string_view> known;
  for (const Records::LabelName& label : result.data.labels) known.insert(label.name);
  for (const Records::LabelName& label : result.dev->labels) {
    if (!known.contains(label.name)) overlap.unknown_labels.push_back(label);
  }
  result.overlap = std::move(overlap);
  return result;
}

}  // namespace lathe
