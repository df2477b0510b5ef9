#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "lathe/runtime/error.h"
#include "lathe/text/split.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/finetune.h"
#include "lathe/training/output_folder.h"
#include "lathe/training/results.h"
#include "tools/commands.h"
#include "tools/progress.h"
#include "tools/run_file.h"
#include "tools/setup.h"
#include "tools/signals.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// --dev: a share of the training data, or a file. "0.1" is a share unless a file has that name.
struct DevSplit {
  std::optional<double> share;
  std::optional<fs::path> file;
};

DevSplit parse_dev(const std::optional<std::string>& dev) {
  if (!dev) return {};
  double share = 0.0;
  const auto [end, failure] = std::from_chars(dev->data(), dev->data() + dev->size(), share);
  const bool number = failure == std::errc() && end == dev->data() + dev->size();
  if (!number || fs::exists(*dev)) return {.share = std::nullopt, .file = *dev};
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

/// Reads a labelled file and says what was read.
DataSet read(const std::string& name, const fs::path& path, const RecordOptions& records) {
  DataSet data = read_records(path, records);
  print_reading(name, data.report);
  return data;
}

/// The samples `members` of `all`.
LabelledSamples select(const LabelledSamples& all, const std::vector<std::int64_t>& members) {
  LabelledSamples part;
  for (const std::int64_t i : members) {
    const auto begin = all.samples.offsets[static_cast<std::size_t>(i)];
    const auto end = all.samples.offsets[static_cast<std::size_t>(i) + 1];
    part.samples.ids.insert(part.samples.ids.end(), all.samples.ids.begin() + begin, all.samples.ids.begin() + end);
    part.samples.types.insert(part.samples.types.end(), all.samples.types.begin() + begin, all.samples.types.begin() + end);
    part.samples.offsets.push_back(static_cast<std::int64_t>(part.samples.ids.size()));
    part.labels.push_back(all.labels[static_cast<std::size_t>(i)]);
  }
  return part;
}

/// Tokenizes and says how it went.
LabelledSamples prepare(const std::string& name, const Classifier& classifier, const Records& records, TextKind kind,
                        std::int32_t max_length, int threads) {
  EncodedTexts encoded = tokenize(classifier, records, kind, max_length, threads);
  const auto tokens = static_cast<double>(encoded.samples.ids.size());
  fmt::print(stderr, "{}: {} tokens{}, {:.2f} % unknown\n", name, encoded.samples.ids.size(),
             encoded.truncated > 0 ? fmt::format(", {} of {} rows cut to {} tokens (the longest has {})", encoded.truncated,
                                                 records.size(), max_length, encoded.longest)
                                   : "",
             tokens > 0 ? 100.0 * static_cast<double>(encoded.unknown) / tokens : 0.0);
  return {.samples = std::move(encoded.samples), .labels = classifier.labels().ids_of(records)};
}

void print_labels(const LabelSet& labels, std::span<const std::int32_t> ids) {
  const auto counts = class_counts(ids, labels.size());
  std::string text;
  constexpr std::int32_t kMost = 20;
  for (std::int32_t i = 0; i < std::min(labels.size(), kMost); ++i) {
    text += fmt::format("{}\"{}\" ({})", i == 0 ? "" : ", ", printable(labels.name(i)), counts[static_cast<std::size_t>(i)]);
  }
  if (labels.size() > kMost) text += fmt::format(", ... ({} in all)", labels.size());
  if (labels.size() == 2) text += fmt::format("; \"{}\" is the positive one", printable(labels.name(1)));
  fmt::print(stderr, "labels: {}\n", text);
}

/// Writes the run's files and tells the terminal.
class RunObserver final : public FinetuneObserver {
 public:
  RunObserver(fs::path output, const LabelSet& labels, std::int64_t total_steps)
      : output_(std::move(output)), labels_(labels), log_(output_), progress_(total_steps) {}

  void stepped(std::int64_t step, std::int64_t, std::int64_t tokens) override { progress_.advance(step, tokens); }
  void logged(const StepLog& log) override {
    log_.write(log);
    progress_.note(log.step, fmt::format("loss {:.4f}  {:.0f} tokens/s", log.loss, log.tokens_per_second));
  }
  void evaluated(const EvaluationLog& log) override {
    log_.write(log, "dev", labels_.names());
    const ClassificationMetrics& m = log.metrics;
    const std::string f1 = m.binary() ? fmt::format("F1 {:.4f}", m.positive().f1) : fmt::format("macro F1 {:.4f}", m.macro.f1);
    progress_.line(fmt::format("epoch {:.4g}: dev loss {:.4f}, accuracy {:.4f}, {}{}", log.epoch, m.loss, m.accuracy, f1,
                               log.best ? ", the best so far: saved" : ""));
  }
  void save(const Classifier& classifier) override { classifier.save_weights(output_); }
  void finish() { progress_.finish(); }
  MetricsLog& log() { return log_; }

 private:
  fs::path output_;
  const LabelSet& labels_;
  MetricsLog log_;
  Progress progress_;
};

}  // namespace

int finetune_command(const FinetuneOptions& options) {
  const DevSplit dev_split = parse_dev(options.dev);
  const ResolvedReading reading = resolve(options.reading, options.running, {});
  const FinetuneSettings settings = settings_of(options, reading.batch_size);
  std::vector<fs::path> inputs = {options.train};
  if (dev_split.file) inputs.push_back(*dev_split.file);
  if (options.test) inputs.push_back(*options.test);
  check_output_folder(options.output, options.model, inputs, options.overwrite ? Existing::overwrite : Existing::refuse);

  const DeviceChoice device = choose_device(options.running);
  fmt::print(stderr, "device: {}\n", describe(device));
  // All files are read, and all that is wrong with them is known, before anything is written.
  const DataSet train_data = read("train", options.train, reading.records);
  std::optional<DataSet> dev_data;
  std::optional<DataSet> test_data;
  if (dev_split.file) dev_data = read("dev", *dev_split.file, reading.records);
  if (options.test) test_data = read("test", *options.test, reading.records);
  const LabelChoice labels = choose_labels(train_data.records, labels_of_model(options.model));
  const auto classifier = Classifier::load(options.model, device.device, labels.labels,
                                           labels.from_head ? Classifier::Head::kept : Classifier::Head::renewed, options.seed);
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);
  LabelledSamples train = prepare("train", *classifier, train_data.records, reading.kind(), max_length, device.threads);
  std::optional<LabelledSamples> dev;
  std::optional<LabelledSamples> test;
  if (dev_data) dev = prepare("dev", *classifier, dev_data->records, reading.kind(), max_length, device.threads);
  if (test_data) test = prepare("test", *classifier, test_data->records, reading.kind(), max_length, device.threads);
  if (dev_split.share) {
    const std::vector<double> shares = {1.0 - *dev_split.share, *dev_split.share};
    const auto parts = stratified_split(train.labels, shares, options.seed);
    dev = select(train, parts[1]);
    train = select(train, parts[0]);
    fmt::print(stderr, "dev: {} of the training rows, {} are left\n", dev->labels.size(), train.labels.size());
  }
  print_labels(classifier->labels(), train.labels);
  fmt::print(stderr, "model: {:.1f}M parameters{}\n", static_cast<double>(classifier->parameter_count()) / 1e6,
             classifier->report().initialised.empty()
                 ? ""
                 : fmt::format(", new: {}", fmt::join(classifier->report().initialised, ", ")));
  const FinetuneSteps steps = finetune_steps(settings, train.samples.count());
  fmt::print(stderr, "training: {} steps of {} texts, {} an epoch, {} of warm-up\n", steps.total, settings.batch_size,
             steps.per_epoch, steps.warmup);
  if (!dev) fmt::print(stderr, "no --dev: nothing is evaluated, and the last epoch's model is kept\n");

  prepare_output_folder(options.output);
  const auto absolute = [](const fs::path& path) { return fs::absolute(path).lexically_normal().string(); };
  RunSection run{.name = "finetune",
                 .values = {{"model", absolute(options.model)},
                            {"train", absolute(options.train)},
                            {"output", absolute(options.output)},
                            {"text-column", train_data.report.text_column},
                            {"pair-column", train_data.report.pair_column},
                            {"label-column", train_data.report.label_column},
                            {"lr", settings.learning_rate},
                            {"weight-decay", options.weight_decay},
                            {"max-grad-norm", options.max_grad_norm},
                            {"warmup", options.warmup},
                            {"batch-size", std::int64_t{reading.batch_size}},
                            {"max-length", std::int64_t{max_length}},
                            {"seed", std::int64_t{options.seed}},
                            {"log-steps", settings.log_steps},
                            {"device", device.name},
                            {"precision", device.precision},
                            {"threads", std::int64_t{device.threads}}}};
  if (options.dev) run.values.emplace_back("dev", dev_split.file ? absolute(*dev_split.file) : *options.dev);
  if (options.test) run.values.emplace_back("test", absolute(*options.test));
  if (options.reading.format) run.values.emplace_back("format", *options.reading.format);
  run.values.emplace_back(options.max_steps > 0 ? "max-steps" : "epochs",
                          options.max_steps > 0 ? RunValue(options.max_steps) : RunValue(options.epochs));
  const RunSection chosen{.name = "chosen",
                          .values = {{"device-reason", device.device_reason},
                                     {"threads-reason", device.threads_reason},
                                     {"precision-reason", device.precision_reason},
                                     {"instruction-set", device.instruction_set},
                                     {"matrix-products", std::string(MatmulPlans::library())},
                                     {"version", std::string(LATHE_VERSION)},
                                     {"total-steps", steps.total},
                                     {"warmup-steps", steps.warmup}}};
  RunSection hashes{.name = "inputs", .values = {}};
  inputs.push_back(options.model / "model.safetensors");
  for (const fs::path& input : inputs) hashes.values.emplace_back(fmt::format("\"{}\"", absolute(input)), content_hash(input));
  write_run_file(options.output, {run, chosen, hashes});
  classifier->save_description(options.output);

  const std::atomic<int>& stop = watch_stop_signals();
  RunObserver observer(options.output, classifier->labels(), steps.total);
  RunResults results{
      .labels = classifier->labels().names(), .dev = std::nullopt, .test = std::nullopt, .train = {}, .peak_memory_bytes = 0};
  results.train = finetune(*classifier, train, dev ? &*dev : nullptr, settings, observer, &stop);
  observer.finish();
  if (results.train.best) results.dev = results.train.best->metrics;
  if (!results.train.interrupted && test) {
    // The model that is kept may be an earlier one than the last.
    classifier->reload(options.output);
    results.test = evaluate(*classifier, test->samples, test->labels, settings.batch_size);
    observer.log().write(EvaluationLog{.step = results.train.best ? results.train.best->step : results.train.steps,
                                       .epoch = results.train.best ? results.train.best->epoch : results.train.epochs,
                                       .metrics = *results.test,
                                       .best = false},
                         "test", results.labels);
  }
  results.peak_memory_bytes = peak_memory_bytes();
  write_results(options.output, results);

  fmt::print(stderr, "trained {} steps in {:.1f} s, {:.0f} tokens/s, {:.2f} GB at most\n", results.train.steps,
             results.train.seconds,
             results.train.seconds > 0.0 ? static_cast<double>(results.train.tokens) / results.train.seconds : 0.0,
             static_cast<double>(results.peak_memory_bytes) / 1e9);
  if (results.train.interrupted) {
    const bool kept = fs::exists(options.output / "model.safetensors");
    fmt::print(stderr, "interrupted after step {}; {}\n", results.train.steps,
               kept ? "the model saved before is in place" : "no model was saved yet");
    return 128 + stop.load();
  }
  if (results.dev) fmt::print("dev: {}", format_report(*results.dev, results.labels));
  if (results.dev && results.test) fmt::print("\n");
  if (results.test) fmt::print("test: {}", format_report(*results.test, results.labels));
  fmt::print(stderr, "wrote {}\n", options.output.string());
  return 0;
}

}  // namespace lathe
