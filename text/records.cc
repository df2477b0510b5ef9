#include "lathe/text/records.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <span>
#include <utility>

#include "lathe/runtime/error.h"
#include "lathe/text/columns.h"
#include "lathe/text/csv.h"
#include "lathe/text/jsonl.h"
#include "lathe/text/line_reader.h"
#include "lathe/text/quoted_list.h"
#include "lathe/text/utf8.h"

namespace lathe {

/// One format's way from lines to records.
class RecordParser {
 public:
  RecordParser(LineReader lines, DataFormat format, RecordOptions options)
      : lines_(std::move(lines)), options_(std::move(options)) {
    report_.format = format;
  }
  virtual ~RecordParser() = default;
  RecordParser(const RecordParser&) = delete;
  RecordParser(RecordParser&&) = delete;
  RecordParser& operator=(const RecordParser&) = delete;
  RecordParser& operator=(RecordParser&&) = delete;

  bool next(Record& record) {
    record = {};
    if (!read(record)) {
      if (report_.records == 0 && options_.empty == EmptyInput::refused) fail_without_records();
      return false;
    }
    if (options_.labels == LabelUse::required && record.label.empty()) {
      fail(record.line, fmt::format("the label is empty (column '{}')", report_.label_column));
    }
    // A label becomes a name in files that are UTF-8; two that aren't could become one name.
    if (!is_valid_utf8(record.label))
      fail(record.line, fmt::format("the label '{}' is not valid UTF-8", utf8_prefix(record.label, 40)));
    ++report_.records;
    if (record.text.empty() && report_.empty_texts++ == 0) report_.first_empty_text = record.line;
    if (!valid_utf8(record) && report_.invalid_utf8++ == 0) report_.first_invalid_utf8 = record.line;
    return true;
  }

  bool is_ready() const { return lines_.is_ready(); }

  RecordReport report() const {
    RecordReport report = report_;
    for (std::size_t i = 0; i < ignored_.size(); ++i) report.ignored[i].looks_like_text = ignored_[i].looks_like_text();
    report.empty_lines = empty_lines();
    return report;
  }

 protected:
  /// Fills `record` with views that hold until the next call; false at the end.
  virtual bool read(Record& record) = 0;
  virtual std::int64_t empty_lines() const noexcept = 0;
  virtual bool valid_utf8(const Record& record) const noexcept {
    return is_valid_utf8(record.text) && is_valid_utf8(record.pair) && is_valid_utf8(record.label);
  }

  ColumnChoice choose_columns_of(std::span<const std::string_view> names, std::int64_t line) {
    const ColumnChoice choice = choose_columns(names, options_, lines_.name(), line);
    const auto name_of = [&](std::optional<std::size_t> column) {
      if (column && !is_valid_utf8(names[*column]))
        fail(line, fmt::format("the column's name '{}' is not valid UTF-8", names[*column]));
      return column ? std::string(names[*column]) : std::string();
    };
    report_.text_column = name_of(choice.text);
    report_.pair_column = name_of(choice.pair);
    report_.label_column = name_of(choice.label);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (i == choice.text || i == choice.pair || i == choice.label) continue;
      report_.ignored.push_back({.name = std::string(names[i])});
      ignored_indices_.push_back(i);
    }
    ignored_.resize(ignored_indices_.size());
    return choice;
  }

  /// Calls `value_of(column's index, column's name)` for each ignored column and looks at what it gives.
  void look_at_ignored(const auto& value_of) {
    if (report_.records >= ColumnStatistics::kSample) return;
    for (std::size_t i = 0; i < ignored_.size(); ++i) ignored_[i].add(value_of(ignored_indices_[i], report_.ignored[i].name));
  }

  LineReader& lines() noexcept { return lines_; }
  const RecordOptions& options() const noexcept { return options_; }
  RecordReport& mutable_report() noexcept { return report_; }
  [[noreturn]] void fail(std::int64_t line, std::string_view message) const {
    throw FormatError(lines_.name(), fmt::format("line {}", line), message);
  }

 private:
  [[noreturn]] void fail_without_records() const {
    if (lines_.number() == 0) throw FormatError(lines_.name(), "", "empty; a data file is needed");
    const bool rows = report_.format == DataFormat::tsv || report_.format == DataFormat::csv;
    const bool header = rows && options_.header == HeaderRow::present;
    throw FormatError(lines_.name(), "", header ? "no records after the header" : "no records, only empty lines");
  }

  LineReader lines_;
  RecordOptions options_;
  RecordReport report_;
  std::vector<std::size_t> ignored_indices_;
  std::vector<ColumnStatistics> ignored_;  // as report_.ignored
};

namespace {

class TextParser final : public RecordParser {
 public:
  using RecordParser::RecordParser;

 protected:
  bool read(Record& record) override {
    if (!lines().next()) return false;
    record.text = lines().line();
    record.line = lines().number();
    return true;
  }
  std::int64_t empty_lines() const noexcept override { return 0; }
};

class RowParser final : public RecordParser {
 public:
  RowParser(LineReader source, DataFormat format, RecordOptions options)
      : RecordParser(std::move(source), format, std::move(options)),
        rows_(lines(), format == DataFormat::tsv ? '\t' : ',',
              format == DataFormat::tsv ? RowReader::Quoting::none : RowReader::Quoting::rfc4180) {}

 protected:
  bool read(Record& record) override {
    const bool first = names_.empty();
    if (first && !read_first_row()) return false;
    // Without a header the first row is a record already.
    const bool at_record = first && options().header == HeaderRow::absent;
    if (!at_record && !rows_.next()) return false;
    const std::vector<std::string_view>& fields = rows_.fields();
    if (fields.size() != names_.size()) {
      const std::string expected = options().header == HeaderRow::absent
                                       ? fmt::format("{} as in the first row", names_.size())
                                       : fmt::format("{}: {}", names_.size(), quoted_list(names_));
      fail(rows_.line(), fmt::format("found {} field{}, expected {}", fields.size(), fields.size() == 1 ? "" : "s", expected));
    }
    record.text = fields[columns_.text];
    if (columns_.pair) record.pair = fields[*columns_.pair];
    if (columns_.label) record.label = fields[*columns_.label];
    record.line = rows_.line();
    look_at_ignored([&](std::size_t index, const std::string&) { return fields[index]; });
    return true;
  }
  std::int64_t empty_lines() const noexcept override { return rows_.empty_lines(); }

 private:
  /// Learns the columns' names, from the header or by counting.
  bool read_first_row() {
    if (!rows_.next()) return false;
    if (rows_.has_lone_carriage_return()) fail(rows_.line(), "lines end in a lone CR, as on old Macintoshes; convert them to LF");
    if (options().header == HeaderRow::present) {
      names_.assign(rows_.fields().begin(), rows_.fields().end());
    } else {
      for (std::size_t i = 1; i <= rows_.fields().size(); ++i) names_.push_back(std::to_string(i));
    }
    const std::vector<std::string_view> names(names_.begin(), names_.end());
    columns_ = choose_columns_of(names, rows_.line());
    return true;
  }

  RowReader rows_;
  std::vector<std::string> names_;
  ColumnChoice columns_;
};

class JsonParser final : public RecordParser {
 public:
  JsonParser(LineReader source, DataFormat format, RecordOptions options)
      : RecordParser(std::move(source), format, std::move(options)), objects_(lines()) {}

 protected:
  bool read(Record& record) override {
    if (!objects_.next()) return false;
    RecordReport& report = mutable_report();
    const bool first = report.text_column.empty();
    if (first) choose_columns_of(keys(), objects_.line());
    record.line = objects_.line();
    record.text = value(require(report.text_column));
    if (!report.pair_column.empty()) record.pair = value(require(report.pair_column));
    read_label(record);
    look_at_ignored([&](std::size_t index, const std::string& name) {
      const std::vector<JsonField>& members = objects_.members();
      const bool usable = index < members.size() && members[index].kind == JsonField::Kind::string && members[index].key == name;
      return usable ? std::string_view(members[index].value) : std::string_view();
    });
    return true;
  }
  std::int64_t empty_lines() const noexcept override { return objects_.empty_lines(); }
  bool valid_utf8(const Record&) const noexcept override { return !objects_.was_repaired(); }

 private:
  std::vector<std::string_view> keys() const {
    std::vector<std::string_view> keys;
    keys.reserve(objects_.members().size());
    for (const JsonField& member : objects_.members()) keys.emplace_back(member.key);
    return keys;
  }

  void read_label(Record& record) {
    const std::string& name = options().label_column;
    if (options().labels == LabelUse::required) {
      record.label = value(require(name));
      return;
    }
    const JsonField* label = name.empty() ? nullptr : find(name);
    if (label == nullptr || label->kind == JsonField::Kind::null) return;
    record.label = value(*label);
    mutable_report().label_column = name;
  }

  const JsonField* find(std::string_view name) const {
    const JsonField* found = nullptr;
    for (const JsonField& member : objects_.members()) {
      if (member.key != name) continue;
      if (found != nullptr) fail(objects_.line(), fmt::format("'{}' is there twice", name));
      found = &member;
    }
    return found;
  }

  const JsonField& require(std::string_view name) const {
    const JsonField* found = find(name);
    if (found == nullptr) fail(objects_.line(), fmt::format("no column '{}'; there are {}", name, quoted_list(keys())));
    return *found;
  }

  std::string_view value(const JsonField& member) const {
    switch (member.kind) {
      case JsonField::Kind::string:
      case JsonField::Kind::number:
      case JsonField::Kind::boolean:
        return member.value;
      case JsonField::Kind::null:
      case JsonField::Kind::array:
      case JsonField::Kind::object:
        break;
    }
    fail(objects_.line(),
         fmt::format("'{}' is {}; a string, a number, true or false is needed", member.key, json_kind_name(member.kind)));
  }

  JsonLineReader objects_;
};

std::unique_ptr<RecordParser> make_parser(std::unique_ptr<ByteSource> source, const std::filesystem::path& name,
                                          DataFormat format, RecordOptions options) {
  LineReader lines(std::move(source), name, options.max_record_bytes);
  if (format != DataFormat::text) {
    check_column_options(options);
    if (format == DataFormat::json_lines) return std::make_unique<JsonParser>(std::move(lines), format, std::move(options));
    return std::make_unique<RowParser>(std::move(lines), format, std::move(options));
  }
  const std::string_view missing = options.labels == LabelUse::required ? "labels"
                                   : !options.pair_column.empty()       ? "pairs of texts"
                                                                        : "";
  if (!missing.empty()) {
    throw UsageError(
        fmt::format("{}: plain text (txt) has one text a line and no {}; use tsv, csv or jsonl", name.string(), missing));
  }
  return std::make_unique<TextParser>(std::move(lines), format, std::move(options));
}

struct FormatName {
  std::string_view name;
  DataFormat format;
};

/// Names that parse_data_format takes, then further extensions.
constexpr std::array kFormatNames = {FormatName{"tsv", DataFormat::tsv}, FormatName{"csv", DataFormat::csv},
                                     FormatName{"jsonl", DataFormat::json_lines}, FormatName{"txt", DataFormat::text}};
constexpr std::array kFurtherExtensions = {FormatName{"ndjson", DataFormat::json_lines},
                                           FormatName{"json", DataFormat::json_lines}};

std::optional<DataFormat> find_format(std::span<const FormatName> names, std::string_view name) {
  const auto found = std::ranges::find(names, name, &FormatName::name);
  return found == names.end() ? std::nullopt : std::optional(found->format);
}

}  // namespace

std::string_view data_format_name(DataFormat format) noexcept {
  return std::ranges::find(kFormatNames, format, &FormatName::format)->name;
}

DataFormat parse_data_format(std::string_view name) {
  if (const auto format = find_format(kFormatNames, name)) return *format;
  throw UsageError(fmt::format("no data format is called '{}'; there are tsv, csv, jsonl and txt", name));
}

DataFormat data_format_of(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::ranges::transform(extension, extension.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string_view name = std::string_view(extension).substr(extension.empty() ? 0 : 1);
  if (const auto format = find_format(kFormatNames, name)) return *format;
  if (const auto format = find_format(kFurtherExtensions, name)) return *format;
  throw UsageError(fmt::format(
      "{}: the name doesn't tell the format by .tsv, .csv, .jsonl, .ndjson, .json or .txt; name it: tsv, csv, jsonl or txt",
      path.string()));
}

RecordReader::RecordReader(const std::filesystem::path& path, RecordOptions options) {
  // The file first: that it isn't there matters more than what its name doesn't tell.
  std::unique_ptr<ByteSource> source = open_byte_source(path);
  const DataFormat format = options.format ? *options.format : data_format_of(path);
  parser_ = make_parser(std::move(source), path, format, std::move(options));
}

RecordReader::RecordReader(std::istream& stream, const std::string& name, RecordOptions options) {
  const DataFormat format = options.format.value_or(DataFormat::text);
  parser_ = make_parser(stream_byte_source(stream, name), name, format, std::move(options));
}

RecordReader::~RecordReader() = default;
RecordReader::RecordReader(RecordReader&&) noexcept = default;
RecordReader& RecordReader::operator=(RecordReader&&) noexcept = default;

bool RecordReader::next(Record& record) { return parser_->next(record); }

bool RecordReader::is_ready() const { return parser_->is_ready(); }

RecordReport RecordReader::report() const { return parser_->report(); }

void Records::append(const Record& record) {
  bytes_.append(record.text);
  ends_.push_back(bytes_.size());
  bytes_.append(record.pair);
  ends_.push_back(bytes_.size());
  lines_.push_back(record.line);
  labels_.push_back(record.label.empty() ? -1 : count_label(record));
}

void Records::clear() noexcept {
  bytes_.clear();
  ends_.clear();
  lines_.clear();
  labels_.clear();
  label_names_.clear();
  label_indices_.clear();
}

Record Records::operator[](std::int64_t index) const {
  const std::int32_t label = label_index(index);
  return {.text = text(index),
          .pair = pair(index),
          .label = label < 0 ? std::string_view() : std::string_view(label_names_[static_cast<std::size_t>(label)].name),
          .line = line(index)};
}

std::int32_t Records::count_label(const Record& record) {
  auto found = label_indices_.find(record.label);
  if (found == label_indices_.end()) {
    found = label_indices_.emplace(record.label, static_cast<std::int32_t>(label_names_.size())).first;
    label_names_.push_back({.name = found->first, .count = 0, .first_line = record.line});
  }
  ++label_names_[static_cast<std::size_t>(found->second)].count;
  return found->second;
}

namespace {

DataSet read_all(RecordReader reader, const std::filesystem::path& source) {
  DataSet data{.records = Records(source), .report = {}};
  for (Record record; reader.next(record);) data.records.append(record);
  data.report = reader.report();
  return data;
}

}  // namespace

DataSet read_records(const std::filesystem::path& path, RecordOptions options) {
  return read_all(RecordReader(path, std::move(options)), path);
}

DataSet read_records(std::istream& stream, const std::string& name, RecordOptions options) {
  return read_all(RecordReader(stream, name, std::move(options)), name);
}

}  // namespace lathe
