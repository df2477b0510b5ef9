#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "lathe/runtime/error.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "tools/commands.h"
#include "tools/setup.h"

namespace lathe {
namespace {

/// A line of output at a time, each passed on before the next is made.
class LineOutput {
 public:
  explicit LineOutput(const std::optional<std::filesystem::path>& path) : path_(path.value_or("standard output")) {
    if (!path) return;
    file_.reset(std::fopen(path->c_str(), "wbe"));
    if (!file_) throw FileError(*path, fmt::format("cannot be written: {}", std::strerror(errno)));
  }
  /// False where the reader has gone away.
  bool write(const std::string& line) {
    std::FILE* file = file_ ? file_.get() : stdout;
    if (std::fwrite(line.data(), 1, line.size(), file) == line.size() && std::fflush(file) == 0) return true;
    if (errno == EPIPE) return false;
    throw FileError(path_, fmt::format("cannot be written: {}", std::strerror(errno)));
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

std::string prediction(std::int64_t line, std::span<const float> probabilities, const LabelSet& labels) {
  const auto best = static_cast<std::size_t>(predicted_class(probabilities));
  nlohmann::ordered_json json = {
      {"line", line}, {"label", labels.name(static_cast<std::int32_t>(best))}, {"score", probabilities[best]}};
  for (std::size_t c = 0; c < probabilities.size(); ++c)
    json["scores"][labels.name(static_cast<std::int32_t>(c))] = probabilities[c];
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

int predict_command(const PredictOptions& options) {
  ResolvedReading reading = resolve(options.reading, options.running, read_run_defaults(options.model));
  reading.records.labels = LabelUse::optional;
  const DeviceChoice device = choose_device(options.running);
  const bool streaming = options.data == "-";
  std::ios::sync_with_stdio(false);  // else standard input is read a byte at a time
  RecordReader reader =
      streaming ? RecordReader(std::cin, "standard input", reading.records) : RecordReader(options.data, reading.records);
  const auto classifier = load_for_inference(options.model, device.device);
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);
  LineOutput output(options.output);
  // A reader that goes away is an error of write(), not a signal.
  std::signal(SIGPIPE, SIG_IGN);

  const auto classes = static_cast<std::size_t>(classifier->labels().size());
  Records records(streaming ? "standard input" : options.data);
  Record record;
  while (reader.next(record)) {
    // What is typed is answered at once; what is there already is taken a batch at a time.
    records.clear();
    do {
      records.append(record);
    } while (records.size() < reading.batch_size && reader.is_ready() && reader.next(record));
    const EncodedTexts encoded = tokenize(*classifier, records, reading.kind(), max_length, device.threads);
    const std::vector<float> probabilities = predict_probabilities(*classifier, encoded.samples, reading.batch_size);
    for (std::int64_t i = 0; i < records.size(); ++i) {
      const auto row = std::span(probabilities).subspan(static_cast<std::size_t>(i) * classes, classes);
      if (!output.write(prediction(records.line(i), row, classifier->labels()))) return 0;
    }
  }
  return 0;
}

}  // namespace lathe
