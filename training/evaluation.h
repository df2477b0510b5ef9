#pragma once
// Running a classifier without training it.
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lathe/text/packing.h"
#include "lathe/training/classifier.h"
#include "lathe/training/metrics.h"

namespace [[gnu::visibility("default")]] lathe {

/// Probabilities of all samples, [samples x classes], `batch_size` samples at a time, in their order. `progress`, where given, is called
/// after each batch with the samples done.
std::vector<float> predict_probabilities(const Classifier& classifier, const TokenizedSamples& samples, std::int32_t batch_size,
                                         const std::function<void(std::int64_t)>& progress = {});

/// Metrics over labelled samples. Loss is the mean of -log p[label], in fp64 from fp32 logits.
ClassificationMetrics evaluate(const Classifier& classifier, const TokenizedSamples& samples,
                               std::span<const std::int32_t> labels, std::int32_t batch_size,
                               const std::function<void(std::int64_t)>& progress = {});

}  // namespace lathe
