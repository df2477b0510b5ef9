#pragma once
// From options to a training run, and what is said at its end: the same for every command that trains.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lathe/training/memory_estimate.h"
#include "lathe/training/model_weights.h"
#include "lathe/training/results.h"
#include "lathe/training/training_loop.h"
#include "tools/options.h"
#include "tools/rank_verdict.h"
#include "tools/setup.h"

namespace lathe {

/// --dev: a share of the training data, or a file. A number is a share; a file of that name is "./0.1".
struct DevSplit {
  std::optional<double> share;
  std::optional<std::filesystem::path> file;
};
/// Throws UsageError for a share that isn't between 0 and 1.
DevSplit parse_dev(const std::optional<std::string>& dev);

/// The settings that `options` ask for. Throws UsageError for --warmup.
TrainingSettings training_settings(const TrainingOptions& options);

/// Takes --product-table for the device. Throws UsageError for options of a GPU's products where the device is the CPU, FileError and, for what
/// isn't this GPU's table, FormatError.
void choose_products(const TrainingOptions& options, const DeviceChoice& device);
/// What --tune leaves in a run's folder.
inline constexpr const char* kProductTable = "products.jsonl";
void write_product_table(const std::filesystem::path& output, const std::string& table);

/// How long ranks wait for each other.
WatchTimeouts watch_timeouts(const TrainingOptions& options);

/// Refuses what can be read but once, such as a pipe: an input is read for its rows and again for its hash.
void check_readable_twice(std::string_view command, std::span<const std::filesystem::path> inputs);

/// Refuses weights of `model` that aren't numbers, unless they are allowed.
void check_finite(const LoadReport& report, const std::filesystem::path& model, const TrainingOptions& options);

/// What a run will take of its device's memory, and what is free.
void print_memory(const MemoryEstimate& estimate, const Device& device);

/// What a run took.
void print_training(const TrainingResult& result, std::int64_t peak_memory_bytes, const RunPlace& place);

}  // namespace lathe
