#include "tools/setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/matmul.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/quoted_list.h"
#include "tools/device_request.h"
#include "tools/run_file.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

/// The value of `setting`, which must be a T.
template <class T>
T as(const std::filesystem::path& file, const RunSetting& setting, std::string_view kind) {
  if (const T* value = std::get_if<T>(&setting.value)) return *value;
  throw FormatError(file, fmt::format("line {}", setting.line),
                    fmt::format("'{}' is {}; it must be {}", setting.key, to_text(setting.value), kind));
}

/// Why --device auto takes no GPU: an emulated one is none.
std::optional<std::string> why_no_gpu() {
  if (cuda_backend() == CudaBackend::emulated) return "this build emulates CUDA, which --device emulated runs";
  return Device::why_no_cuda({});
}

void use_cpu(DeviceChoice& choice, std::optional<CpuTarget> target) {
  choice.device = Device::cpu({.threads = choice.threads, .target = target, .reserved_bytes = 0});
  choice.name = "cpu";
  choice.model = choice.device->name();
  const CpuTarget chosen = choice.device->cpu_stream().target;
  choice.instruction_set = chosen == CpuTarget::v4 ? "avx512" : "avx2";
  choice.target = name(chosen);
  choice.products = choice.device->matrix_products();
}

void use_cuda(DeviceChoice& choice, int index) {
  const bool emulated = cuda_backend() == CudaBackend::emulated;
  choice.device = Device::cuda({.index = index, .limit_bytes = 0});
  choice.name = emulated ? "emulated" : index == 0 ? "cuda" : fmt::format("cuda:{}", index);
  choice.model = choice.device->name();
  if (emulated) choice.model += " on the CPU, for tests: slow";
  choice.instruction_set = "auto";
  choice.products = choice.device->matrix_products();
}

/// What a UsageError of `f` says; nothing where there is none.
template <class F>
std::optional<std::string> refusal_of(F f) {
  try {
    f();
  } catch (const UsageError& failure) {
    return failure.what();
  }
  return std::nullopt;
}

void choose_precision(DeviceChoice& choice, const std::string& asked) {
  const bool cpu = choice.device->kind() == DeviceKind::cpu;
  if (cpu && asked == "bf16") {
    throw UsageError(
        fmt::format("--precision bf16 needs a GPU, and this runs on the CPU ({}): use --precision fp32", choice.device_reason));
  }
  choice.dtype = cpu || asked == "fp32" ? DType::f32 : DType::bf16;
  choice.precision = choice.dtype == DType::f32 ? "fp32" : "bf16";
  choice.precision_reason = asked != "auto" ? "asked for" : cpu ? "what the CPU kernels have" : "with fp32 master weights";
}

/// `lowest` is the best instruction set that all ranks have, where they differ, and `gpu` gives the number of a rank's GPU from that of the first.
DeviceChoice choose(const RunningOptions& options, const ThreadChoice& threads, std::optional<CpuTarget> lowest,
                    const std::function<int(int)>& gpu) {
  const DeviceRequest request = parse_device(options.device);
  DeviceChoice choice;
  if (options.threads) {
    choice.threads = *options.threads;
  } else {
    choice.threads = threads.threads;
    choice.threads_reason = threads.reason;
  }
  std::optional<CpuTarget> target = lowest;
  if (options.instruction_set == "avx2") target = CpuTarget::v3;
  if (options.instruction_set == "avx512") target = CpuTarget::v4;
  if (request.place == DeviceRequest::Place::automatic) {
    std::optional<std::string> missing = why_no_gpu();
    const int index = missing ? 0 : gpu(0);
    if (!missing) missing = refusal_of([&] { use_cuda(choice, index); });
    if (missing) use_cpu(choice, target);
    choice.device_reason = missing.value_or(index == 0 ? "the first GPU" : "this rank's GPU");
  } else if (request.place == DeviceRequest::Place::cpu) {
    use_cpu(choice, target);
  } else {
    use_cuda(choice, gpu(request.index));
  }
  if (lowest && options.instruction_set == "auto" && !choice.target.empty()) choice.target += ", which all ranks have";
  choose_precision(choice, options.precision);
  return choice;
}

}  // namespace

DeviceChoice choose_device(const RunningOptions& options) {
  return choose(options, default_threads(), std::nullopt, [](int first) { return first; });
}

DeviceChoice choose_device(const RunningOptions& options, const Ranks& ranks) {
  return choose(options, ranks.threads(), ranks.lowest_target(), [&](int first) { return ranks.gpu(first); });
}

std::string describe(const DeviceChoice& choice) {
  const std::string threads =
      fmt::format("{} thread{} ({})", choice.threads, choice.threads == 1 ? "" : "s", choice.threads_reason);
  const std::string precision = fmt::format("{} ({})", choice.precision, choice.precision_reason);
  if (choice.device->kind() == DeviceKind::cpu) {
    return fmt::format("{} ({}), {}, {}, products by {}, {}", choice.name, choice.device_reason, threads, choice.target,
                       choice.products, precision);
  }
  return fmt::format("{}, {} ({}), products by {}, {}; data by {}", choice.name, choice.model, choice.device_reason,
                     choice.products, precision, threads);
}

RunDefaults read_run_defaults(const std::filesystem::path& model) {
  const std::filesystem::path file = model / "run.toml";
  RunDefaults defaults;
  if (std::error_code ignored; !std::filesystem::exists(file, ignored)) return defaults;
  for (const RunSetting& setting : read_run_file(file)) {
    if (setting.section != "finetune") continue;
    const auto text = [&] {
      auto value = as<std::string>(file, setting, "text");
      return value.empty() ? std::nullopt : std::optional(std::move(value));
    };
    const auto integer = [&](std::int64_t least) {
      constexpr std::int64_t kMost = 1 << 20;  // as the command line has it
      const auto value = as<std::int64_t>(file, setting, "an integer");
      if (value >= least && value <= kMost) return static_cast<std::int32_t>(value);
      throw FormatError(file, fmt::format("line {}", setting.line),
                        fmt::format("'{}' is {}; it must be from {} to {}", setting.key, value, least, kMost));
    };
    if (setting.key == "text-column") defaults.reading.text_column = text();
    if (setting.key == "pair-column") defaults.reading.pair_column = text();
    if (setting.key == "label-column") defaults.reading.label_column = text();
    if (setting.key == "no-header") defaults.reading.no_header = as<bool>(file, setting, "true or false");
    if (setting.key == "positive-label") defaults.positive_label = text();
    if (setting.key == "max-length") defaults.max_length = integer(3);
    if (setting.key == "batch-size") defaults.batch_size = integer(1);
  }
  return defaults;
}

ResolvedReading resolve(const ReadingOptions& reading, const RunningOptions& running, const RunDefaults& run) {
  const bool run_had_none = run.reading.no_header.value_or(false);
  const bool no_header = reading.no_header.value_or(run_had_none);
  // Numbers name no columns of a file with a header, nor names those of one without.
  const ReadingOptions before = no_header == run_had_none ? run.reading : ReadingOptions{};
  const auto first = [](const std::optional<std::string>& given, const std::optional<std::string>& earlier,
                        const char* otherwise) { return given ? *given : earlier.value_or(otherwise); };
  ResolvedReading resolved;
  resolved.records.text_column = first(reading.text_column, before.text_column, "");
  resolved.records.pair_column = first(reading.pair_column, before.pair_column, "");
  resolved.records.label_column = first(reading.label_column, before.label_column, "label");
  resolved.records.header = no_header ? HeaderRow::absent : HeaderRow::present;
  // The format belongs to a file, not to a model: the run's is never taken over.
  if (reading.format) resolved.records.format = parse_data_format(*reading.format);
  resolved.max_length = running.max_length ? running.max_length : run.max_length;
  resolved.batch_size = running.batch_size ? *running.batch_size : run.batch_size.value_or(32);
  return resolved;
}

std::int32_t length_for(const BertConfig& config, const std::optional<std::int32_t>& max_length, std::int64_t otherwise) {
  if (max_length && *max_length > config.max_positions) {
    throw UsageError(fmt::format("a max-length of {} (--max-length, or the run.toml of the model): the model has {} positions",
                                 *max_length, config.max_positions));
  }
  return max_length ? *max_length : static_cast<std::int32_t>(std::min(otherwise, config.max_positions));
}

RunPlace place_of(const DeviceChoice& choice) {
  RunPlace place{.device = choice.model, .precision = choice.precision};
  if (choice.device->kind() == DeviceKind::cuda) place.peak_gpu_memory_bytes = choice.device->memory().peak;
  return place;
}

RunPlace place_of(const DeviceChoice& choice, const Ranks& ranks) {
  RunPlace place = place_of(choice);
  place.ranks = ranks.size();
  place.transport = ranks.transport(choice.device->kind());
  return place;
}

void print_device(const DeviceChoice& device) {
  if (device.device->kind() != DeviceKind::cpu) write_message(fmt::format("device: {}\n", describe(device)));
}

std::unique_ptr<Classifier> load_for_inference(const std::filesystem::path& model, const DeviceChoice& device,
                                               const std::string& positive_label) {
  LabelSet labels = labels_of_model(model);
  if (labels.size() == 0) {
    throw MismatchError(
        fmt::format("{} has no classification head; train one with `lathe finetune --model {}`", model.string(), model.string()));
  }
  if (!positive_label.empty()) labels.set_positive(positive_label);
  auto classifier =
      Classifier::load(model, device.device, std::move(labels), Classifier::Head::required, 0, ArenaUse::inference, device.dtype);
  if (const auto& non_finite = classifier->report().non_finite; !non_finite.empty())
    print_warning(fmt::format("{}: {}", shortened(printable(model.string()), 80), printable(describe(non_finite))));
  return classifier;
}

void print_tokens(const std::string& name, const TokenizedTexts& encoded, std::int32_t max_length) {
  const std::size_t tokens = encoded.samples.ids.size();
  const double share = tokens > 0 ? 100.0 * static_cast<double>(encoded.unknown) / static_cast<double>(tokens) : 0.0;
  write_message(fmt::format("{}: {} tokens{}, {} unknown ({:.2f} %){}\n", name, tokens,
                            encoded.truncated > 0
                                ? fmt::format(", {} of {} rows cut to {} tokens (the longest has {})", encoded.truncated,
                                              encoded.samples.count(), max_length, encoded.longest)
                                : "",
                            encoded.unknown, share, encoded.from_cache ? ", from the cache" : ""));
}

void print_reading(const std::string& name, const RecordReport& report) {
  std::string columns;
  if (!report.text_column.empty()) columns = fmt::format(", text in \"{}\"", printable(report.text_column));
  if (!report.pair_column.empty()) columns += fmt::format(", pair in \"{}\"", printable(report.pair_column));
  if (!report.label_column.empty()) columns += fmt::format(", label in \"{}\"", printable(report.label_column));
  std::vector<std::string> ignored;
  std::vector<std::string> suspicious;
  for (const IgnoredColumn& column : report.ignored) {
    ignored.push_back(column.name);
    if (column.looks_like_text) suspicious.push_back(column.name);
  }
  write_message(fmt::format("{}: {} rows{}{}\n", name, report.records, columns,
                            ignored.empty() ? "" : ", not used: " + printable(quoted_list(ignored))));
  if (!suspicious.empty()) {
    print_warning(fmt::format("{}: {} look{} like text but {} not used; --text-column and --pair-column choose", name,
                              printable(quoted_list(suspicious)), suspicious.size() == 1 ? "s" : "",
                              suspicious.size() == 1 ? "is" : "are"));
  }
  if (report.empty_texts > 0) {
    print_warning(fmt::format("{}: the text of {} row{} empty, first in line {}", name, report.empty_texts,
                              report.empty_texts == 1 ? " is" : "s is", report.first_empty_text));
  }
  if (report.invalid_utf8 > 0) {
    print_warning(fmt::format("{}: {} row{} not valid UTF-8, first in line {}; such bytes are read as U+FFFD", name,
                              report.invalid_utf8, report.invalid_utf8 == 1 ? " is" : "s are", report.first_invalid_utf8));
  }
}

}  // namespace lathe
