#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/text/quoted_list.h"
#include "lathe/text/split.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/finetune.h"
#include "lathe/training/output_folder.h"
#include "lathe/training/results.h"
#include "tools/commands.h"
#include "tools/dry_run.h"
#include "tools/pictures.h"
#include "tools/progress.h"
#include "tools/run_file.h"
#include "tools/setup.h"
#include "tools/signals.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// --dev: a share of the training data, or a file. A number is a share; a file of that name is "./0.1".
struct DevSplit {
  std::optional<double> share;
  std::optional<fs::path> file;
};

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

/// --warmup: an integer is steps, a number with a point a share.
void parse_warmup(const std::string& text, FinetuneSettings& settings) {
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

FinetuneSettings settings_of(const FinetuneOptions& options, std::int32_t batch_size) {
  FinetuneSettings settings;
  settings.epochs = options.epochs;
  settings.max_steps = options.max_steps;
  settings.batch_size = batch_size;
  settings.learning_rate = options.learning_rate;
  settings.optimizer.weight_decay = options.weight_decay;
  settings.optimizer.max_norm = options.max_grad_norm;
  settings.seed = options.seed;
  settings.log_steps = options.log_steps;
  parse_warmup(options.warmup, settings);
  return settings;
}

/// Refuses what can be read but once, such as a pipe: an input is read for its rows and again for its hash.
void check_readable_twice(const std::vector<fs::path>& inputs) {
  for (const fs::path& input : inputs) {
    std::error_code failure;
    const fs::file_status status = fs::status(input, failure);
    if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status))
      throw FileError(input, "is a pipe or a device; finetune reads its data twice: write it to a file");
  }
}

/// Reads a labelled file and says what was read.
DataSet read(const std::string& name, const fs::path& path, const RecordOptions& records) {
  DataSet data = read_records(path, records);
  print_reading(name, data.report);
  return data;
}

/// Tokenizes and says how it went.
LabelledSamples prepare(const std::string& name, const Classifier& classifier, const Records& records, TextKind kind,
                        std::int32_t max_length, int threads) {
  EncodedTexts encoded = tokenize(classifier, records, kind, max_length, threads);
  print_tokens(name, encoded, max_length);
  return {.samples = std::move(encoded.samples), .labels = classifier.labels().ids_of(records)};
}

void print_labels(const LabelSet& labels, std::span<const std::int32_t> ids) {
  const auto counts = class_counts(ids, labels.size());
  std::string text;
  constexpr std::int32_t kMost = 20;
  for (std::int32_t i = 0; i < std::min(labels.size(), kMost); ++i) {
    text += fmt::format("{}\"{}\" ({})", i == 0 ? "" : ", ", shortened(printable(labels.name(i)), 40),
                        counts[static_cast<std::size_t>(i)]);
  }
  if (labels.size() > kMost) text += fmt::format(", ... ({} in all)", labels.size());
  if (labels.size() == 2)
    text += fmt::format("; \"{}\" is the positive one", shortened(printable(labels.name(labels.positive())), 40));
  write_message(fmt::format("labels: {}\n", text));
}

/// Refuses weights that aren't numbers, unless they are allowed.
void check_finite(const Classifier& classifier, const FinetuneOptions& options) {
  const auto& tensors = classifier.report().non_finite;
  if (tensors.empty()) return;
  if (!options.allow_non_finite) {
    throw NonFiniteError(fmt::format("{}: {}; get it again, or train as it is with --allow-non-finite",
                                     shortened((options.model / "model.safetensors").string(), 50), describe(tensors)));
  }
  print_warning(printable(describe(tensors)));
}

/// Writes the run's files and tells the terminal.
class RunObserver final : public FinetuneObserver {
 public:
  RunObserver(fs::path output, const LabelSet& labels, const TrainingSteps& steps)
      : output_(std::move(output)), labels_(labels), log_(output_), progress_(steps.total) {
    curves_.steps_per_epoch = steps.per_epoch;
    if (labels.size() == 2) curves_.f1_name = fmt::format("F1 of “{}”", labels.name(labels.positive()));
  }

  void stepped(std::int64_t step, std::int64_t, std::int64_t tokens) override { progress_.advance(step, tokens); }
  void logged(const StepLog& log) override {
    log_.write(log);
    collect(curves_, log);
    progress_.note(log.step, fmt::format("loss {:.4f}  {:.0f} tokens/s", log.loss, log.tokens_per_second));
  }
  void evaluated(const EvaluationLog& log) override {
    log_.write(log, "dev", labels_.names());
    collect(curves_, log);
    const ClassificationMetrics& m = log.metrics;
    const std::string f1 = m.binary() ? fmt::format("F1 {:.4f}", m.positive().f1) : fmt::format("macro F1 {:.4f}", m.macro.f1);
    progress_.line(fmt::format("epoch {:.4g}: dev loss {:.4f}, accuracy {:.4f}, {}{}", log.epoch, m.loss, m.accuracy, f1,
                               log.best ? coloured(", the best so far: saved", Tone::success) : ""));
  }
  void save(const Classifier& classifier) override { classifier.save_weights(output_); }
  void finish() { progress_.finish(); }
  MetricsLog& log() { return log_; }
  const Curves& curves() const { return curves_; }

 private:
  fs::path output_;
  const LabelSet& labels_;
  MetricsLog log_;
  Curves curves_;
  Progress progress_;
};

/// All files of a call, read; what is wrong with them is known before anything is written.
struct RunData {
  DataSet train;
  std::optional<DataSet> dev, test;
};

RunData read_data(const FinetuneOptions& options, const DevSplit& dev, const RecordOptions& records) {
  RunData data{.train = read("train", options.train, records), .dev = std::nullopt, .test = std::nullopt};
  if (dev.file) data.dev = read("dev", *dev.file, records);
  if (options.test) data.test = read("test", *options.test, records);
  return data;
}

/// The model, with a head for the labels of `train`.
std::unique_ptr<Classifier> load_model(const FinetuneOptions& options, const Records& train, const DeviceChoice& device) {
  LabelChoice choice = options.new_head ? LabelChoice{.labels = LabelSet::from_data(train), .from_head = false}
                                        : choose_labels(train, labels_of_model(options.model));
  if (options.positive_label) choice.labels.set_positive(*options.positive_label);
  return Classifier::load(options.model, device.device, choice.labels,
                          choice.from_head ? Classifier::Head::kept : Classifier::Head::renewed, options.seed, ArenaUse::training,
                          device.dtype);
}

/// The same, tokenized, and --dev's share taken out of the training data.
struct RunSamples {
  LabelledSamples train;
  std::optional<LabelledSamples> dev, test;
  SplitTexts dev_texts, test_texts;  ///< where the texts are, for the report
};

RunSamples prepare_samples(const Classifier& classifier, const RunData& data, const DevSplit& dev, TextKind kind,
                           std::int32_t max_length, int threads, std::uint32_t seed) {
  const auto prepared = [&](const std::string& name, const DataSet& set) {
    return prepare(name, classifier, set.records, kind, max_length, threads);
  };
  RunSamples samples{.train = prepared("train", data.train),
                     .dev = std::nullopt,
                     .test = std::nullopt,
                     .dev_texts = {.records = data.dev ? &data.dev->records : nullptr, .members = {}},
                     .test_texts = {.records = data.test ? &data.test->records : nullptr, .members = {}}};
  if (data.dev) samples.dev = prepared("dev", *data.dev);
  if (data.test) samples.test = prepared("test", *data.test);
  if (dev.share) {
    const std::vector<double> shares = {1.0 - *dev.share, *dev.share};
    const auto parts = stratified_split(samples.train.labels, shares, seed);
    samples.dev = select(samples.train, parts[1]);
    samples.train = select(samples.train, parts[0]);
    samples.dev_texts = {.records = &data.train.records, .members = parts[1]};
    write_message(
        fmt::format("dev: {} of the training rows, {} are left\n", samples.dev->labels.size(), samples.train.labels.size()));
  }
  return samples;
}

void print_plan(const Classifier& classifier, const RunSamples& samples, const FinetuneSettings& settings,
                const TrainingSteps& steps) {
  print_labels(classifier.labels(), samples.train.labels);
  write_message(fmt::format(
      "model: {:.1f}M parameters{}\n", static_cast<double>(classifier.parameter_count()) / 1e6,
      classifier.report().initialised.empty() ? "" : fmt::format(", new: {}", fmt::join(classifier.report().initialised, ", "))));
  if (const auto& unused = classifier.report().unused; !unused.empty())
    write_message(fmt::format("model: {} tensor{} of the file not used: {}\n", unused.size(), unused.size() == 1 ? "" : "s",
                              printable(quoted_list(unused, 4))));
  write_message(fmt::format("training: {} steps of {} texts, {} an epoch, {} of warm-up\n", steps.total, settings.batch_size,
                            steps.per_epoch, steps.warmup));
  if (!samples.dev) write_message(fmt::format("no --dev: nothing is evaluated, and the last epoch's model is kept\n"));
}

std::string full_path(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

/// The settings of a run, all resolved, as --config reads them again.
RunSection settings_section(const FinetuneOptions& options, const DevSplit& dev, const RecordReport& columns,
                            const ResolvedReading& reading, std::int32_t max_length, const DeviceChoice& device) {
  RunSection run{.name = "finetune",
                 .values = {{"model", full_path(options.model)},
                            {"train", full_path(options.train)},
                            {"output", full_path(options.output)},
                            {"text-column", columns.text_column},
                            {"pair-column", columns.pair_column},
                            {"label-column", columns.label_column},
                            {"lr", options.learning_rate},
                            {"weight-decay", options.weight_decay},
                            {"max-grad-norm", options.max_grad_norm},
                            {"warmup", options.warmup},
                            {"batch-size", std::int64_t{reading.batch_size}},
                            {"max-length", std::int64_t{max_length}},
                            {"seed", std::int64_t{options.seed}},
                            {"log-steps", options.log_steps},
                            {"device", device.name},
                            {"precision", device.precision},
                            {"threads", std::int64_t{device.threads}},
                            {"instruction-set", device.instruction_set},
                            {"no-header", options.reading.no_header.value_or(false)},
                            {"new-head", options.new_head},
                            {"allow-non-finite", options.allow_non_finite}}};
  if (options.positive_label) run.values.emplace_back("positive-label", *options.positive_label);
  if (options.dev) run.values.emplace_back("dev", dev.file ? full_path(*dev.file) : *options.dev);
  if (options.test) run.values.emplace_back("test", full_path(*options.test));
  if (options.reading.format) run.values.emplace_back("format", *options.reading.format);
  run.values.emplace_back(options.max_steps > 0 ? "max-steps" : "epochs",
                          options.max_steps > 0 ? RunValue(options.max_steps) : RunValue(options.epochs));
  return run;
}

/// What was chosen for a run, and why.
RunSection chosen_section(const DeviceChoice& device, const TrainingSteps& steps) {
  const bool on_cpu = device.device->kind() == DeviceKind::cpu;
  return {.name = "chosen",
          .values = {{"device-reason", device.device_reason},
                     {"threads-reason", device.threads_reason},
                     {"precision-reason", device.precision_reason},
                     on_cpu ? std::pair{"instruction-set", RunValue(device.target)} : std::pair{"gpu", RunValue(device.model)},
                     {"matrix-products", device.products},
                     {"version", std::string(LATHE_VERSION)},
                     {"total-steps", steps.total},
                     {"warmup-steps", steps.warmup}}};
}

/// What a run reads, with hashes of the contents.
RunSection inputs_section(const Classifier& classifier, const fs::path& model, std::vector<fs::path> files) {
  files.push_back(model / "config.json");
  files.push_back(model / "model.safetensors");
  const auto tokenizer = classifier.tokenizer().files();
  files.insert(files.end(), tokenizer.begin(), tokenizer.end());
  for (fs::path& file : files) file = full_path(file);
  // A file may be given twice, as --train and --test; TOML wants each key once.
  std::ranges::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  RunSection hashes{.name = "inputs", .values = {}};
  for (const fs::path& file : files) hashes.values.emplace_back(file.string(), content_hash(file));
  return hashes;
}

/// Of a replay: says what isn't as it was in the run whose settings these are.
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

/// Trains and, unless interrupted, scores --test by the model that is kept.
RunResults train_and_test(Classifier& classifier, const RunSamples& samples, const FinetuneSettings& settings,
                          const fs::path& output, RunObserver& observer, const std::atomic<int>& stop) {
  RunResults results{
      .labels = classifier.labels().names(), .dev = std::nullopt, .test = std::nullopt, .train = {}, .peak_memory_bytes = 0};
  results.train = finetune(classifier, samples.train, samples.dev ? &*samples.dev : nullptr, settings, observer, &stop);
  observer.finish();
  if (results.train.best) results.dev = results.train.best->metrics;
  if (!results.train.interrupted && samples.test) {
    // The model that is kept may be an earlier one than the last.
    classifier.reload(output);
    results.test = evaluate_until(&stop, classifier, samples.test->samples, samples.test->labels, settings.batch_size);
    results.train.interrupted = !results.test.has_value();
  }
  if (results.test) {
    observer.log().write(EvaluationLog{.step = results.train.best ? results.train.best->step : results.train.steps,
                                       .epoch = results.train.best ? results.train.best->epoch : results.train.epochs,
                                       .metrics = *results.test,
                                       .best = false},
                         "test", results.labels);
  }
  results.peak_memory_bytes = peak_memory_bytes();
  if (classifier.device()->kind() == DeviceKind::cuda) results.peak_gpu_memory_bytes = classifier.device()->memory().peak;
  return results;
}

void print_training(const RunResults& results) {
  const auto gigabytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  write_message(fmt::format(
      "trained {} steps in {:.1f} s, {:.0f} tokens/s, {}{:.2f} GB at most\n", results.train.steps, results.train.seconds,
      results.train.seconds > 0.0 ? static_cast<double>(results.train.tokens) / results.train.seconds : 0.0,
      results.peak_gpu_memory_bytes ? fmt::format("{:.2f} GB of the GPU's memory and ", gigabytes(*results.peak_gpu_memory_bytes))
                                    : "",
      gigabytes(results.peak_memory_bytes)));
}

void print_interruption(const RunResults& results, const fs::path& output) {
  const bool kept = fs::exists(output / "model.safetensors");
  write_message(fmt::format("interrupted after step {}; {}\n", results.train.steps,
                            kept ? "the model saved before is in place" : "no model was saved yet"));
}

void print_scores(const RunResults& results) {
  if (results.dev) fmt::print("dev: {}", format_report(*results.dev, results.labels));
  if (results.dev && results.test) fmt::print("\n");
  if (results.test) fmt::print("test: {}", format_report(*results.test, results.labels));
}

}  // namespace

int finetune_command(const FinetuneOptions& call) {
  FinetuneOptions options = call;
  options.model = find_model(call.model, hub_cache_folder());
  const DevSplit dev_split = parse_dev(options.dev);
  const ResolvedReading reading = resolve(options.reading, options.running, {});
  const FinetuneSettings settings = settings_of(options, reading.batch_size);
  std::vector<fs::path> inputs = {options.train};
  if (dev_split.file) inputs.push_back(*dev_split.file);
  if (options.test) inputs.push_back(*options.test);
  check_readable_twice(inputs);
  const Existing existing = options.overwrite ? Existing::overwrite : Existing::refuse;
  check_output_folder(options.output, options.model, inputs, existing);

  const DeviceChoice device = choose_device(options.running);
  write_message(fmt::format("device: {}\n", describe(device)));
  const RunData data = read_data(options, dev_split, reading.records);
  const auto classifier = load_model(options, data.train.records, device);
  check_finite(*classifier, options);
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);
  const RunSamples samples =
      prepare_samples(*classifier, data, dev_split, reading.kind(), max_length, device.threads, options.seed);
  const TrainingSteps steps = finetune_steps(settings, samples.train.samples.count());
  print_plan(*classifier, samples, settings, steps);
  const RunSection hashes = inputs_section(*classifier, options.model, inputs);
  if (options.config) warn_of_changes(*options.config, hashes, device);
  if (options.dry_run) {
    fmt::print("{}", format_estimate(estimate_run(*classifier, samples.train, samples.dev ? &*samples.dev : nullptr, settings),
                                     settings));
    return 0;
  }

  rehearse(*classifier, samples.train, settings);
  const FileLock lock = prepare_output_folder(options.output, existing);
  const std::vector<RunSection> sections = {settings_section(options, dev_split, data.train.report, reading, max_length, device),
                                            chosen_section(device, steps), hashes};
  write_run_file(options.output, sections);
  classifier->save_description(options.output);

  const std::atomic<int>& stop = watch_stop_signals();
  RunObserver observer(options.output, classifier->labels(), steps);
  RunResults results = train_and_test(*classifier, samples, settings, options.output, observer, stop);
  results.device = device.model;
  results.precision = device.precision;
  write_results(options.output, results);
  write_pictures(options.output, results, observer.curves(), samples.dev_texts, samples.test_texts, sections);
  print_training(results);
  if (results.train.interrupted) {
    print_interruption(results, options.output);
    return 128 + stop.load();
  }
  print_scores(results);
  write_message(fmt::format("wrote {}\n", options.output.string()));
  return 0;
}

}  // namespace lathe
