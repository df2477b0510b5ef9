#pragma once
// From options to what a command works with: the device, reading options, data.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "lathe/runtime/device.h"
#include "lathe/text/records.h"
#include "lathe/training/classifier.h"
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
  CpuTarget target = CpuTarget::v3;
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
  std::optional<std::string> positive_label;
};
RunDefaults read_run_defaults(const std::filesystem::path& model);

/// Fills what wasn't given from the run, else from the defaults.
struct ResolvedReading {
  RecordOptions records;
  /// Tokens a text is cut to, where the call or the run says so.
  std::optional<std::int32_t> max_length;
  std::int32_t batch_size = 32;
  TextKind kind() const { return records.pair_column.empty() ? TextKind::single : TextKind::pair; }
};
ResolvedReading resolve(const ReadingOptions& reading, const RunningOptions& running, const RunDefaults& run);

/// `max_length` where it is given, else `otherwise` or, of models that have fewer, all positions. Throws UsageError where the model has fewer
/// positions than were asked for.
std::int32_t length_for(const BertConfig& config, const std::optional<std::int32_t>& max_length, std::int64_t otherwise = 128);

/// Loads a model that must have a classification head already; of its two classes the one called `positive_label` (empty: id 1) is the
/// positive one. Throws MismatchError where it has no head.
std::unique_ptr<Classifier> load_for_inference(const std::filesystem::path& model, const DeviceRef& device,
                                               const std::string& positive_label = "");

/// Prints on standard error how many tokens texts have, how many of the texts were cut, and how many tokens are unknown.
void print_tokens(const std::string& name, const EncodedTexts& encoded, std::int32_t max_length);

/// Prints warnings and the columns of a data set on standard error.
void print_reading(const std::string& name, const RecordReport& report);

}  // namespace lathe
