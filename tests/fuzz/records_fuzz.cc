// TSV, CSV, JSON lines and plain text: what is read doesn't depend on how the bytes arrive, lines rise, and all of it survives being
// written as CSV.
#include <algorithm>
#include <array>
#include <sstream>
#include <streambuf>
#include <string>
#include <vector>

#include "lathe/text/labels.h"
#include "lathe/text/records.h"
#include "lathe/text/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

/// Hands over a text in pieces, as a pipe does.
class Pieces final : public std::streambuf {
 public:
  Pieces(std::string text, std::size_t piece) : text_(std::move(text)), piece_(piece) {}

 private:
  int_type underflow() override {
    if (done_ == text_.size()) return traits_type::eof();
    const std::size_t count = std::min(piece_, text_.size() - done_);
    char* const begin = text_.data() + done_;
    setg(begin, begin, begin + count);
    done_ += count;
    return traits_type::to_int_type(*begin);
  }

  std::string text_;
  std::size_t piece_, done_ = 0;
};

struct Row {
  std::string text, pair, label;
  std::int64_t line;
  bool operator==(const Row&) const = default;
};

/// All that reading gave, up to the end or what was refused.
struct Outcome {
  std::vector<Row> rows;
  RecordReport report;
  std::string refusal;
};

Outcome read_all(std::string_view text, std::size_t piece, const RecordOptions& options) {
  Pieces pieces(std::string(text), piece);
  std::istream stream(&pieces);
  Outcome outcome;
  try {
    RecordReader reader(stream, "data", options);
    for (Record record; reader.next(record);) {
      outcome.rows.push_back({std::string(record.text), std::string(record.pair), std::string(record.label), record.line});
    }
    outcome.report = reader.report();
  } catch (const Error& error) {
    check_refusal(error);
    outcome.refusal = error.what();
  }
  return outcome;
}

void check_rows(const Outcome& outcome, std::string_view text, const RecordOptions& options) {
  const std::int64_t lines = std::count(text.begin(), text.end(), '\n') + 1;
  std::int64_t line = 0;
  std::int64_t invalid = 0;
  for (const Row& row : outcome.rows) {
    require(row.line > line && row.line <= lines, "lines rise and are the file's");
    line = row.line;
    require(options.labels == LabelUse::optional || !row.label.empty(), "a label that is required is there");
    invalid += is_valid_utf8(row.text) && is_valid_utf8(row.pair) && is_valid_utf8(row.label) ? 0 : 1;
    for (const std::string* field : {&row.text, &row.pair, &row.label}) {
      require(field->size() <= 3 * options.max_record_bytes, "a record keeps to its limit");
      const bool one_line = options.format == DataFormat::tsv || options.format == DataFormat::text;
      require(!one_line || field->find('\n') == std::string::npos, "a field of one line holds no line end");
      require(options.format != DataFormat::tsv || field->find('\t') == std::string::npos, "a tab separates");
    }
  }
  if (!outcome.refusal.empty()) return;
  const RecordReport& report = outcome.report;
  require(report.records == static_cast<std::int64_t>(outcome.rows.size()), "the report counts the records");
  require(report.records + report.empty_lines <= lines, "each record and each skipped line has a line");
  if (options.format == DataFormat::json_lines) {
    require(invalid == 0, "JSON lines are repaired");
  } else {
    require(report.invalid_utf8 == invalid, "the report counts what isn't UTF-8");
  }
}

std::string csv_field(std::string_view field) {
  std::string result = "\"";
  for (const char c : field) result.append(c == '"' ? 2 : 1, c);
  return result + "\"";
}

Outcome read_csv(const std::string& csv) {
  return read_all(csv, csv.size(),
                  {.format = DataFormat::csv,
                   .text_column = "text",
                   .pair_column = "pair",
                   .labels = LabelUse::optional,
                   .max_record_bytes = csv.size()});
}

void check_csv_round_trip(const std::vector<Row>& rows) {
  std::string csv = "text,pair,label\n";
  for (const Row& row : rows) csv += csv_field(row.text) + "," + csv_field(row.pair) + "," + csv_field(row.label) + "\r\n";
  const Outcome again = read_csv(csv);
  require(again.refusal.empty() && again.rows.size() == rows.size(), "records written as CSV are read again");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& read = again.rows[i];
    require(read.text == rows[i].text && read.pair == rows[i].pair && read.label == rows[i].label, "CSV keeps every byte");
  }
}

/// Any bytes at all are a field, between quotes.
void check_csv_field(std::string_view bytes) {
  const Outcome read = read_csv("pair,text\n," + csv_field(bytes));
  require(read.rows.size() == 1 && read.rows.front().text == bytes, "a quoted field keeps every byte");
}

void check_labels(const std::vector<Row>& rows) {
  Records records("data");
  for (const Row& row : rows) records.append({.text = row.text, .pair = row.pair, .label = row.label, .line = row.line});
  const auto labels = accepted([&] { return LabelSet::from_data(records); });
  if (!labels) return;
  const std::vector<std::int32_t> ids = labels->ids_of(records);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < labels->size() && labels->name(ids[i]) == rows[i].label, "a label is the name of its class");
  }
}

}  // namespace
}  // namespace lathe::fuzz

/// The first two bytes choose the options: 'a' to 'd' the format, and so on; letters, so that a corpus can be read.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  using lathe::DataFormat;
  if (size < 2) return 0;
  constexpr std::array kFormats = {DataFormat::text, DataFormat::tsv, DataFormat::csv, DataFormat::json_lines};
  constexpr std::array<std::size_t, 4> kLimits = {4'096, 1'000, 64, 7};
  lathe::RecordOptions options;
  options.format = kFormats[data[0] % 4];
  if ((data[0] & 4U) != 0 || options.format == DataFormat::text) options.labels = lathe::LabelUse::optional;
  if ((data[0] & 8U) != 0 && options.format != DataFormat::text) options.pair_column = "pair";
  if ((data[0] & 16U) != 0) options.text_column = "text";
  options.max_record_bytes = kLimits[data[1] % 4];
  const std::size_t piece = 1 + data[1] / 4U;
  const std::string_view text = text_of({data + 2, size - 2});

  const Outcome whole = read_all(text, std::max<std::size_t>(text.size(), 1), options);
  const Outcome pieces = read_all(text, piece, options);
  require(whole.rows == pieces.rows && whole.refusal == pieces.refusal, "records don't depend on how the bytes arrive");
  check_rows(whole, text, options);
  check_csv_field(text);
  if (whole.rows.empty()) return 0;
  check_csv_round_trip(whole.rows);
  if (options.labels == lathe::LabelUse::required) check_labels(whole.rows);
  return 0;
}
