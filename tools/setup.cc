#include "tools/setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/matmul.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/quoted_list.h"
#include "tools/run_file.h"

namespace lathe {
namespace {

/// An integer of a run.toml, in the bounds that the command line has for it.
std::int32_t parse_integer(const std::filesystem::path& model, const std::string& key, const std::string& text,
                           std::int32_t least) {
  constexpr std::int32_t kMost = 1 << 20;
  std::int32_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size() || value < least || value > kMost) {
    throw FormatError(model / "run.toml", "key " + key,
                      fmt::format("found \"{}\", expected an integer from {} to {}", shortened(text, 40), least, kMost));
  }
  return value;
}

}  // namespace

DeviceChoice choose_device(const RunningOptions& options) {
  if (options.device == "cuda") throw UsageError("--device cuda: this build has no CUDA backend; use --device cpu");
  DeviceChoice choice{.device = nullptr,
                      .name = "cpu",
                      .device_reason = options.device == "auto" ? "this build has no CUDA backend" : "asked for",
                      .threads = 1,
                      .threads_reason = "asked for",
                      .instruction_set = {},
                      .precision = "fp32",
                      .precision_reason = options.precision == "auto" ? "what the CPU kernels have" : "asked for"};
  if (options.threads) {
    choice.threads = *options.threads;
  } else {
    const ThreadChoice threads = default_threads();
    choice.threads = threads.threads;
    choice.threads_reason = threads.reason;
  }
  std::optional<CpuTarget> target;
  if (options.instruction_set == "avx2") target = CpuTarget::v3;
  if (options.instruction_set == "avx512") target = CpuTarget::v4;
  choice.device = Device::cpu({.threads = choice.threads, .target = target, .reserved_bytes = 0});
  choice.instruction_set = name(choice.device->stream().target);
  return choice;
}

std::string describe(const DeviceChoice& choice) {
  return fmt::format("{} ({}), {} thread{} ({}), {}, products by {}, {} ({})", choice.name, choice.device_reason, choice.threads,
                     choice.threads == 1 ? "" : "s", choice.threads_reason, choice.instruction_set, MatmulPlans::library(),
                     choice.precision, choice.precision_reason);
}

RunDefaults read_run_defaults(const std::filesystem::path& model) {
  const auto values = read_run_section(model, "finetune");
  RunDefaults defaults;
  const auto text = [&](const char* key) -> std::optional<std::string> {
    const auto found = values.find(key);
    return found == values.end() || found->second.empty() ? std::nullopt : std::optional(found->second);
  };
  defaults.reading.text_column = text("text-column");
  defaults.reading.pair_column = text("pair-column");
  defaults.reading.label_column = text("label-column");
  if (const auto length = text("max-length")) defaults.max_length = parse_integer(model, "max-length", *length, 3);
  if (const auto size = text("batch-size")) defaults.batch_size = parse_integer(model, "batch-size", *size, 1);
  return defaults;
}

ResolvedReading resolve(const ReadingOptions& reading, const RunningOptions& running, const RunDefaults& run) {
  const auto first = [](const std::optional<std::string>& given, const std::optional<std::string>& before,
                        const char* otherwise) { return given ? *given : before.value_or(otherwise); };
  ResolvedReading resolved;
  resolved.records.text_column = first(reading.text_column, run.reading.text_column, "");
  resolved.records.pair_column = first(reading.pair_column, run.reading.pair_column, "");
  resolved.records.label_column = first(reading.label_column, run.reading.label_column, "label");
  // The format belongs to a file, not to a model: the run's is never taken over.
  if (reading.format) resolved.records.format = parse_data_format(*reading.format);
  resolved.max_length = running.max_length ? running.max_length : run.max_length;
  resolved.batch_size = running.batch_size ? *running.batch_size : run.batch_size.value_or(32);
  return resolved;
}

std::int32_t length_for(const BertConfig& config, const std::optional<std::int32_t>& max_length) {
  constexpr std::int64_t kDefault = 128;
  if (max_length && *max_length > config.max_positions) {
    throw UsageError(fmt::format("a max-length of {} (--max-length, or the run.toml of the model): the model has {} positions",
                                 *max_length, config.max_positions));
  }
  return max_length ? *max_length : static_cast<std::int32_t>(std::min(kDefault, config.max_positions));
}

std::unique_ptr<Classifier> load_for_inference(const std::filesystem::path& model, const DeviceRef& device) {
  LabelSet labels = labels_of_model(model);
  if (labels.size() == 0) {
    throw MismatchError(
        fmt::format("{} has no classification head; train one with `lathe finetune --model {}`", model.string(), model.string()));
  }
  auto classifier = Classifier::load(model, device, std::move(labels), Classifier::Head::required, 0, ArenaUse::inference);
  const auto& non_finite = classifier->report().non_finite;
  if (!non_finite.empty())
    fmt::print(stderr, "warning: {}: {}\n", shortened(printable(model.string()), 80), printable(describe(non_finite)));
  return classifier;
}

void print_tokens(const std::string& name, const EncodedTexts& encoded, std::int32_t max_length) {
  const std::size_t tokens = encoded.samples.ids.size();
  const double share = tokens > 0 ? 100.0 * static_cast<double>(encoded.unknown) / static_cast<double>(tokens) : 0.0;
  fmt::print(stderr, "{}: {} tokens{}, {} unknown ({:.2f} %)\n", name, tokens,
             encoded.truncated > 0 ? fmt::format(", {} of {} rows cut to {} tokens (the longest has {})", encoded.truncated,
                                                 encoded.samples.count(), max_length, encoded.longest)
                                   : "",
             encoded.unknown, share);
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
  fmt::print(stderr, "{}: {} rows{}{}\n", name, report.records, columns,
             ignored.empty() ? "" : ", not used: " + printable(quoted_list(ignored)));
  if (!suspicious.empty()) {
    fmt::print(stderr, "warning: {}: {} look{} like text but {} not used; --text-column and --pair-column choose\n", name,
               printable(quoted_list(suspicious)), suspicious.size() == 1 ? "s" : "", suspicious.size() == 1 ? "is" : "are");
  }
  if (report.empty_texts > 0) {
    fmt::print(stderr, "warning: {}: the text of {} row{} empty, first in line {}\n", name, report.empty_texts,
               report.empty_texts == 1 ? " is" : "s is", report.first_empty_text);
  }
  if (report.invalid_utf8 > 0) {
    fmt::print(stderr, "warning: {}: {} row{} not valid UTF-8, first in line {}; such bytes are read as U+FFFD\n", name,
               report.invalid_utf8, report.invalid_utf8 == 1 ? " is" : "s are", report.first_invalid_utf8);
  }
}

}  // namespace lathe
