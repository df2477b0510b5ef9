#pragma once
// curves.svg and report.html: what a run leaves for people.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lathe/training/curves.h"
#include "lathe/training/finetune.h"
#include "lathe/training/pretrain.h"
#include "lathe/training/results.h"
#include "tools/run_file.h"

namespace lathe {

/// Where the texts of a split's samples are.
struct SplitTexts {
  const Records* records = nullptr;   ///< null where there is no such split
  std::vector<std::int64_t> members;  ///< the record of each sample; empty where sample i is record i
};

/// Points for the curves, collected as they are logged: two lists of a few bytes a line.
void collect(Curves& curves, const StepLog& log);
void collect(Curves& curves, const EvaluationLog& log);
void collect(Curves& curves, const MaskedLmEvaluation& log);

/// Writes curves.svg into `folder`, atomically.
void write_curves(const std::filesystem::path& folder, const Curves& curves);

/// Writes both files into `folder`, each atomically. The wrong rows are the dev split's, or without one the test split's.
void write_pictures(const std::filesystem::path& folder, const RunResults& results, const Curves& curves, const SplitTexts& dev,
                    const SplitTexts& test, std::span<const RunSection> settings);

}  // namespace lathe
