#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/data_check.h"
#include "lathe/text/quoted_list.h"
#include "lathe/training/number_text.h"
#include "tools/commands.h"
#include "tools/line_output.h"
#include "tools/setup.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::int64_t, 4> kMaxLengths = {64, 128, 256, 512};
constexpr std::array kQuantiles = {0.5, 0.9, 0.95, 0.99};
constexpr std::size_t kMostLabelsShown = 20;

std::int64_t labelled_rows(const FileCheck& check) {
  std::int64_t rows = 0;
  for (const Records::LabelName& label : check.labels) rows += label.count;
  return rows;
}

/// The labels, the most frequent first.
std::vector<Records::LabelName> by_frequency(const FileCheck& check) {
  std::vector<Records::LabelName> labels = check.labels;
  std::ranges::stable_sort(labels, std::ranges::greater(), &Records::LabelName::count);
  return labels;
}

// As JSON ----------------------------------------------------------------------------------------------------------------------

Json to_json(const std::vector<RepeatedText>& examples) {
  Json json = Json::array();
  for (const RepeatedText& example : examples) {
    json.push_back({{"first_line", example.first_line},
                    {"line", example.line},
                    {"first_label", example.first_label},
                    {"label", example.label},
                    {"text", example.excerpt}});
  }
  return json;
}

Json to_json(const LengthCounts& lengths) {
  Json json = {
      {"total", lengths.total()}, {"longest", lengths.longest()}, {"quantiles", Json::object()}, {"histogram", Json::array()}};
  for (const double share : kQuantiles) json["quantiles"][fmt::format("{}", share)] = lengths.quantile(share);
  for (const LengthCounts::Bin& bin : lengths.histogram())
    json["histogram"].push_back({{"first", bin.first}, {"last", bin.last}, {"rows", bin.rows}});
  return json;
}

Json to_json(const FileCheck& check) {
  const RecordReport& report = check.report;
  Json json = {{"rows", report.records},
               {"format", data_format_name(report.format)},
               {"text_column", report.text_column},
               {"pair_column", report.pair_column},
               {"label_column", report.label_column},
               {"ignored_columns", Json::array()},
               {"empty_lines", report.empty_lines},
               {"invalid_utf8_rows", report.invalid_utf8},
               {"empty_texts", check.empty_texts},
               {"labels", Json::array()},
               {"unlabelled_rows", check.unlabelled},
               {"labels_refused", check.labels_refused.empty() ? Json(nullptr) : Json(check.labels_refused)},
               {"distinct_texts", check.distinct_texts},
               {"duplicate_rows", check.duplicate_rows},
               {"duplicates", to_json(check.duplicates)},
               {"contradictory_rows", check.contradictory_rows},
               {"contradictions", to_json(check.contradictions)},
               {"characters", to_json(check.characters)},
               {"words", to_json(check.words)}};
  for (const IgnoredColumn& column : report.ignored)
    json["ignored_columns"].push_back({{"name", column.name}, {"looks_like_text", column.looks_like_text}});
  for (const Records::LabelName& label : by_frequency(check))
    json["labels"].push_back({{"label", label.name}, {"rows", label.count}, {"first_line", label.first_line}});
  if (!check.tokens) return json;
  json["tokens"] = to_json(*check.tokens);
  json["unknown_tokens"] = check.unknown_tokens;
  for (const std::int64_t length : kMaxLengths) {
    const LengthCounts::Cut cut = check.tokens->cut_at(length);
    json["max_length"].push_back({{"max_length", length}, {"rows_cut", cut.rows}, {"tokens_lost", cut.lost}});
  }
  return json;
}

std::string json_report(const DataCheck& check, const CheckDataOptions& options) {
  Json json = {{"data", to_json(check.data)}};
  json["data"]["file"] = options.data.string();
  if (check.dev) {
    json["dev"] = to_json(*check.dev);
    json["dev"]["file"] = options.dev->string();
    Json unknown = Json::array();
    for (const Records::LabelName& label : check.overlap->unknown_labels)
      unknown.push_back({{"label", label.name}, {"rows", label.count}, {"first_line", label.first_line}});
    json["overlap"] = {{"dev_rows_in_data", check.overlap->rows},
                       {"contradictory_rows", check.overlap->contradictory_rows},
                       {"examples", to_json(check.overlap->examples)},
                       {"labels_only_in_dev", std::move(unknown)}};
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// For people -------------------------------------------------------------------------------------------------------------------

using Appender = std::back_insert_iterator<std::string>;

void append_columns(const FileCheck& check, const std::string& file, Appender to) {
  const RecordReport& report = check.report;
  fmt::format_to(to, "{}: {} ({})", printable(file), counted(report.records, "row"), data_format_name(report.format));
  if (!report.text_column.empty()) fmt::format_to(to, ", text in \"{}\"", printable(report.text_column));
  if (!report.pair_column.empty()) fmt::format_to(to, ", pair in \"{}\"", printable(report.pair_column));
  fmt::format_to(
      to, "{}",
      report.label_column.empty() ? ", no label column" : fmt::format(", label in \"{}\"", printable(report.label_column)));
  std::vector<std::string> ignored;
  for (const IgnoredColumn& column : report.ignored) ignored.push_back(column.name);
  if (!ignored.empty()) fmt::format_to(to, ", not used: {}", printable(quoted_list(ignored)));
  fmt::format_to(to, "\n");
}

void append_labels(const FileCheck& check, Appender to) {
  if (check.labels.empty()) return;
  const std::vector<Records::LabelName> labels = by_frequency(check);
  const std::int64_t rows = labelled_rows(check);
  fmt::format_to(to, "\n  {:<24}  {:>12}  {:>7}\n", "label", "rows", "share");
  for (std::size_t i = 0; i < std::min(labels.size(), kMostLabelsShown); ++i) {
    fmt::format_to(to, "  {:<24}  {:>12}  {:>7}\n", printable(labels[i].name), grouped(labels[i].count),
                   percent(labels[i].count, rows));
  }
  if (labels.size() > kMostLabelsShown) fmt::format_to(to, "  and {} more\n", labels.size() - kMostLabelsShown);
  fmt::format_to(to, "  always answering \"{}\" would be right in {}\n", printable(labels.front().name),
                 percent(labels.front().count, rows));
}

void append_lengths(const FileCheck& check, std::int64_t positions, Appender to) {
  struct Unit {
    const char* name;
    const LengthCounts& lengths;
  };
  std::vector<Unit> units = {{"characters", check.characters}, {"words", check.words}};
  if (check.tokens) units.push_back({"tokens", *check.tokens});
  fmt::format_to(to, "\n  {:<12}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}\n", "length in", "median", "90 %", "95 %", "99 %", "longest");
  for (const Unit& unit : units) {
    fmt::format_to(to, "  {:<12}", unit.name);
    for (const double share : kQuantiles) fmt::format_to(to, "  {:>8}", grouped(unit.lengths.quantile(share)));
    fmt::format_to(to, "  {:>8}\n", grouped(unit.lengths.longest()));
  }

  const Unit& shown = units.back();
  constexpr std::int64_t kBar = 40;
  std::int64_t most = 1;
  const std::vector<LengthCounts::Bin> bins = shown.lengths.histogram();
  for (const LengthCounts::Bin& bin : bins) most = std::max(most, bin.rows);
  fmt::format_to(to, "\n  {:<15}  {:>12}\n", shown.name, "rows");
  for (const LengthCounts::Bin& bin : bins) {
    const std::int64_t bar = (bin.rows * kBar + most - 1) / most;
    fmt::format_to(to, "  {:>7}-{:<7}  {:>12}  {}\n", bin.first, bin.last, grouped(bin.rows),
                   std::string(static_cast<std::size_t>(bar), '#'));
  }
  if (!check.tokens) {
    fmt::format_to(to, "  tokens, and what --max-length would cut, are told with --model\n");
    return;
  }
  fmt::format_to(to, "\n  {:<15}  {:>12}  {:>7}  {:>15}  {:>7}\n", "--max-length", "rows cut", "share", "tokens lost", "share");
  for (const std::int64_t length : kMaxLengths) {
    const LengthCounts::Cut cut = check.tokens->cut_at(length);
    fmt::format_to(to, "  {:<15}  {:>12}  {:>7}  {:>15}  {:>7}{}\n", length, grouped(cut.rows),
                   percent(cut.rows, check.tokens->rows()), grouped(cut.lost), percent(cut.lost, check.tokens->total()),
                   positions > 0 && length > positions ? fmt::format("  beyond the model's {} positions", positions) : "");
  }
  fmt::format_to(to, "  {} of the tokens are unknown ({})\n", percent(check.unknown_tokens, check.tokens->total()),
                 grouped(check.unknown_tokens));
}

std::string example_text(const RepeatedText& example) {
  std::string text = fmt::format("    lines {} and {}", example.first_line, example.line);
  if (!example.first_label.empty() || !example.label.empty())
    text += fmt::format(R"( ("{}" and "{}"))", printable(example.first_label), printable(example.label));
  return fmt::format("{}: {}\n", text, printable(example.excerpt));
}

void append_examples(const std::vector<RepeatedText>& examples, Appender to) {
  for (const RepeatedText& example : examples) fmt::format_to(to, "{}", example_text(example));
}

/// Returns how many warnings there are.
int append_warnings(const FileCheck& check, Appender to) {
  int warnings = 0;
  const auto warn = [&](const std::string& text) {
    fmt::format_to(to, "warning: {}\n", printable(text));
    ++warnings;
  };
  const RecordReport& report = check.report;
  for (const IgnoredColumn& column : report.ignored) {
    if (column.looks_like_text)
      warn(fmt::format("the column \"{}\" looks like text and is not used; --text-column and --pair-column choose", column.name));
  }
  if (report.invalid_utf8 > 0)
    warn(fmt::format("{} not valid UTF-8, first in line {}", counted(report.invalid_utf8, "row"), report.first_invalid_utf8));
  if (report.empty_lines > 0) warn(fmt::format("{} skipped", counted(report.empty_lines, "empty line")));
  if (check.empty_texts > 0)
    warn(fmt::format("{} with an empty text, first in line {}", counted(check.empty_texts, "row"), check.first_empty_text));
  if (check.unlabelled > 0)
    warn(fmt::format("{} without a label, first in line {}", counted(check.unlabelled, "row"), check.first_unlabelled));
  if (!check.labels_refused.empty()) warn("finetune would refuse the labels: " + check.labels_refused);
  if (check.duplicate_rows > 0) {
    warn(fmt::format("{} ({}) with the text of an earlier row, such as", counted(check.duplicate_rows, "row"),
                     percent(check.duplicate_rows, report.records)));
    append_examples(check.duplicates, to);
  }
  if (check.contradictory_rows > 0) {
    warn(fmt::format("{} with the text of an earlier row and another label, such as", counted(check.contradictory_rows, "row")));
    append_examples(check.contradictions, to);
  }
  return warnings;
}

void append_file(const FileCheck& check, const std::string& file, std::int64_t positions, std::string& out) {
  const Appender to = std::back_inserter(out);
  append_columns(check, file, to);
  append_labels(check, to);
  append_lengths(check, positions, to);
  fmt::format_to(to, "\n");
  if (append_warnings(check, to) == 0) fmt::format_to(to, "nothing to warn of\n");
}

void append_overlap(const DataCheck& check, std::string& out) {
  const Appender to = std::back_inserter(out);
  const OverlapCheck& overlap = *check.overlap;
  fmt::format_to(to, "\nboth files:\n");
  for (const Records::LabelName& label : overlap.unknown_labels) {
    fmt::format_to(to, "warning: the label \"{}\" is in the dev file alone: {}, first in line {}\n", printable(label.name),
                   counted(label.count, "row"), label.first_line);
  }
  if (overlap.rows == 0) {
    fmt::format_to(to, "no text is in both\n");
    return;
  }
  fmt::format_to(
      to, "warning: {} of the dev file ({}) with a text that the data to train on has, {} with another label; such as\n",
      counted(overlap.rows, "row"), percent(overlap.rows, check.dev->report.records), grouped(overlap.contradictory_rows));
  append_examples(overlap.examples, to);
}

}  // namespace

int check_data_command(const CheckDataOptions& options) {
  const ResolvedReading reading = resolve(options.reading, {}, {});
  std::optional<WordPieceTokenizer> tokenizer;
  std::int64_t positions = 0;  // of the model; 0 where it isn't known
  if (options.model) {
    const std::filesystem::path model = find_model(*options.model, hub_cache_folder());
    tokenizer = WordPieceTokenizer::load(model);
    const std::filesystem::path config = model / "config.json";
    if (std::filesystem::exists(config)) positions = BertConfig::load(config).max_positions;
  }
  const DataCheck check = check_data(options.data, {.records = reading.records,
                                                    .dev = options.dev,
                                                    .tokenizer = tokenizer ? &*tokenizer : nullptr,
                                                    .threads = options.threads ? *options.threads : default_threads().threads});
  for (const FileCheck* file : {&check.data, check.dev ? &*check.dev : nullptr}) {
    if (options.reading.label_column && file != nullptr && file->report.label_column.empty()) {
      const std::filesystem::path& path = file == &check.data ? options.data : *options.dev;
      throw UsageError(fmt::format("--label-column {}: {} has no such column", *options.reading.label_column, path.string()));
    }
  }
  std::string report;
  if (options.json) {
    report = json_report(check, options);
  } else {
    append_file(check.data, options.data.string(), positions, report);
    if (check.dev) {
      report.push_back('\n');
      append_file(*check.dev, options.dev->string(), positions, report);
      append_overlap(check, report);
    }
  }
  LineOutput output;
  output.write(report);
  return 0;
}

}  // namespace lathe
