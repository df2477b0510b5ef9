#include "lathe/training/evaluation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "lathe/runtime/graph.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/upload.h"

namespace lathe {
namespace {

/// Some of all samples, one after the other.
struct SampleRange {
  std::int64_t begin = 0, end = 0;
};

/// A rank's share of the batches.
SampleRange share(std::int64_t samples, std::int64_t batch_size, const Communicator* communicator) {
  if (communicator == nullptr) return {.begin = 0, .end = samples};
  const Share mine = share_of(samples, batch_size, communicator->rank(), communicator->size());
  return {.begin = mine.begin, .end = mine.begin + mine.count};
}

/// Calls visit(first sample, logits of a batch [n x classes]) for the samples of a range in order. False where `stop` (may be null) ended it
/// early.
template <class Visit>
bool for_each_batch(const Classifier& classifier, const TokenizedSamples& samples, SampleRange range, std::int32_t batch_size,
                    const std::atomic<int>* stop, Communicator* communicator, Visit visit) {
  PackedBatch packed;
  std::vector<std::int32_t> members;
  std::vector<float> logits;
  const std::int64_t classes = classifier.model().classes();
  for (std::int64_t first = range.begin; first < range.end; first += batch_size) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed) != 0) return false;
    if (communicator != nullptr) communicator->working("evaluating");
    members.resize(static_cast<std::size_t>(std::min<std::int64_t>(batch_size, range.end - first)));
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
  const SampleRange all{.begin = 0, .end = samples.count()};
  for_each_batch(classifier, samples, all, batch_size, nullptr, nullptr, [&](std::int64_t first, std::span<const float> logits) {
    for (std::size_t at = 0; at < logits.size(); at += classes) {
      softmax(logits.subspan(at, classes),
              std::span(probabilities).subspan(static_cast<std::size_t>(first) * classes + at, classes));
    }
  });
  return probabilities;
}

std::optional<ClassificationMetrics> evaluate_until(const std::atomic<int>* stop, const Classifier& classifier,
                                                    const TokenizedSamples& samples, std::span<const std::int32_t> labels,
                                                    std::int32_t batch_size, Communicator* communicator) {
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
  const SampleRange mine = share(samples.count(), batch_size, communicator);
  const bool done = for_each_batch(classifier, samples, mine, batch_size, stop, communicator, add_batch);
  std::array<double, 2> sums = {loss, done ? 0.0 : 1.0};
  sum_over_ranks(communicator, sums);
  if (sums[1] > 0.0) return std::nullopt;
  if (communicator != nullptr) {
    const auto part = std::as_bytes(
        std::span(probabilities)
            .subspan(static_cast<std::size_t>(mine.begin) * classes, static_cast<std::size_t>(mine.end - mine.begin) * classes));
    auto* to = reinterpret_cast<char*>(probabilities.data());
    for (const std::string& of_rank : communicator->gather({reinterpret_cast<const char*>(part.data()), part.size()}))
      to = std::ranges::copy(of_rank, to).out;
  }
  const double mean = samples.count() == 0 ? 0.0 : sums[0] / static_cast<double>(samples.count());
  ClassificationMetrics metrics = classification_metrics(probabilities, labels, static_cast<std::int32_t>(classes), mean);
  metrics.positive_class = classifier.labels().positive();
  return metrics;
}

ClassificationMetrics evaluate(const Classifier& classifier, const TokenizedSamples& samples,
                               std::span<const std::int32_t> labels, std::int32_t batch_size) {
  return *evaluate_until(nullptr, classifier, samples, labels, batch_size);
}

}  // namespace lathe
