#pragma once
// How well a classifier does, as scikit-learn counts it.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// Precision tp / (tp + fp), recall tp / (tp + fn), F1 their harmonic mean; each 0 where its denominator is.
struct ClassScores {
  double precision = 0.0;
  double recall = 0.0;
  double f1 = 0.0;
};

/// A sample that got another class than its own.
struct ConfidentError {
  std::int64_t sample = 0;
  std::int32_t label = 0;
  std::int32_t predicted = 0;
  float probability = 0.0F;  ///< of the predicted class
};

struct ClassificationMetrics {
  std::int64_t samples = 0;
  double loss = 0.0;  ///< mean cross-entropy
  double accuracy = 0.0;
  std::vector<std::int64_t> support;    ///< samples of each class
  std::vector<ClassScores> classes;     ///< of each class
  std::vector<std::int64_t> confusion;  ///< [classes x classes], true class by rows, predicted by columns
  ClassScores macro;                    ///< mean over classes
  ClassScores weighted;                 ///< mean over classes, weighted by support
  std::vector<ConfidentError> errors;   ///< at most 20, the highest probability first, of equal ones the first sample
  std::int32_t positive_class = 1;      ///< of two classes the one that positive() is of
  /// For two classes the scores of the positive one.
  const ClassScores& positive() const { return classes.at(static_cast<std::size_t>(positive_class)); }
  bool binary() const { return classes.size() == 2; }
};

/// `probabilities` is [samples x classes]; the predicted class is the first of the largest. `labels` are class ids. The mean over macro and
/// weighted takes all classes, with or without samples.
ClassificationMetrics classification_metrics(std::span<const float> probabilities, std::span<const std::int32_t> labels,
                                             std::int32_t classes, double loss);

/// The first of the largest of `row`.
std::int32_t predicted_class(std::span<const float> row);

/// A table for people: loss, accuracy, scores per class, averages, confusion matrix. Ends with a line end.
std::string format_report(const ClassificationMetrics& metrics, std::span<const std::string> labels);

}  // namespace lathe
