#include "lathe/training/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

double ratio(double numerator, double denominator) { return denominator == 0.0 ? 0.0 : numerator / denominator; }

ClassScores scores_of(std::int64_t true_positives, std::int64_t predicted, std::int64_t actual) {
  const auto hits = static_cast<double>(true_positives);
  return {.precision = ratio(hits, static_cast<double>(predicted)),
          .recall = ratio(hits, static_cast<double>(actual)),
          .f1 = ratio(2.0 * hits, static_cast<double>(predicted + actual))};
}

void accumulate(ClassScores& sum, const ClassScores& scores, double weight) {
  sum.precision += weight * scores.precision;
  sum.recall += weight * scores.recall;
  sum.f1 += weight * scores.f1;
}

/// Columns that characters beyond ASCII take aren't known here: continuation bytes don't count, which is right for most scripts.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string padded(std::string_view text, std::size_t columns) {
  std::string result(text);
  result.append(columns > width(text) ? columns - width(text) : 0, ' ');
  return result;
}

/// Keeps the most confident of the errors it is shown, in as much memory.
class ErrorList {
 public:
  void add(const ConfidentError& error) {
    const auto before = [](const ConfidentError& a, const ConfidentError& b) {
      return a.probability != b.probability ? a.probability > b.probability : a.sample < b.sample;
    };
    errors_.insert(std::upper_bound(errors_.begin(), errors_.end(), error, before), error);
    if (errors_.size() > kMost) errors_.pop_back();
  }
  std::vector<ConfidentError> take() { return std::move(errors_); }

 private:
  static constexpr std::size_t kMost = 20;
  std::vector<ConfidentError> errors_;
};

}  // namespace

std::int32_t predicted_class(std::span<const float> row) {
  return static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

ClassificationMetrics classification_metrics(std::span<const float> probabilities, std::span<const std::int32_t> labels,
                                             std::int32_t classes, double loss) {
  const auto count = static_cast<std::size_t>(classes);
  if (probabilities.size() != labels.size() * count) {
    throw LogicError(
        fmt::format("{} probabilities don't fit {} samples of {} classes", probabilities.size(), labels.size(), classes));
  }
  ClassificationMetrics metrics;
  metrics.samples = static_cast<std::int64_t>(labels.size());
  metrics.loss = loss;
  metrics.support.resize(count);
  metrics.confusion.resize(count * count);
  std::vector<std::int64_t> predicted(count);
  std::int64_t correct = 0;
  ErrorList errors;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto actual = static_cast<std::size_t>(labels[i]);
    const auto row = probabilities.subspan(i * count, count);
    const std::int32_t predicted_label = predicted_class(row);
    const auto guess = static_cast<std::size_t>(predicted_label);
    ++metrics.support[actual];
    ++predicted[guess];
    ++metrics.confusion[actual * count + guess];
    correct += actual == guess ? 1 : 0;
    if (actual != guess)
      errors.add(
          {.sample = static_cast<std::int64_t>(i), .label = labels[i], .predicted = predicted_label, .probability = row[guess]});
  }
  metrics.errors = errors.take();
  metrics.accuracy = ratio(static_cast<double>(correct), static_cast<double>(labels.size()));
  for (std::size_t c = 0; c < count; ++c) {
    metrics.classes.push_back(scores_of(metrics.confusion[c * count + c], predicted[c], metrics.support[c]));
    accumulate(metrics.macro, metrics.classes.back(), 1.0 / static_cast<double>(count));
    accumulate(metrics.weighted, metrics.classes.back(),
               ratio(static_cast<double>(metrics.support[c]), static_cast<double>(labels.size())));
  }
  return metrics;
}

std::string format_report(const ClassificationMetrics& metrics, std::span<const std::string> labels) {
  std::vector<std::string> names;
  std::transform(labels.begin(), labels.end(), std::back_inserter(names),
                 [](const std::string& name) { return printable(name); });
  std::size_t columns = width("weighted mean");
  for (const std::string& name : names) columns = std::max(columns, width(name) + (metrics.binary() ? width(" (positive)") : 0));
  fmt::memory_buffer text;
  auto out = std::back_inserter(text);
  fmt::format_to(out, "{} samples: loss {:.4f}, accuracy {:.4f}", metrics.samples, metrics.loss, metrics.accuracy);
  if (metrics.binary()) {
    fmt::format_to(out, ", precision {:.4f}, recall {:.4f}, F1 {:.4f} of the positive class \"{}\"", metrics.positive().precision,
                   metrics.positive().recall, metrics.positive().f1, names[static_cast<std::size_t>(metrics.positive_class)]);
  }
  fmt::format_to(out, "\n\n{}  precision  recall      F1  samples\n", padded("class", columns));
  const auto row = [&](const std::string& name, const ClassScores& s, std::int64_t support) {
    fmt::format_to(out, "{}     {:.4f}  {:.4f}  {:.4f}  {:>7}\n", padded(name, columns), s.precision, s.recall, s.f1, support);
  };
  for (std::size_t c = 0; c < names.size(); ++c)
    row(metrics.binary() && c == static_cast<std::size_t>(metrics.positive_class) ? names[c] + " (positive)" : names[c],
        metrics.classes[c], metrics.support[c]);
  row("macro mean", metrics.macro, metrics.samples);
  row("weighted mean", metrics.weighted, metrics.samples);
  // A matrix that no terminal is wide enough for says nothing: results.json has it.
  constexpr std::size_t kWidestMatrix = 12;
  if (names.size() <= kWidestMatrix) {
    fmt::format_to(out, "\n{}  predicted\n", padded("true class", columns));
    fmt::format_to(out, "{}", padded("", columns));
    for (const std::string& name : names) fmt::format_to(out, "  {}", padded(name, 7));
    fmt::format_to(out, "\n");
    for (std::size_t c = 0; c < names.size(); ++c) {
      fmt::format_to(out, "{}", padded(names[c], columns));
      for (std::size_t p = 0; p < names.size(); ++p)
        fmt::format_to(out, "  {:>{}}", metrics.confusion[c * names.size() + p], std::max<std::size_t>(7, width(names[p])));
      fmt::format_to(out, "\n");
    }
  }
  return fmt::to_string(text);
}

}  // namespace lathe
