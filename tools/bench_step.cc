#include "tools/bench_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/measure.h"
#include "benchmarks/step.h"
#include "lathe/runtime/error.h"
#include "lathe/training/number_text.h"
#include "tools/json_rows.h"
#include "tools/line_output.h"
#include "tools/setup.h"
#include "tools/signals.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;
using bench::LengthDistribution;
using bench::MeasuredStep;
using bench::Peak;
using bench::StepMeasurement;
using bench::StepModel;
using bench::StepRequest;
using bench::StepTask;

constexpr std::int64_t kPositions = 512;
constexpr const char* kEmulatedNotice = "emulated on the host: steps are counted, no time is measured";
constexpr const char* kRealLengths = "real";

/// What is measured unless the call says otherwise.
struct Usual {
  std::int64_t tokens, warmup, steps;
  double seconds;
  std::vector<std::string> models, lengths;
};
Usual usual(DeviceKind kind) {
  if (kind == DeviceKind::cpu) return {1024, 2, 20, 10.0, {"base"}, {"fixed:128", "fixed:512", kRealLengths}};
  if (cuda_backend() == CudaBackend::emulated) return {128, 1, 2, 10.0, {"tiny"}, {"fixed:32", kRealLengths}};
  // Enough steps for most buckets of lengths that vary to have been met.
  return {32768, 40, 40, 10.0, {"base", "large"}, {"fixed:128", "fixed:512", kRealLengths}};
}

RunningOptions running(const BenchOptions& options) {
  RunningOptions running;
  running.device = options.device;
  running.threads = options.threads;
  running.precision = options.step.precision.value_or("auto");
  return running;
}

/// Lengths under their name: those that are real are the task's.
LengthDistribution lengths_of(const std::string& name, StepTask task) {
  if (name != kRealLengths) return bench::parse_lengths(name);
  return task == StepTask::mlm ? bench::wiki_lengths() : bench::sst2_lengths();
}

/// The rows that are asked for, in the order of tasks, models, lengths.
std::vector<StepRequest> requests(const BenchOptions& options, DeviceKind kind, DType dtype) {
  const BenchStepOptions& asked = options.step;
  const Usual otherwise = usual(kind);
  const std::int64_t tokens = asked.tokens.value_or(otherwise.tokens);
  const auto& models = asked.models.empty() ? otherwise.models : asked.models;
  const auto& lengths = asked.lengths.empty() ? otherwise.lengths : asked.lengths;
  std::optional<LengthDistribution> from_file;
  if (asked.lengths_from) from_file = bench::read_lengths(*asked.lengths_from);
  std::vector<StepRequest> list;
  for (const StepTask task : {StepTask::mlm, StepTask::classify}) {
    if (!asked.tasks.empty() && std::ranges::find(asked.tasks, bench::name(task)) == asked.tasks.end()) continue;
    for (const std::string& model : models) {
      std::vector<LengthDistribution> distributions;
      for (const std::string& one : lengths) {
        if (from_file) continue;
        LengthDistribution distribution = lengths_of(one, task);
        // Of the usual ones those that a step has room for.
        const bool wanted = !asked.lengths.empty() || one == kRealLengths;
        if (wanted || distribution.quantiles.front().length <= tokens) distributions.push_back(std::move(distribution));
      }
      if (from_file) distributions.push_back(*from_file);
      for (const LengthDistribution& distribution : distributions) {
        const std::int64_t shortest = distribution.quantiles.front().length;
        if (shortest > std::min(kPositions, tokens)) {
          throw UsageError(
              fmt::format("--lengths {}: sequences of {} tokens and more fit neither {} positions nor a step of {} tokens",
                          distribution.name, shortest, kPositions, tokens));
        }
        list.push_back({.task = task,
                        .model = bench::step_model(model),
                        .lengths = distribution.cut(std::min(kPositions, tokens)),
                        .tokens = tokens,
                        .dropout = asked.dropout.value_or(0.1),
                        .dtype = dtype,
                        .replay = asked.no_graphs || kind == DeviceKind::cpu ? Replay::off : Replay::graphs,
                        .warmup = asked.warmup_steps.value_or(otherwise.warmup),
                        .steps = asked.steps.value_or(otherwise.steps),
                        .seconds = asked.seconds.value_or(otherwise.seconds)});
      }
    }
  }
  return list;
}

/// What rates are divided by.
Peak peak_of(const DeviceChoice& choice, const bench::Ceilings& ceilings) {
  const std::string dtype = choice.dtype == DType::bf16 ? "bf16" : "f32";
  if (choice.device->kind() == DeviceKind::cuda) {
    if (auto sheet = bench::data_sheet_peak(choice.model, dtype)) return *std::move(sheet);
  }
  const auto measured = ceilings.products.find(dtype);
  return {.operations_per_second = measured == ceilings.products.end() ? 0.0 : measured->second,
          .source = fmt::format("what a large {} product reaches here, measured in this run", dtype)};
}

/// The median, and the distance between the quartiles as a share of it.
struct Spread {
  double median = 0.0, spread = 0.0;
};
template <class Get>
Spread spread_of(const std::vector<MeasuredStep>& steps, Get get) {
  std::vector<double> values;
  values.reserve(steps.size());
  for (const MeasuredStep& step : steps) values.push_back(static_cast<double>(std::invoke(get, step)));
  std::ranges::sort(values);
  const std::size_t count = values.size();
  if (count == 0) return {};
  const double median = values[count / 2];
  return {.median = median, .spread = median == 0.0 ? 0.0 : (values[count - 1 - count / 4] - values[count / 4]) / median};
}
template <class Get>
double mean_of(const std::vector<MeasuredStep>& steps, Get get) {
  double sum = 0.0;
  for (const MeasuredStep& step : steps) sum += static_cast<double>(std::invoke(get, step));
  return steps.empty() ? 0.0 : sum / static_cast<double>(steps.size());
}

std::int64_t captures_of(const StepMeasurement& measured) {
  std::int64_t captures = 0;
  for (const MeasuredStep& step : measured.steps) captures += step.captures;
  return captures;
}

/// Steps that replayed what was there, as all but a few of a long run do; all where each captured something.
std::vector<MeasuredStep> without_captures(const StepMeasurement& measured) {
  std::vector<MeasuredStep> steps;
  std::ranges::copy_if(measured.steps, std::back_inserter(steps), [](const MeasuredStep& step) { return step.captures == 0; });
  return steps.empty() ? measured.steps : steps;
}

struct Row {
  StepRequest request;
  StepMeasurement measured;
  std::vector<MeasuredStep> counted;  ///< of them those that the medians are of
};

double tokens_per_second(const MeasuredStep& step) { return static_cast<double>(step.tokens) / step.seconds; }
double operations_per_second(const MeasuredStep& step) { return static_cast<double>(step.operations) / step.seconds; }

Json head_of(const StepRequest& request) {
  const StepModel& model = request.model;
  Json json = {{"task", bench::name(request.task)},
               {"model", model.name},
               {"layers", model.layers},
               {"hidden_size", model.hidden_size},
               {"heads", model.heads},
               {"vocabulary", model.vocabulary},
               {"lengths", request.lengths.name},
               {"quantiles", Json::array()},
               {"step_tokens", request.tokens},
               {"dropout", request.dropout},
               {"dtype", request.dtype == DType::bf16 ? "bf16" : "f32"},
               {"graphs", request.replay == Replay::graphs}};
  for (const auto& quantile : request.lengths.quantiles) json["quantiles"].push_back({quantile.share, quantile.length});
  return json;
}

Json to_json(const Row& row, bool timed, const Peak& peak) {
  const auto& steps = row.counted;
  Json json = head_of(row.request);
  json.update({{"parameters", row.measured.parameters},
               {"warmup_steps", row.measured.warmup},
               {"steps", row.measured.steps.size()},
               {"counted_steps", steps.size()},
               {"captures", captures_of(row.measured)},
               {"sequences", mean_of(steps, &MeasuredStep::sequences)},
               {"tokens", mean_of(steps, &MeasuredStep::tokens)},
               {"bucket_tokens", mean_of(steps, &MeasuredStep::bucket_tokens)},
               {"rows", mean_of(steps, &MeasuredStep::rows)},
               {"operations", mean_of(steps, &MeasuredStep::operations)},
               {"peak_bytes", row.measured.peak_bytes}});
  if (!timed) return json;
  const Spread seconds = spread_of(steps, &MeasuredStep::seconds);
  const double rate = spread_of(steps, operations_per_second).median;
  json.update({{"seconds", seconds.median},
               {"spread", seconds.spread},
               {"tokens_per_second", spread_of(steps, tokens_per_second).median},
               {"operations_per_second", rate},
               {"mfu", peak.operations_per_second > 0.0 ? Json(rate / peak.operations_per_second) : Json()},
               {"phases",
                {{"data", spread_of(steps, &MeasuredStep::data).median},
                 {"upload", spread_of(steps, &MeasuredStep::upload).median},
                 {"forward_backward", spread_of(steps, &MeasuredStep::compute).median},
                 {"optimizer", spread_of(steps, &MeasuredStep::update).median}}},
               {"packing_seconds", spread_of(steps, &MeasuredStep::packing).median}});
  return json;
}

constexpr std::string_view kName = "{:<8} {:<5} {:<10}";

std::string name_of(const StepRequest& request) {
  return fmt::format(kName, bench::name(request.task), request.model.name, request.lengths.name);
}

std::string milliseconds(double seconds) {
  const double value = seconds * 1e3;
  return fmt::format("{:.{}f}", value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

constexpr std::string_view kTimedColumns = " {:>9} {:>9} {:>6} {:>9} {:>7} {:>9} {:>7} {:>7} {:>8} {:>8} {:>9} {:>9}\n";
std::string table_head(bool timed) {
  if (!timed) {
    return fmt::format(kName, "task", "model", "lengths") + fmt::format(" {:>9} {:>9} {:>9} {:>9} {:>15} {:>9}\n", "sequences",
                                                                        "tokens", "computed", "rows", "operations", "peak MiB");
  }
  return fmt::format(kName, "task", "model", "lengths") + fmt::format(kTimedColumns, "tokens", "computed", "steps", "ms", "+-",
                                                                      "tokens/s", "MFU", "data", "upload", "fwd+bwd", "optimizer",
                                                                      "peak MiB");
}

std::string text_of(const Row& row, bool timed, const Peak& peak) {
  const auto& steps = row.counted;
  const auto whole = [](double value) { return grouped(std::llround(value)); };
  const std::string tokens = whole(mean_of(steps, &MeasuredStep::tokens));
  const std::string computed = whole(mean_of(steps, &MeasuredStep::bucket_tokens));
  const std::string mebibytes = grouped(row.measured.peak_bytes >> 20);
  if (!timed) {
    return name_of(row.request) + fmt::format(" {:>9} {:>9} {:>9} {:>9} {:>15} {:>9}\n",
                                              whole(mean_of(steps, &MeasuredStep::sequences)), tokens, computed,
                                              whole(mean_of(steps, &MeasuredStep::rows)),
                                              whole(mean_of(steps, &MeasuredStep::operations)), mebibytes);
  }
  const Spread seconds = spread_of(steps, &MeasuredStep::seconds);
  const double rate = spread_of(steps, operations_per_second).median;
  const auto phase = [&](double MeasuredStep::*part) { return milliseconds(spread_of(steps, part).median); };
  return name_of(row.request) +
         fmt::format(kTimedColumns, tokens, computed, steps.size(), milliseconds(seconds.median),
                     fmt::format("{:.1f}%", 100.0 * seconds.spread), whole(spread_of(steps, tokens_per_second).median),
                     peak.operations_per_second > 0.0 ? fmt::format("{:.1f} %", 100.0 * rate / peak.operations_per_second) : "-",
                     phase(&MeasuredStep::data), phase(&MeasuredStep::upload), phase(&MeasuredStep::compute),
                     phase(&MeasuredStep::update), mebibytes);
}

}  // namespace

std::vector<std::string> given(const BenchStepOptions& options) {
  std::vector<std::string> names;
  if (!options.tasks.empty()) names.emplace_back("--task");
  if (!options.models.empty()) names.emplace_back("--model-size");
  if (!options.lengths.empty()) names.emplace_back("--lengths");
  if (options.lengths_from) names.emplace_back("--lengths-from");
  if (options.tokens) names.emplace_back("--tokens");
  if (options.warmup_steps) names.emplace_back("--warmup-steps");
  if (options.steps) names.emplace_back("--steps");
  if (options.seconds) names.emplace_back("--seconds");
  if (options.dropout) names.emplace_back("--dropout");
  if (options.precision) names.emplace_back("--precision");
  if (options.no_graphs) names.emplace_back("--no-graphs");
  return names;
}

int bench_steps(const BenchOptions& options) {
  DeviceChoice choice = choose_device(running(options));
  const DeviceKind kind = choice.device->kind();
  const std::vector<StepRequest> asked = requests(options, kind, choice.dtype);
  const bool timed = kind == DeviceKind::cpu || cuda_backend() == CudaBackend::gpu;
  const bench::Ceilings ceilings =
      timed ? bench::measure_ceilings(kind, [&] { return choose_device(running(options)).device; }) : bench::Ceilings{};
  const Peak peak = timed ? peak_of(choice, ceilings) : Peak{};
  const std::string device = describe(choice);
  choice.device.reset();  // each row has one of its own

  Json head = {{"device", device}, {"emulated", !timed}, {"formula", bench::kStepFormula}};
  std::string text = fmt::format("{}\n", device);
  if (timed) {
    head.update({{"peak_operations_per_second", peak.operations_per_second},
                 {"peak_source", peak.source},
                 {"product_operations_per_second", ceilings.products}});
    text += fmt::format("MFU: {} over the step's time, of {:.4g} Gop/s: {}\n", bench::kStepFormula,
                        peak.operations_per_second / 1e9, peak.source);
    text += "tokens are real ones; times are medians in ms, +-: between the quartiles of the steps\n";
  } else {
    head["notice"] = kEmulatedNotice;
    text += fmt::format("{}\noperations: {}\n", kEmulatedNotice, bench::kStepFormula);
  }
  text += fmt::format("\n{}", table_head(timed));

  const std::atomic<int>& stop = watch_stop_signals();
  LineOutput output;
  JsonRows rows(output, head.dump(), "rows");
  int status = 0;
  for (const StepRequest& request : asked) {
    if (stop.load() != 0) break;
    std::string line;
    try {
      Row row{.request = request,
              .measured = bench::measure_step(choose_device(running(options)).device, request, &stop),
              .counted = {}};
      if (row.measured.steps.empty()) break;  // stopped before there was one
      row.counted = without_captures(row.measured);
      line = options.json ? to_json(row, timed, peak).dump() : text_of(row, timed, peak);
    } catch (const OutOfMemoryError& failure) {  // others may fit
      status = failure.exit_status();
      Json json = head_of(request);
      json["error"] = failure.what();
      line = options.json ? json.dump() : fmt::format("{} {}\n", name_of(request), failure.what());
    }
    if (!(options.json ? rows.add(line) : output.write(text + line))) return status;
    text.clear();
  }
  if (options.json) rows.finish(stop.load() == 0);
  return stop.load() == 0 ? status : 128 + stop.load();
}

}  // namespace lathe
