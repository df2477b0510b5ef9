#include "tools/run_record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "lathe/runtime/error.h"
#include "tools/terminal.h"
#include "tools/training_setup.h"

namespace lathe {

namespace fs = std::filesystem;

std::string full_path(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

void append_training_settings(RunSection& run, const TrainingOptions& options, const DevSplit& dev, const DeviceChoice& device) {
  run.values.insert(run.values.end(), {{"output", full_path(options.output)},
                                       {"lr", options.learning_rate},
                                       {"weight-decay", options.weight_decay},
                                       {"max-grad-norm", options.max_grad_norm},
                                       {"warmup", options.warmup},
                                       {"seed", std::int64_t{options.seed}},
                                       {"log-steps", options.log_steps},
                                       {"micro-batch-tokens", options.micro_batch_tokens},
                                       {"recompute", options.recompute},
                                       {"shard-optimizer", options.shard_optimizer},
                                       {"gradient-bucket-mib", options.gradient_bucket_mib},
                                       {"no-graphs", options.no_graphs},
                                       {"device", device.name},
                                       {"precision", device.precision},
                                       {"threads", std::int64_t{device.threads}},
                                       {"instruction-set", device.instruction_set},
                                       {"allow-non-finite", options.allow_non_finite}});
  // A replay takes what was chosen here.
  if (options.tune) run.values.emplace_back("product-table", full_path(options.output / kProductTable));
  if (options.product_table) run.values.emplace_back("product-table", full_path(*options.product_table));
  if (options.dev) run.values.emplace_back("dev", dev.file ? full_path(*dev.file) : *options.dev);
  run.values.emplace_back(options.max_steps > 0 ? "max-steps" : "epochs",
                          options.max_steps > 0 ? RunValue(options.max_steps) : RunValue(options.epochs));
}

RunSection chosen_section(const DeviceChoice& device, const TrainingSteps& steps, const Ranks& ranks) {
  const bool on_cpu = device.device->kind() == DeviceKind::cpu;
  RunSection chosen{
      .name = "chosen",
      .values = {{"device-reason", device.device_reason},
                 {"threads-reason", device.threads_reason},
                 {"precision-reason", device.precision_reason},
                 on_cpu ? std::pair{"instruction-set", RunValue(device.target)} : std::pair{"gpu", RunValue(device.model)},
                 {"matrix-products", device.products},
                 {"version", std::string(LATHE_VERSION)},
                 {"total-steps", steps.total},
                 {"warmup-steps", steps.warmup}}};
  if (ranks.size() > 1) {
    chosen.values.emplace_back("ranks", std::int64_t{ranks.size()});
    chosen.values.emplace_back("transport", ranks.transport(device.device->kind()));
  }
  return chosen;
}

RunSection inputs_section(std::vector<fs::path> files, const fs::path* model, const WordPieceTokenizer& tokenizer) {
  if (model != nullptr) {
    files.push_back(*model / "config.json");
    files.push_back(*model / "model.safetensors");
  }
  files.insert(files.end(), tokenizer.files().begin(), tokenizer.files().end());
  for (fs::path& file : files) file = full_path(file);
  // A file may be given twice, as --train and --test; TOML wants each key once.
  std::ranges::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  RunSection hashes{.name = "inputs", .values = {}};
  for (const fs::path& file : files) hashes.values.emplace_back(file.string(), content_hash(file));
  return hashes;
}

std::string common_facts(std::span<const RunSection> sections) {
  // Where files lie is each host's own; output and a table of products are rank 0's; of GPUs each rank has another one.
  constexpr std::array kOwn = {"model",         "tokenizer", "train",          "dev",          "test", "output",
                               "product-table", "gpu",       "threads-reason", "device-reason"};
  const auto is_tuned = [](const RunSection& section) {
    return std::ranges::count(section.values, "product-table", &std::pair<std::string, RunValue>::first) > 0;
  };
  const bool tuned = std::ranges::any_of(sections, is_tuned);  // a table of products is one model's of GPU
  // Files come first, since other data make other numbers of steps; in the order of their names, as folders differ.
  std::vector<std::string> files;
  std::string facts;
  for (const RunSection& section : sections) {
    for (const auto& [key, value] : section.values) {
      std::string text = to_text(value);
      if (section.name == "inputs") {
        files.push_back(fmt::format("{} = {}\n", fs::path(key).filename().string(), text));
        continue;
      }
      if (std::ranges::find(kOwn, key) != kOwn.end() && !(tuned && key == "gpu")) continue;
      if (key == "device") text.resize(std::min(text.find(':'), text.size()));  // "cuda:1"
      facts += fmt::format("{} = {}\n", key, text);
    }
  }
  std::ranges::sort(files);
  return fmt::format("{}{}", fmt::join(files, ""), facts);
}

void warn_of_changes(const fs::path& config, const RunSection& inputs, const DeviceChoice& device) {
  for (const RunSetting& before : read_run_file(config)) {
    if (before.section == "inputs") {
      const auto now = std::ranges::find(inputs.values, before.key, &std::pair<std::string, RunValue>::first);
      if (now == inputs.values.end() || now->second == before.value) continue;
      print_warning(fmt::format("{} has changed since {}: it was {}, it is {}", printable(before.key), config.string(),
                                printable(to_text(before.value)), to_text(now->second)));
    }
    const std::map<std::string_view, std::string_view> build = {{"version", LATHE_VERSION}, {"matrix-products", device.products}};
    const auto here = before.section == "chosen" ? build.find(before.key) : build.end();
    if (here != build.end() && to_text(before.value) != here->second) {
      print_warning(fmt::format("{} is of a Lathe with {} {}, this one has {}: results may differ in the last digits",
                                config.string(), before.key, printable(to_text(before.value)), here->second));
    }
  }
}

}  // namespace lathe
