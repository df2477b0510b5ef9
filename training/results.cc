#include "lathe/training/results.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;

Json scores_json(const ClassScores& scores) {
  return {{"precision", scores.precision}, {"recall", scores.recall}, {"f1", scores.f1}};
}

Json metrics_json(const ClassificationMetrics& metrics, std::span<const std::string> labels) {
  Json json = {{"samples", metrics.samples}, {"loss", metrics.loss}, {"accuracy", metrics.accuracy}};
  if (metrics.binary()) {
    json["positive_label"] = labels[static_cast<std::size_t>(metrics.positive_class)];
    json.update(scores_json(metrics.positive()));
  }
  json["macro"] = scores_json(metrics.macro);
  json["weighted"] = scores_json(metrics.weighted);
  for (std::size_t c = 0; c < labels.size(); ++c) {
    Json scores = {{"label", labels[c]}, {"support", metrics.support[c]}};
    scores.update(scores_json(metrics.classes[c]));
    json["classes"].push_back(scores);
    const auto row = metrics.confusion.begin() + static_cast<std::ptrdiff_t>(c * labels.size());
    json["confusion"].push_back(Json(std::vector<std::int64_t>(row, row + static_cast<std::ptrdiff_t>(labels.size()))));
  }
  return json;
}

/// What steps' time went to; with several ranks also how unlike their work was.
Json parts_json(const StepSeconds& seconds) {
  return {{"data", seconds.data},
          {"compute", seconds.compute},
          {"communication", seconds.communication},
          {"optimizer", seconds.optimizer},
          {"other", seconds.other}};
}

Json training_json(const TrainingResult& train, std::int64_t peak_memory_bytes, const RunPlace& place) {
  Json json = {{"steps", train.steps},
               {"total_steps", train.total_steps},
               {"epochs", train.epochs},
               {"seconds", train.seconds},
               {"tokens", train.tokens},
               {"tokens_per_second", train.seconds > 0.0 ? static_cast<double>(train.tokens) / train.seconds : 0.0},
               {"peak_memory_bytes", peak_memory_bytes},
               {"skipped_steps", train.skipped_steps},
               {"seconds_by_part", parts_json(train.parts)},
               {"device", place.device},
               {"precision", place.precision}};
  if (train.parts.ranks > 1) json["imbalance"] = train.parts.imbalance();
  if (place.peak_gpu_memory_bytes) json["peak_gpu_memory_bytes"] = *place.peak_gpu_memory_bytes;
  if (place.estimated_memory_bytes) json["estimated_memory_bytes"] = *place.estimated_memory_bytes;
  if (place.ranks > 1) {
    json["ranks"] = place.ranks;
    json["transport"] = place.transport;
  }
  return json;
}

Json score_json(const MaskedLmScore& score) {
  return {{"masked_tokens", score.tokens}, {"loss", score.loss}, {"perplexity", score.perplexity()}};
}

/// Labels come from data that may not be UTF-8, which JSON must be: such bytes become U+FFFD.
std::string text_of(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::string metrics_to_json(const ClassificationMetrics& metrics, std::span<const std::string> labels, const RunPlace& place) {
  Json json = metrics_json(metrics, labels);
  if (place.device != "cpu") json["device"] = place.device;
  return text_of(json, 2);
}

void write_results(const std::filesystem::path& folder, const RunResults& results) {
  const FinetuneResult& train = results.train;
  Json json;
  json["dev"] = results.dev ? metrics_json(*results.dev, results.labels) : Json(nullptr);
  json["test"] = results.test ? metrics_json(*results.test, results.labels) : Json(nullptr);
  json["train"] = training_json(train, results.peak_memory_bytes, results.place);
  if (train.best) json["best"] = {{"step", train.best->step}, {"epoch", train.best->epoch}};
  json["labels"] = results.labels;
  json["interrupted"] = train.interrupted;
  write_file_atomically(folder / "results.json", text_of(json, 2) + "\n");
}

void write_results(const std::filesystem::path& folder, const PretrainResult& result, std::int64_t peak_memory_bytes,
                   const RunPlace& place) {
  Json json;
  json["dev"] = result.dev ? score_json(result.dev->score) : Json(nullptr);
  json["train"] = training_json(result, peak_memory_bytes, place);
  json["interrupted"] = result.interrupted;
  write_file_atomically(folder / "results.json", text_of(json, 2) + "\n");
}

std::int64_t peak_memory_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

MetricsLog::MetricsLog(const std::filesystem::path& folder)
    : path_(folder / "metrics.jsonl"), file_(path_, std::ios::binary | std::ios::trunc) {
  if (!file_) throw FileError(path_, fmt::format("cannot be written: {}", std::strerror(errno)));
}

void MetricsLog::write_line(const std::string& line) {
  file_ << line << '\n' << std::flush;
  if (!file_) throw FileError(path_, fmt::format("cannot be written: {}", std::strerror(errno)));
}

void MetricsLog::write(const StepLog& log) {
  Json json = {{"step", log.step},
               {"epoch", log.epoch},
               {"loss", log.loss},
               {"lr", log.learning_rate},
               {"grad_norm", log.gradient_norm},
               {"tokens", log.tokens},
               {"tokens_per_second", log.tokens_per_second},
               {"seconds", parts_json(log.seconds)}};
  if (log.seconds.ranks > 1) json["imbalance"] = log.seconds.imbalance();
  write_line(text_of(json, -1));
}

void MetricsLog::write(const EvaluationLog& log, std::string_view split, std::span<const std::string> labels) {
  write_line(
      text_of({{"step", log.step}, {"epoch", log.epoch}, {"split", split}, {"metrics", metrics_json(log.metrics, labels)}}, -1));
}

void MetricsLog::write(const MaskedLmEvaluation& log, std::string_view split) {
  write_line(text_of({{"step", log.step}, {"epoch", log.epoch}, {"split", split}, {"metrics", score_json(log.score)}}, -1));
}

}  // namespace lathe
