#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/text/quoted_list.h"
#include "lathe/text/split.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/finetune.h"
#include "lathe/training/output_folder.h"
#include "lathe/training/results.h"
#include "tools/cache_choice.h"
#include "tools/commands.h"
#include "tools/dry_run.h"
#include "tools/pictures.h"
#include "tools/progress.h"
#include "tools/ranks.h"
#include "tools/run_file.h"
#include "tools/run_record.h"
#include "tools/setup.h"
#include "tools/signals.h"
#include "tools/standard_streams.h"
#include "tools/terminal.h"
#include "tools/training_setup.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

/// Reads a labelled file and says what was read.
DataSet read(const std::string& name, const fs::path& path, const RecordOptions& records) {
  DataSet data = read_records(path, records);
  print_reading(name, data.report);
  return data;
}

/// Tokenizes and says how it went.
LabelledSamples prepare(const std::string& name, const Classifier& classifier, const Records& records, TextKind kind,
                        std::int32_t max_length, int threads, TokenCache* cache) {
  TokenizedTexts encoded = tokenize(classifier, records, kind, max_length, threads, cache);
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

/// Writes the run's files and tells the terminal.
class RunObserver final : public FinetuneObserver {
 public:
  RunObserver(fs::path output, const LabelSet& labels, const TrainingSteps& steps, Ranks& ranks)
      : output_(std::move(output)), labels_(labels), ranks_(ranks), log_(output_), progress_(steps.total) {
    curves_.steps_per_epoch = steps.per_epoch;
    if (labels.size() == 2) curves_.f1_name = fmt::format("F1 of “{}”", labels.name(labels.positive()));
  }

  void tuned(const std::string& table) override { write_product_table(output_, table); }
  void traced(const std::string& chrome_trace) override { write_trace(output_, chrome_trace); }
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
  void save(const Classifier& classifier) override {
    const auto tell = [this] { ranks_.working("saving"); };
    tell();
    classifier.save_weights(output_, tell);
  }
  void finish() { progress_.finish(); }
  MetricsLog& log() { return log_; }
  const Curves& curves() const { return curves_; }

 private:
  fs::path output_;
  const LabelSet& labels_;
  Ranks& ranks_;
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
                           std::int32_t max_length, int threads, std::uint32_t seed, TokenCache* cache) {
  const auto prepared = [&](const std::string& name, const DataSet& set) {
    return prepare(name, classifier, set.records, kind, max_length, threads, cache);
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

/// The settings of a run, all resolved, as --config reads them again.
RunSection settings_section(const FinetuneOptions& options, const DevSplit& dev, const RecordReport& columns,
                            const ResolvedReading& reading, std::int32_t max_length, const DeviceChoice& device) {
  RunSection run{.name = "finetune",
                 .values = {{"model", full_path(options.model)},
                            {"train", full_path(options.train)},
                            {"text-column", columns.text_column},
                            {"pair-column", columns.pair_column},
                            {"label-column", columns.label_column},
                            {"batch-size", std::int64_t{reading.batch_size}},
                            {"max-length", std::int64_t{max_length}},
                            {"no-header", options.reading.no_header.value_or(false)},
                            {"new-head", options.new_head}}};
  append_training_settings(run, options, dev, device);
  if (options.positive_label) run.values.emplace_back("positive-label", *options.positive_label);
  if (options.test) run.values.emplace_back("test", full_path(*options.test));
  if (options.reading.format) run.values.emplace_back("format", *options.reading.format);
  return run;
}

/// Trains and, unless interrupted, scores --test by the model that is kept. The first rank has an observer.
RunResults train_and_test(Classifier& classifier, const RunSamples& samples, const FinetuneSettings& settings,
                          const fs::path& output, RunObserver* observer, const std::atomic<int>& stop, Ranks& ranks) {
  FinetuneObserver nobody;
  FinetuneObserver& told = observer != nullptr ? *observer : nobody;
  Communicator* const communicator = ranks.communicator(classifier.device());
  RunResults results{
      .labels = classifier.labels().names(), .dev = std::nullopt, .test = std::nullopt, .train = {}, .peak_memory_bytes = 0};
  results.train = finetune(classifier, samples.train, samples.dev ? &*samples.dev : nullptr, settings, told, &stop, communicator);
  if (observer != nullptr) observer->finish();
  if (results.train.best) results.dev = results.train.best->metrics;
  if (!results.train.interrupted && samples.test) {
    // The model that is kept may be an earlier one than the last.
    if (ranks.first()) classifier.reload(output);
    share_weights(communicator, classifier.parameters());
    results.test =
        evaluate_until(&stop, classifier, samples.test->samples, samples.test->labels, settings.batch_size, communicator);
    results.train.interrupted = !results.test.has_value();
  }
  if (results.test && observer != nullptr) {
    observer->log().write(EvaluationLog{.step = results.train.best ? results.train.best->step : results.train.steps,
                                        .epoch = results.train.best ? results.train.best->epoch : results.train.epochs,
                                        .metrics = *results.test,
                                        .best = false},
                          "test", results.labels);
  }
  results.peak_memory_bytes = peak_memory_bytes();
  return results;
}

void print_interruption(const TrainingResult& result, const fs::path& output) {
  const bool kept = fs::exists(output / "model.safetensors");
  write_message(fmt::format("interrupted after step {}; {}\n", result.steps,
                            kept ? "the model saved before is in place" : "no model was saved yet"));
}

void print_scores(const RunResults& results) {
  if (results.dev) fmt::print("dev: {}", format_report(*results.dev, results.labels));
  if (results.dev && results.test) fmt::print("\n");
  if (results.test) fmt::print("test: {}", format_report(*results.test, results.labels));
}

}  // namespace

int finetune_command(const FinetuneOptions& call, Ranks& ranks) {
  FinetuneOptions options = call;
  options.model = find_model(call.model, hub_cache_folder());
  const DevSplit dev_split = parse_dev(options.dev);
  const ResolvedReading reading = resolve(options.reading, options.running, {});
  FinetuneSettings settings;
  static_cast<TrainingSettings&>(settings) = training_settings(options);
  settings.batch_size = reading.batch_size;
  std::vector<fs::path> inputs = {options.train};
  if (dev_split.file) inputs.push_back(*dev_split.file);
  if (options.test) inputs.push_back(*options.test);
  check_readable_twice("finetune", inputs);
  const Existing existing = options.overwrite ? Existing::overwrite : Existing::refuse;
  if (ranks.first()) check_output_folder(options.output, options.model, inputs, existing);

  const DeviceChoice device = choose_device(options.running, ranks);
  write_message(fmt::format("device: {}\n", describe(device)));
  const std::string products = choose_products(options, device, ranks.first());
  const RunData data = read_data(options, dev_split, reading.records);
  const auto classifier = load_model(options, data.train.records, device);
  check_finite(classifier->report(), options.model, options);
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);
  const auto cache = choose_token_cache(options.cache_dir, ranks.place().local_size, cache_use(options));
  const RunSamples samples =
      prepare_samples(*classifier, data, dev_split, reading.kind(), max_length,
                      tokenizing_threads(options.running, device.threads, cache.get()), options.seed, cache.get());
  const TrainingSteps steps = finetune_steps(settings, samples.train.samples.count());
  print_plan(*classifier, samples, settings, steps);
  const RunSection hashes = inputs_section(std::move(inputs), &options.model, classifier->tokenizer());
  if (options.config) warn_of_changes(*options.config, hashes, device);
  const LabelledSamples* const dev = samples.dev ? &*samples.dev : nullptr;
  const MemoryEstimate memory = estimate_memory(*classifier, samples.train, dev, settings, ranks.place());
  if (ranks.size() == 1) print_memory(memory, *device.device);
  expect_memory(memory, *classifier, samples.train, dev, settings, ranks.place());
  const std::vector<RunSection> sections = {settings_section(options, dev_split, data.train.report, reading, max_length, device),
                                            chosen_section(device, steps, ranks), hashes};
  ranks.agree(Ranks::Part::more, common_facts(sections));
  const MemoryEstimate most = most_memory(memory, *device.device, ranks);
  take_products_of_first(products, device, ranks);
  if (options.dry_run) {
    ranks.agree(Ranks::Part::last);
    fmt::print("{}",
               format_estimate(estimate_run(*classifier, samples.train, dev, settings, ranks.communicator(classifier->device())),
                               fmt::format("{} texts", settings.batch_size)));
    return 0;
  }

  rehearse(*classifier, samples.train, settings, ranks.place());
  std::optional<FileLock> lock;
  std::optional<RunObserver> observer;
  if (ranks.first()) {
    lock.emplace(prepare_output_folder(options.output, existing));
    write_run_file(options.output, sections);
    classifier->save_description(options.output);
    observer.emplace(options.output, classifier->labels(), steps, ranks);
  }
  ranks.agree(Ranks::Part::last);

  const std::atomic<int>& stop = watch_stop_signals();
  RunResults results =
      train_and_test(*classifier, samples, settings, options.output, observer ? &*observer : nullptr, stop, ranks);
  if (!observer) return results.train.interrupted ? 128 + stop.load() : 0;
  ranks.working("writing results");
  results.place = place_of(device, ranks);
  results.place.estimated_memory_bytes = most.total();
  write_results(options.output, results);
  write_pictures(options.output, results, observer->curves(), samples.dev_texts, samples.test_texts, sections);
  print_training(results.train, results.peak_memory_bytes, results.place);
  if (results.train.interrupted) {
    print_interruption(results.train, options.output);
    return 128 + stop.load();
  }
  print_scores(results);
  write_message(fmt::format("wrote {}\n", options.output.string()));
  return 0;
}

}  // namespace lathe
