#include "lathe/training/evaluation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lathe/runtime/graph.h"
#include "lathe/training/upload.h"

namespace lathe {
namespace {

/// Calls visit(first sample, logits of a batch [n x classes]) for all samples in order. False where `stop` (may be null) ended it early.
template <class Visit>
bool for_each_batch(const Classifier& classifier, const TokenizedSamples& samples, std::int32_t batch_size,
                    const std::atomic<int>* stop, Visit visit) {
  PackedBatch packed;
  std::vector<std::int32_t> members;
  std::vector<float> logits;
  const std::int64_t classes = classifier.model().classes();
  for (std::int64_t first = 0; first < samples.count(); first += batch_size) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed) != 0) return false;
    members.resize(static_cast<std::size_t>(std::min<std::int64_t>(batch_size, samples.count() - first)));
    std::iota(members.begin(), members.end(), static_cast<std::int32_t>(first));
    pack_sequences(samples, members, {}, 0, packed);
    round_up(packed);
    const StepMemory memory(classifier.device());
    Tape tape(classifier.device(), Recording::off);
    const Batch batch = upload(classifier.device(), classifier.dtype(), packed, {});
    logits.resize(static_cast<std::size_t>(batch.rows() * classes));
    classifier.model().forward(tape, batch).copy_to_floats(logits);
    visit(first, std::span<const float>(logits).first(members.size() * static_cast<std::size_t>(classes)));
  }
  return true;
}

/// log(sum(exp(row))), in fp64.
double log_sum_exp(std::span<const float> row) {
  const double largest = *std::max_element(row.begin(), row.end());
  return largest +
         std::log(std::accumulate(row.begin(), row.end(), 0.0, [&](double sum, float x) { return sum + std::exp(x - largest); }));
}

void softmax(std::span<const float> logits, std::span<float> probabilities) {
  const double normaliser = log_sum_exp(logits);
  std::transform(logits.begin(), logits.end(), probabilities.begin(),
                 [&](float x) { return static_cast<float>(std::exp(x - normaliser)); });
}

}  // namespace

std::vector<float> predict_probabilities(const Classifier& classifier, const TokenizedSamples& samples, std::int32_t batch_size) {
  const auto classes = static_cast<std::size_t>(classifier.model().classes());
  std::vector<float> probabilities(static_cast<std::size_t>(samples.count()) * classes);
  for_each_batch(classifier, samples, batch_size, nullptr, [&](std::int64_t first, std::span<const float> logits) {
    for (std::size_t at = 0; at < logits.size(); at += classes) {
      softmax(logits.subspan(at, classes),
              std::span(probabilities).subspan(static_cast<std::size_t>(first) * classes + at, classes));
    }
  });
  return probabilities;
}

std::optional<ClassificationMetrics> evaluate_until(const std::atomic<int>* stop, const Classifier& classifier,
                                                    const TokenizedSamples& samples, std::span<const std::int32_t> labels,
                                                    std::int32_t batch_size) {
  const auto classes = static_cast<std::size_t>(classifier.model().classes());
  std::vector<float> probabilities(static_cast<std::size_t>(samples.count()) * classes);
  double loss = 0.0;
  const auto add_batch = [&](std::int64_t first, std::span<const float> logits) {
    auto sample = static_cast<std::size_t>(first);
    for (std::size_t at = 0; at < logits.size(); at += classes, ++sample) {
      const auto row = logits.subspan(at, classes);
      softmax(row, std::span(probabilities).subspan(sample * classes, classes));
      loss += log_sum_exp(row) - row[static_cast<std::size_t>(labels[sample])];
    }
  };
  if (!for_each_batch(classifier, samples, batch_size, stop, add_batch)) return std::nullopt;
  const double mean = samples.count() == 0 ? 0.0 : loss / static_cast<double>(samples.count());
  ClassificationMetrics metrics = classification_metrics(probabilities, labels, static_cast<std::int32_t>(classes), mean);
  metrics.positive_class = classifier.labels().positive();
  return metrics;
}

ClassificationMetrics evaluate(const Classifier& classifier, const TokenizedSamples& samples,
                               std::span<const std::int32_t> labels, std::int32_t batch_size) {
  return *evaluate_until(nullptr, classifier, samples, labels, batch_size);
}

}  // namespace lathe
