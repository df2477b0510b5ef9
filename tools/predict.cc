#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/output_folder.h"
#include "tools/commands.h"
#include "tools/line_output.h"
#include "tools/setup.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

std::string prediction(std::int64_t line, std::span<const float> probabilities, const LabelSet& labels) {
  const auto best = static_cast<std::size_t>(predicted_class(probabilities));
  nlohmann::ordered_json json = {
      {"line", line}, {"label", labels.name(static_cast<std::int32_t>(best))}, {"score", probabilities[best]}};
  for (std::size_t c = 0; c < probabilities.size(); ++c)
    json["scores"][labels.name(static_cast<std::int32_t>(c))] = probabilities[c];
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

/// Refuses to write over what is read.
void check_output(const PredictOptions& options, const std::filesystem::path& model) {
  if (!options.output) return;
  const auto refuse_if = [&](const std::filesystem::path& input, std::string_view what) {
    std::error_code absent;
    if (std::filesystem::equivalent(input, *options.output, absent))
      throw UsageError(fmt::format("--output {} is {}; choose another file", options.output->string(), what));
  };
  refuse_if(options.data, "the data file");
  for (const std::string_view name : run_file_names()) refuse_if(model / name, "a file of the model");
}

/// What may explain an odd prediction, at the end: standard output stays what was asked for.
void print_doubts(const RecordReport& report, std::int64_t truncated, std::int32_t max_length) {
  const auto warn = [&](std::int64_t count, const std::string& what) {
    if (count > 0) print_warning(fmt::format("{} of {} texts {}", count, report.records, what));
  };
  warn(truncated, fmt::format("cut to {} tokens", max_length));
  warn(report.empty_texts, fmt::format("empty, first in line {}", report.first_empty_text));
  warn(report.invalid_utf8,
       fmt::format("not valid UTF-8, first in line {}; such bytes are read as U+FFFD", report.first_invalid_utf8));
}

}  // namespace

int predict_command(const PredictOptions& options) {
  const std::filesystem::path model = find_model(options.model, hub_cache_folder());
  check_output(options, model);
  ResolvedReading reading = resolve(options.reading, options.running, read_run_defaults(model));
  reading.records.labels = LabelUse::optional;
  const DeviceChoice device = choose_device(options.running);
  print_device(device);
  const bool streaming = options.data == "-";
  // A command before this one in a pipe may have had nothing to say; a file that is named should hold something.
  reading.records.empty = streaming ? EmptyInput::accepted : EmptyInput::refused;
  std::ios::sync_with_stdio(false);  // else standard input is read a byte at a time
  RecordReader reader =
      streaming ? RecordReader(std::cin, "standard input", reading.records) : RecordReader(options.data, reading.records);
  const auto classifier = load_for_inference(model, device);
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);

  const auto classes = static_cast<std::size_t>(classifier->labels().size());
  Records records(streaming ? "standard input" : options.data);
  Record record;
  std::int64_t truncated = 0;
  bool more = reader.next(record);
  // Only now: a call that can't be answered leaves a file that is there as it is.
  LineOutput output(options.output);
  for (; more; more = reader.next(record)) {
    // What is typed is answered at once; what is there already is taken a batch at a time.
    records.clear();
    do {
      records.append(record);
    } while (records.size() < reading.batch_size && reader.is_ready() && reader.next(record));
    const TokenizedTexts encoded = tokenize(*classifier, records, reading.kind(), max_length, device.threads);
    truncated += encoded.truncated;
    const std::vector<float> probabilities = predict_probabilities(*classifier, encoded.samples, reading.batch_size);
    for (std::int64_t i = 0; i < records.size(); ++i) {
      const auto row = std::span(probabilities).subspan(static_cast<std::size_t>(i) * classes, classes);
      if (!output.write(prediction(records.line(i), row, classifier->labels()))) return 0;
    }
  }
  print_doubts(reader.report(), truncated, max_length);
  return 0;
}

}  // namespace lathe
