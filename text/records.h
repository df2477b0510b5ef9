#pragma once
// Data sets: records of a text, perhaps its pair, and a label, read from TSV, CSV, JSON lines or plain text.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// How records are written down. Lines end at LF or CRLF, a UTF-8 byte order mark is dropped, the last line need not end.
enum class DataFormat {
  tsv,  ///< A header (or none, see HeaderRow), then rows; fields separated by tabs and literal: no quoting, no escapes. Empty lines are skipped.
  csv,  ///< As tsv, but after RFC 4180: quoted fields may hold commas, line ends and doubled quotes. Empty lines are
        ///< skipped.
  json_lines,  ///< An object a line; strings, numbers, true and false serve as values. Empty lines are skipped.
  text,        ///< A text a line, without header; an empty line is an empty text.
};

/// "tsv", "csv", "jsonl", "txt".
std::string_view data_format_name(DataFormat format) noexcept;
/// The format of that name; UsageError for another.
DataFormat parse_data_format(std::string_view name);
/// The format that the extension tells, in either case: .tsv, .csv, .jsonl, .ndjson, .json, .txt. UsageError for another.
DataFormat data_format_of(const std::filesystem::path& path);

enum class LabelUse {
  required,  ///< Each record must have a label that isn't empty: to train, to evaluate.
  optional,  ///< A label is handed over where there is one: to predict.
};

enum class EmptyInput {
  refused,   ///< An input without a record is an error.
  accepted,  ///< It is as good as any other.
};

enum class HeaderRow {
  present,  ///< The first row names the columns.
  absent,   ///< The first row is a record; columns are called "1", "2", ... in their order.
};

struct RecordOptions {
  /// By the file's extension where absent; plain text for a stream.
  std::optional<DataFormat> format = std::nullopt;
  /// Of TSV and CSV; the other formats have no header.
  HeaderRow header = HeaderRow::present;
  /// The column of the text. Empty: "text", else "sentence", else the only column that is neither the label's nor the pair's. Not
  /// used for plain text.
  std::string text_column = {};
  /// The column of the second text. Empty: there is none.
  std::string pair_column = {};
  /// Without a header it must be given where labels are required.
  std::string label_column = "label";
  LabelUse labels = LabelUse::required;
  EmptyInput empty = EmptyInput::refused;
  /// A record, or a line of one, that is longer is refused; memory stays within a small multiple of this.
  std::size_t max_record_bytes = std::size_t{64} << 20U;
};

/// One record. Views end with the next call that reads from or adds to where they came from. Bytes of a text that aren't UTF-8 are left as
/// they are (JSON lines: replaced by U+FFFD); NUL bytes too.
struct Record {
  std::string_view text = {};
  std::string_view pair = {};   ///< Empty where there is no pair column.
  std::string_view label = {};  ///< Empty where there is no label.
  std::int64_t line =
      0;  ///< The physical line where the record starts, from 1; headers, skipped lines and quoted line ends count.
};

struct IgnoredColumn {
  std::string name;
  /// Whether its first 1,000 values look like something to read: more than 20 bytes on average, most with two spaces or letters
  /// beyond ASCII.
  bool looks_like_text = false;
};

/// What reading found, for the caller to print.
struct RecordReport {
  DataFormat format = DataFormat::text;
  std::string text_column, pair_column, label_column;  ///< The columns used; empty where there is none.
  /// In the file's order; for JSON lines, those of the first record.
  std::vector<IgnoredColumn> ignored;
  std::int64_t records = 0;
  std::int64_t empty_lines = 0;         ///< Skipped.
  std::int64_t empty_texts = 0;         ///< Records whose text is empty.
  std::int64_t first_empty_text = 0;    ///< The line of the first of them; 0 for none.
  std::int64_t invalid_utf8 = 0;        ///< Records with bytes that aren't UTF-8.
  std::int64_t first_invalid_utf8 = 0;  ///< The line of the first of them; 0 for none.
};

class RecordParser;

/// Reads records one at a time, in bounded memory; hands over each as soon as its last line is complete.
class RecordReader {
 public:
  /// Opens a file. FileError where it can't be opened or is a folder; UsageError for options that contradict each other or a
  /// format that the name doesn't tell.
  RecordReader(const std::filesystem::path& path, RecordOptions options);
  /// Reads a stream, which must outlive the reader; `name`, for example "standard input", stands for it in messages.
  RecordReader(std::istream& stream, const std::string& name, RecordOptions options);
  ~RecordReader();
  RecordReader(RecordReader&&) noexcept;
  RecordReader& operator=(RecordReader&&) noexcept;
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;

  /// Reads the next record into `record`, whose views hold until the next call; false at the end. The first call chooses the
  /// columns. FormatError, with the line, for a column that isn't there (the message lists those there are), a wrong number of
  /// fields, an unterminated quote, invalid JSON, a label or a used column's name that is missing or not UTF-8, a record that is
  /// too long, and for a refused empty input;
  /// UsageError where several columns could be the text; FileError where reading fails.
  bool next(Record& record);

  /// Whether the line that the next record starts in has arrived already, so that reading it needn't wait for whoever writes.
  bool is_ready() const;

  /// What was found so far; columns are known after the first call of `next`.
  RecordReport report() const;

 private:
  std::unique_ptr<RecordParser> parser_;
};

/// Records in memory, as one buffer of texts and one number per label.
class Records {
 public:
  /// A label's name and where it first occurs.
  struct LabelName {
    std::string name;
    std::int64_t count = 0;
    std::int64_t first_line = 0;
  };

  Records() = default;
  /// `source` is the file in messages about these records.
  explicit Records(std::filesystem::path source) : source_(std::move(source)) {}

  void append(const Record& record);
  /// Forgets the records and keeps the memory, for the next batch of a stream.
  void clear() noexcept;

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(lines_.size()); }
  Record operator[](std::int64_t index) const;
  std::string_view text(std::int64_t index) const { return field(2 * static_cast<std::size_t>(index)); }
  std::string_view pair(std::int64_t index) const { return field(2 * static_cast<std::size_t>(index) + 1); }
  std::int64_t line(std::int64_t index) const { return lines_[static_cast<std::size_t>(index)]; }
  /// The record's index in label_names(), -1 where it has no label.
  std::int32_t label_index(std::int64_t index) const { return labels_[static_cast<std::size_t>(index)]; }
  /// The labels that occur, by first occurrence.
  const std::vector<LabelName>& label_names() const noexcept { return label_names_; }

  const std::filesystem::path& source() const noexcept { return source_; }

 private:
  std::string_view field(std::size_t index) const {
    const std::size_t start = index == 0 ? 0 : ends_[index - 1];
    return std::string_view(bytes_).substr(start, ends_[index] - start);
  }
  std::int32_t count_label(const Record& record);

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };

  std::filesystem::path source_;
  std::string bytes_;                 // text, pair, text, pair, ...
  std::vector<std::size_t> ends_;     // where each of them ends
  std::vector<std::int64_t> lines_;   // of each record
  std::vector<std::int32_t> labels_;  // of each record
  std::vector<LabelName> label_names_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> label_indices_;
};

struct DataSet {
  Records records;
  RecordReport report;
};

/// Reads a whole file. Throws what RecordReader throws.
DataSet read_records(const std::filesystem::path& path, RecordOptions options = {});
/// Reads a whole stream.
DataSet read_records(std::istream& stream, const std::string& name, RecordOptions options = {});

}  // namespace lathe
