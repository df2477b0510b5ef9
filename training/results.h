#pragma once
// What a run leaves to be read by programs: results.json and metrics.jsonl.
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>

#include "lathe/training/finetune.h"
#include "lathe/training/metrics.h"
#include "lathe/training/pretrain.h"

namespace [[gnu::visibility("default")]] lathe {

/// Where a run was computed, and in what.
struct RunPlace {
  std::string device = "cpu";  ///< "cpu", "NVIDIA H200", "emulated sm_80 on the CPU, ..."
  std::string precision = "fp32";
  std::optional<std::int64_t> peak_gpu_memory_bytes{};   ///< the most that tensors had of a GPU's memory, where one computed
  std::optional<std::int64_t> estimated_memory_bytes{};  ///< that tensors would have at most, as was said before the first step
  int ranks = 1;                                         ///< processes that trained together
  std::string transport{};                               ///< who moved what between them: "Open MPI v4.1.4"
};

/// The contents of results.json.
struct RunResults {
  std::vector<std::string> labels;
  std::optional<ClassificationMetrics> dev;
  std::optional<ClassificationMetrics> test;
  FinetuneResult train;
  std::int64_t peak_memory_bytes = 0;
  RunPlace place{};
};

/// One object: loss, accuracy, samples, for two classes precision, recall and f1 of the positive one, else macro and weighted; then scores
/// per class and the confusion matrix; and `device`, unless that is the CPU, so that what was emulated says so.
std::string metrics_to_json(const ClassificationMetrics& metrics, std::span<const std::string> labels, const RunPlace& place);

/// Writes results.json into `folder`, atomically.
void write_results(const std::filesystem::path& folder, const RunResults& results);
/// The same of pre-training: the last evaluation and the training.
void write_results(const std::filesystem::path& folder, const PretrainResult& result, std::int64_t peak_memory_bytes,
                   const RunPlace& place = {});

/// The most memory that this process has held, in bytes.
std::int64_t peak_memory_bytes();

/// Appends to metrics.jsonl a line a logged step and a line an evaluation, each on the disk's way when the call returns.
class MetricsLog {
 public:
  /// Begins `folder`/metrics.jsonl anew. Throws FileError.
  explicit MetricsLog(const std::filesystem::path& folder);
  void write(const StepLog& log);
  void write(const EvaluationLog& log, std::string_view split, std::span<const std::string> labels);
  void write(const MaskedLmEvaluation& log, std::string_view split);

 private:
  void write_line(const std::string& line);
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace lathe
