#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/utf8.h"
#include "lathe/training/number_text.h"
#include "tools/commands.h"
#include "tools/line_output.h"
#include "tools/setup.h"
#include "tools/standard_streams.h"

namespace lathe {
namespace {

/// Records tokenized at a time: enough to occupy all cores, little enough to stay in the cache.
constexpr std::int64_t kBatch = 4096;

/// A record's part of what a batch became.
struct TokenizedRecord {
  std::span<const std::int32_t> ids, types;
  std::span<const TextSpan> spans;
};

TokenizedRecord record_of(const EncodedTexts& encoded, std::int64_t i) {
  const auto first = static_cast<std::size_t>(encoded.samples.offsets[static_cast<std::size_t>(i)]);
  const auto count = static_cast<std::size_t>(encoded.samples.length(i));
  return {.ids = std::span(encoded.samples.ids).subspan(first, count),
          .types = std::span(encoded.samples.types).subspan(first, count),
          .spans = std::span(encoded.spans).subspan(first, count)};
}

void append_quoted(std::string_view token, std::string& out) {
  out.push_back('"');
  for (const char byte : token) {
    if (byte == '"' || byte == '\\') {
      out.append({'\\', byte});
    } else if (static_cast<unsigned char>(byte) < 0x20) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(byte)));
    } else {
      out.push_back(byte);
    }
  }
  out.push_back('"');
}

void append_integer(std::int64_t value, std::string& out) {
  const fmt::format_int digits(value);
  out.append(digits.data(), digits.size());
}

/// Appends "name":[...], with each element written by `append`.
template <class Values, class Append>
void append_list(std::string_view name, const Values& values, std::string& out, const Append& append) {
  out.append(",\"").append(name).append("\":[");
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out.push_back(',');
    append(values[i]);
  }
  out.push_back(']');
}

void append_json(std::int64_t line, const TokenizedRecord& record, const WordPieceTokenizer& tokenizer, std::string& out) {
  const auto integer = [&](std::int32_t value) { append_integer(value, out); };
  out.append("{\"line\":");
  append_integer(line, out);
  append_list("tokens", record.ids, out, [&](std::int32_t id) { append_quoted(tokenizer.token(id), out); });
  append_list("ids", record.ids, out, integer);
  append_list("types", record.types, out, integer);
  append_list("offsets", record.spans, out, [&](const TextSpan& span) {
    out.push_back('[');
    append_integer(span.begin, out);
    out.push_back(',');
    append_integer(span.end, out);
    out.push_back(']');
  });
  out.append("}\n");
}

/// A text whose code points can be picked out by their numbers.
class CountedText {
 public:
  explicit CountedText(std::string_view text) : text_(repair_utf8(text)) {
    for (std::size_t i = 0; i < text_.size(); ++i) {
      if ((static_cast<unsigned char>(text_[i]) & 0xC0U) != 0x80U) starts_.push_back(i);
    }
    starts_.push_back(text_.size());
  }
  std::string_view part(const TextSpan& span) const {
    const std::size_t begin = starts_[static_cast<std::size_t>(span.begin)];
    return std::string_view(text_).substr(begin, starts_[static_cast<std::size_t>(span.end)] - begin);
  }

 private:
  std::string text_;
  std::vector<std::size_t> starts_;  // of each code point, and the end
};

/// A line a token: the token, its id, where it stands, and what stands there; of pairs, also in which of them.
void append_table(const Record& source, const TokenizedRecord& record, TextKind kind, const WordPieceTokenizer& tokenizer,
                  std::string& out) {
  const CountedText text(source.text);
  const CountedText pair(source.pair);
  std::size_t width = 0;
  for (const std::int32_t id : record.ids) width = std::max(width, tokenizer.token(id).size());
  fmt::format_to(std::back_inserter(out), "line {}: {} tokens\n", source.line, record.ids.size());
  for (std::size_t i = 0; i < record.ids.size(); ++i) {
    const TextSpan& span = record.spans[i];
    fmt::format_to(std::back_inserter(out), "  {:<{}}  {:>6}", printable(tokenizer.token(record.ids[i])), width, record.ids[i]);
    if (span.text >= 0) {
      const bool second = span.text == 1;
      if (kind == TextKind::pair) out.append(second ? "  pair" : "  text");
      fmt::format_to(std::back_inserter(out), "  {:>5}-{:<5}  {}", span.begin, span.end,
                     printable((second ? pair : text).part(span)));
    }
    out.push_back('\n');
  }
}

/// What a run came to.
struct Totals {
  std::int64_t records = 0;
  std::int64_t tokens = 0;
  std::int64_t unknown = 0;
  std::int64_t truncated = 0;  // records
  std::int64_t longest = 0;    // tokens, before cutting
};

void print_summary(const WordPieceTokenizer& tokenizer, const Totals& totals, std::int32_t max_length) {
  const double share =
      totals.tokens == 0 ? 0.0 : 100.0 * static_cast<double>(totals.unknown) / static_cast<double>(totals.tokens);
  write_message(fmt::format("{}, {}, {:.2f} % of them {} ({}); {} cut to {} tokens, the longest has {}\n",
                            counted(totals.records, "record"), counted(totals.tokens, "token"), share,
                            printable(tokenizer.token(tokenizer.special_tokens().unknown)), grouped(totals.unknown),
                            counted(totals.truncated, "record"), max_length, grouped(totals.longest)));
}

}  // namespace

int tokenize_command(const TokenizeOptions& options) {
  const std::filesystem::path model = find_model(options.model, hub_cache_folder());
  RunningOptions running;
  running.max_length = options.max_length;
  ResolvedReading reading = resolve(options.reading, running, read_run_defaults(model));
  reading.records.labels = LabelUse::optional;
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::load(model);
  // A tokenizer may come without a model, and any length fits it.
  const std::filesystem::path config = model / "config.json";
  const std::int32_t max_length = std::filesystem::exists(config) ? length_for(BertConfig::load(config), reading.max_length)
                                                                  : reading.max_length.value_or(128);
  const int threads = options.threads ? *options.threads : default_threads().threads;
  const bool streaming = options.data == "-";
  std::ios::sync_with_stdio(false);  // else standard input is read a byte at a time
  RecordReader reader =
      streaming ? RecordReader(std::cin, "standard input", reading.records) : RecordReader(options.data, reading.records);
  const EncodeOptions encode{
      .max_length = max_length, .truncation = Truncation::longest_first, .threads = threads, .spans = Spans::code_points};

  LineOutput output;
  Records records(streaming ? "standard input" : options.data);
  TextSource source{.text = [&](std::int64_t i) { return records.text(i); }};
  if (reading.kind() == TextKind::pair) source.pair = [&](std::int64_t i) { return records.pair(i); };
  Totals totals;
  Record record;
  while (reader.next(record)) {
    // What is typed is answered at once; what is there already is taken a batch at a time.
    records.clear();
    do {
      records.append(record);
    } while (records.size() < kBatch && reader.is_ready() && reader.next(record));
    source.count = records.size();
    const EncodedTexts encoded = encode_all(tokenizer, source, encode);
    std::string lines;
    for (std::int64_t i = 0; i < records.size(); ++i) {
      if (options.json) {
        append_json(records.line(i), record_of(encoded, i), tokenizer, lines);
      } else {
        append_table(records[i], record_of(encoded, i), reading.kind(), tokenizer, lines);
      }
    }
    if (!output.write(lines)) return 0;
    totals.records += records.size();
    totals.tokens += static_cast<std::int64_t>(encoded.samples.ids.size());
    totals.unknown += encoded.unknown;
    totals.truncated += encoded.truncated;
    totals.longest = std::max(totals.longest, encoded.longest);
  }
  print_reading("data", reader.report());
  print_summary(tokenizer, totals, max_length);
  return 0;
}

}  // namespace lathe
