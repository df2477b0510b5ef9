#include "tools/training_setup.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <sstream>

#include "lathe/checkpoint/input_file.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// --warmup: an integer is steps, a number with a point a share.
void parse_warmup(const std::string& text, TrainingSettings& settings) {
  const char* const last = text.data() + text.size();
  if (text.find('.') == std::string::npos) {
    const auto [end, failure] = std::from_chars(text.data(), last, settings.warmup_steps);
    if (failure != std::errc() || end != last || settings.warmup_steps < 0)
      throw UsageError(fmt::format("--warmup {}: not a number of steps", text));
    settings.warmup_share.reset();
    return;
  }
  double share = 0.0;
  const auto [end, failure] = std::from_chars(text.data(), last, share);
  if (failure != std::errc() || end != last || !(share >= 0.0 && share <= 1.0))
    throw UsageError(fmt::format("--warmup {}: a share lies between 0.0 and 1.0", text));
  settings.warmup_share = share;
}

}  // namespace

DevSplit parse_dev(const std::optional<std::string>& dev) {
  if (!dev) return {};
  double share = 0.0;
  const auto [end, failure] = std::from_chars(dev->data(), dev->data() + dev->size(), share);
  const bool number = failure == std::errc() && end == dev->data() + dev->size();
  if (!number) return {.share = std::nullopt, .file = *dev};
  if (!(share > 0.0 && share < 1.0))
    throw UsageError(fmt::format("--dev {}: a share of the training data lies between 0 and 1", *dev));
  return {.share = share, .file = std::nullopt};
}

std::string choose_products(const TrainingOptions& options, const DeviceChoice& device, bool first) {
  if (!options.tune && !options.product_table) return "";
  if (device.device->kind() == DeviceKind::cpu) {
    throw UsageError(
        fmt::format("{} is for a GPU's matrix products, and the device is the CPU: leave it out, or use --device cuda",
                    options.tune ? "--tune" : "--product-table"));
  }
  if (!options.product_table || !first) return "";
  constexpr std::uint64_t kLargestTable = 1 << 24;
  std::string table = read_text_file(*options.product_table, kLargestTable);
  try {
    device.device->use_product_table(table);
  } catch (const UsageError& failure) {
    throw FormatError(*options.product_table, "", failure.what());
  }
  return table;
}

void take_products_of_first(const std::string& table, const DeviceChoice& device, Ranks& ranks) {
  const std::string given = ranks.gather(table).front();
  if (!given.empty() && !ranks.first()) device.device->use_product_table(given);
}

MemoryEstimate most_memory(const MemoryEstimate& estimate, const Device& device, Ranks& ranks) {
  if (ranks.size() == 1) return estimate;
  MemoryEstimate most = estimate;
  for (const std::string& text :
       ranks.gather(fmt::format("{} {} {} {}", estimate.weights, estimate.optimizer, estimate.step, estimate.tokens))) {
    MemoryEstimate other;
    std::istringstream(text) >> other.weights >> other.optimizer >> other.step >> other.tokens;
    if (other.total() > most.total()) most = other;
  }
  print_memory(most, device);
  return most;
}

void write_trace(const fs::path& output, const std::string& chrome_trace) {
  write_file_atomically(output / kTrace, chrome_trace);
}

void write_product_table(const fs::path& output, const std::string& table) {
  write_file_atomically(output / kProductTable, table);
}

TrainingSettings training_settings(const TrainingOptions& options) {
  TrainingSettings settings;
  settings.epochs = options.epochs;
  settings.max_steps = options.max_steps;
  settings.learning_rate = options.learning_rate;
  settings.optimizer.weight_decay = options.weight_decay;
  settings.optimizer.max_norm = options.max_grad_norm;
  settings.seed = options.seed;
  settings.log_steps = options.log_steps;
  settings.micro_batch_tokens = options.micro_batch_tokens;
  settings.recompute = options.recompute == "blocks" ? Recompute::blocks : Recompute::none;
  settings.gradient_bucket_bytes = options.gradient_bucket_mib << 20;
  settings.shard_optimizer = options.shard_optimizer ? ShardOptimizer::yes : ShardOptimizer::no;
  settings.replay = options.no_graphs ? Replay::off : Replay::graphs;
  settings.tune_products = options.tune;
  settings.profile_steps = options.profile ? options.profile_steps : 0;
  parse_warmup(options.warmup, settings);
  return settings;
}

WatchTimeouts watch_timeouts(const TrainingOptions& options) {
  return {.comm = std::chrono::seconds(options.comm_timeout), .start = std::chrono::seconds(options.start_timeout)};
}

void check_readable_twice(std::string_view command, std::span<const fs::path> inputs) {
  for (const fs::path& input : inputs) {
    std::error_code failure;
    const fs::file_status status = fs::status(input, failure);
    if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status))
      throw FileError(input, fmt::format("is a pipe or a device; {} reads its data twice: write it to a file", command));
  }
}

void check_finite(const LoadReport& report, const fs::path& model, const TrainingOptions& options) {
  const auto& tensors = report.non_finite;
  if (tensors.empty()) return;
  if (!options.allow_non_finite) {
    throw NonFiniteError(fmt::format("{}: {}; get it again, or train as it is with --allow-non-finite",
                                     shortened((model / "model.safetensors").string(), 50), describe(tensors)));
  }
  print_warning(printable(describe(tensors)));
}

void print_memory(const MemoryEstimate& estimate, const Device& device) {
  const auto gigabytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  write_message(fmt::format(
      "memory: {:.3g} GB for tensors, of {:.3g} {}: {:.3g} weights and gradients, {:.3g} AdamW's moments, {:.3g} a step "
      "of up to {} tokens at once\n",
      gigabytes(estimate.total()), gigabytes(memory_for_run(device)),
      device.kind() == DeviceKind::cpu ? "that are free" : "that the GPU has", gigabytes(estimate.weights),
      gigabytes(estimate.optimizer), gigabytes(estimate.step), estimate.tokens));
}

std::string format_parts(const StepSeconds& seconds) {
  const auto share = [&](double part) { return seconds.total() > 0.0 ? 100.0 * part / seconds.total() : 0.0; };
  return fmt::format(
      "ranks: {}, compute {:.1f} %, communication {:.1f} % (of it {:.1f} % waiting for the slowest rank), "
      "optimizer {:.1f} %, data {:.1f} %, other {:.1f} %\n",
      seconds.ranks, share(seconds.compute), share(seconds.communication), share(seconds.waiting), share(seconds.optimizer),
      share(seconds.data), share(seconds.other));
}

void print_training(const TrainingResult& result, std::int64_t peak_memory_bytes, const RunPlace& place) {
  const auto gigabytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  const std::string gpu = place.peak_gpu_memory_bytes
                              ? fmt::format("{:.2f} GB of the GPU's memory and ", gigabytes(*place.peak_gpu_memory_bytes))
                              : "";
  write_message(fmt::format("trained {} steps in {:.1f} s, {:.0f} tokens/s, {}{:.2f} GB at most\n", result.steps, result.seconds,
                            result.seconds > 0.0 ? static_cast<double>(result.tokens) / result.seconds : 0.0, gpu,
                            gigabytes(peak_memory_bytes)));
  if (result.parts.ranks > 1) write_message(format_parts(result.parts));
}

}  // namespace lathe
