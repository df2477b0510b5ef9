#pragma once
// From options to what a command works with: the device, reading options, data.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "lathe/runtime/device.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/records.h"
#include "lathe/training/classifier.h"
#include "lathe/training/dataset.h"
#include "lathe/training/results.h"
#include "tools/options.h"
#include "tools/ranks.h"

namespace lathe {

/// The device that was chosen, and why, for people and for run.toml.
struct DeviceChoice {
  DeviceRef device;
  std::string name;   ///< as --device takes it: "cpu", "cuda", "cuda:1", "emulated"
  std::string model;  ///< "cpu", "NVIDIA H200", "emulated sm_80 on the CPU, for tests: slow"
  std::string device_reason = "asked for";
  int threads = 1;
  std::string threads_reason = "asked for";
  std::string instruction_set;  ///< as --instruction-set takes it: "avx512" for one that was chosen, "auto" on a GPU
  std::string target;           ///< "x86-64-v4 (AVX-512)"; empty on a GPU
  std::string products;         ///< what multiplies matrices: "oneDNN 2.6.3"
  DType dtype = DType::f32;     ///< that the model computes in
  std::string precision;        ///< "fp32", "bf16"
  std::string precision_reason;
};
/// `auto` takes a GPU where this build has CUDA and there is one to use, else the CPU, and gives the reason; never an emulated one. Throws
/// UsageError where what is asked for isn't there.
DeviceChoice choose_device(const RunningOptions& options);
/// The same for one of several ranks: what wasn't asked for is what all have, and of several GPUs each takes its own. Throws what Ranks::gpu
/// throws.
DeviceChoice choose_device(const RunningOptions& options, const Ranks& ranks);

/// "cpu (no NVIDIA driver was found), 2 threads (2 physical cores in the affinity mask), x86-64-v4 (AVX-512), products by oneDNN 2.6.3, fp32
/// (what the CPU kernels have)"; "cuda, NVIDIA H200 (the first GPU), products by cuBLASLt 13.1.0, bf16 (with fp32 master weights); data by 16
/// threads (...)".
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

/// The same as results.json has it, with what the device's memory has held until now.
RunPlace place_of(const DeviceChoice& choice);
RunPlace place_of(const DeviceChoice& choice, const Ranks& ranks);

/// Says on standard error where an evaluation or a prediction runs, unless that is the CPU.
void print_device(const DeviceChoice& device);

/// Loads a model that must have a classification head already; of its two classes the one called `positive_label` (empty: id 1) is the
/// positive one. Throws MismatchError where it has no head.
std::unique_ptr<Classifier> load_for_inference(const std::filesystem::path& model, const DeviceChoice& device,
                                               const std::string& positive_label = "");

/// Prints on standard error how many tokens texts have, how many of the texts were cut, and how many tokens are unknown.
void print_tokens(const std::string& name, const TokenizedTexts& encoded, std::int32_t max_length);

/// Prints warnings and the columns of a data set on standard error.
void print_reading(const std::string& name, const RecordReport& report);

}  // namespace lathe
