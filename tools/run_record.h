#pragma once
// What run.toml says of a run, so that it can be had again.
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lathe/text/wordpiece.h"
#include "lathe/training/training_loop.h"
#include "tools/options.h"
#include "tools/run_file.h"
#include "tools/setup.h"
#include "tools/training_setup.h"

namespace lathe {

/// Absolute, and without "." and "..".
std::string full_path(const std::filesystem::path& path);

/// Appends the settings of training, all resolved, as --config reads them again.
void append_training_settings(RunSection& run, const TrainingOptions& options, const DevSplit& dev, const DeviceChoice& device);

/// What was chosen for a run, and why.
RunSection chosen_section(const DeviceChoice& device, const TrainingSteps& steps, const Ranks& ranks);

/// What a run reads, with hashes of the contents: `files`, the tokenizer's, and where there is a `model`, its configuration and weights.
RunSection inputs_section(std::vector<std::filesystem::path> files, const std::filesystem::path* model,
                          const WordPieceTokenizer& tokenizer);

/// What all ranks of a run must have in common, a line each: settings, what was chosen, and what the inputs hold, wherever they lie on each host.
std::string common_facts(std::span<const RunSection> sections);

/// Of a replay on `device`: says what isn't as it was in the run whose settings these are.
void warn_of_changes(const std::filesystem::path& config, const RunSection& inputs, const DeviceChoice& device);

}  // namespace lathe
