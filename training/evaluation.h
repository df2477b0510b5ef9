#pragma once
// Running a classifier without training it.
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lathe/runtime/communicator.h"
#include "lathe/text/packing.h"
#include "lathe/training/classifier.h"
#include "lathe/training/metrics.h"

namespace [[gnu::visibility("default")]] lathe {

/// Probabilities of all samples, [samples x classes], `batch_size` samples at a time, in their order.
std::vector<float> predict_probabilities(const Classifier& classifier, const TokenizedSamples& samples, std::int32_t batch_size);

/// Metrics over labelled samples. Loss is the mean of -log p[label], in fp64 from fp32 logits.
ClassificationMetrics evaluate(const Classifier& classifier, const TokenizedSamples& samples,
                               std::span<const std::int32_t> labels, std::int32_t batch_size);

/// The same, but given up, with nothing to show, after the batch during which `stop`, where given, becomes non-zero. With a `communicator` all
/// ranks call it, share the batches, and have the same metrics; one rank that is told to stop ends it for all.
std::optional<ClassificationMetrics> evaluate_until(const std::atomic<int>* stop, const Classifier& classifier,
                                                    const TokenizedSamples& samples, std::span<const std::int32_t> labels,
                                                    std::int32_t batch_size, Communicator* communicator = nullptr);

}  // namespace lathe
