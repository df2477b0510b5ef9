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
#include "tools/ranks.h"
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

/// Takes --product-table for the device, where this is the `first` rank, and gives what is in it. Throws UsageError for options of a GPU's
/// products where the device is the CPU, FileError and, for what isn't this GPU's table, FormatError.
std::string choose_products(const TrainingOptions& options, const DeviceChoice& device, bool first);
/// Gives the first rank's table to the devices of the others, behind an agree().
void take_products_of_first(const std::string& table, const DeviceChoice& device, Ranks& ranks);
/// What --tune leaves in a run's folder.
inline constexpr const char* kProductTable = "products.jsonl";
void write_product_table(const std::filesystem::path& output, const std::string& table);

/// What --profile leaves there.
inline constexpr const char* kTrace = "trace.json";
void write_trace(const std::filesystem::path& output, const std::string& chrome_trace);

/// How long ranks wait for each other.
WatchTimeouts watch_timeouts(const TrainingOptions& options);

/// Refuses what can be read but once, such as a pipe: an input is read for its rows and again for its hash.
void check_readable_twice(std::string_view command, std::span<const std::filesystem::path> inputs);

/// Refuses weights of `model` that aren't numbers, unless they are allowed.
void check_finite(const LoadReport& report, const std::filesystem::path& model, const TrainingOptions& options);

/// What a run will take of its device's memory, and what is free.
void print_memory(const MemoryEstimate& estimate, const Device& device);

/// "ranks: 2, compute 81.0 %, communication 12.0 % (of it 3.0 % waiting for the slowest rank), ...": a line.
std::string format_parts(const StepSeconds& seconds);

/// The most that any rank will take, which is said where there are several. All ranks call it, behind an agree().
MemoryEstimate most_memory(const MemoryEstimate& estimate, const Device& device, Ranks& ranks);

/// What a run took; of several ranks also what their time went to.
void print_training(const TrainingResult& result, std::int64_t peak_memory_bytes, const RunPlace& place);

}  // namespace lathe
