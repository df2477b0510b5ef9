#pragma once
// From options to what a command works with: the device, reading options, data.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "lathe/runtime/device.h"
#include "lathe/text/records.h"
#include "lathe/training/dataset.h"
#include "tools/options.h"

namespace lathe {

/// The device that was chosen, and why, for people and for run.toml.
struct DeviceChoice {
  DeviceRef device;
  std::string name;  ///< "cpu"
  std::string device_reason;
  int threads = 1;
  std::string threads_reason;
  std::string instruction_set;  ///< "x86-64-v4 (AVX-512)"
  std::string precision = "fp32";
  std::string precision_reason;
};
DeviceChoice choose_device(const RunningOptions& options);

/// "cpu, 2 threads (2 physical cores in the affinity mask), x86-64-v4 (AVX-512), products by oneDNN 2.6.3, fp32".
std::string describe(const DeviceChoice& choice);

/// What finetune used, as the run.toml of a model's folder has it; empty options where there is none. Throws FormatError.
struct RunDefaults {
  ReadingOptions reading;
  std::optional<std::int32_t> max_length, batch_size;
};
RunDefaults read_run_defaults(const std::filesystem::path& model);

/// Fills what wasn't given from the run, else from the defaults.
struct ResolvedReading {
  RecordOptions records;
  std::int32_t max_length = 128;
  std::int32_t batch_size = 32;
  TextKind kind() const { return records.pair_column.empty() ? TextKind::single : TextKind::pair; }
};
ResolvedReading resolve(const ReadingOptions& reading, const RunningOptions& running, const RunDefaults& run);

/// Prints warnings and the columns of a data set on standard error.
void print_reading(const std::string& name, const RecordReport& report);

}  // namespace lathe
