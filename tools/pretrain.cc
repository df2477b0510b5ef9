#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/host_memory.h"
#include "lathe/text/masking.h"
#include "lathe/text/quoted_list.h"
#include "lathe/training/dataset.h"
#include "lathe/training/number_text.h"
#include "lathe/training/output_folder.h"
#include "lathe/training/pretrain.h"
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

constexpr std::int64_t kUsualLength = 512;

/// The sizes that were given, by their options.
std::vector<std::string> given(const ModelSizes& sizes) {
  std::vector<std::string> names;
  if (sizes.layers) names.emplace_back("--layers");
  if (sizes.hidden_size) names.emplace_back("--hidden-size");
  if (sizes.heads) names.emplace_back("--heads");
  if (sizes.intermediate_size) names.emplace_back("--intermediate-size");
  return names;
}

/// Refuses options that don't go together.
void check_start(const PretrainOptions& options) {
  if (!options.model && !options.tokenizer) {
    throw UsageError(
        "--model DIR|NAME or --tokenizer DIR|FILE is missing: weights to go on with, or the tokens of a model from scratch");
  }
  const ModelSizes& sizes = options.sizes;
  if (options.model) {
    const std::vector<std::string> names = given(sizes);
    if (!names.empty()) {
      throw UsageError(fmt::format("{} {} for a model from scratch (--tokenizer); the sizes of --model are in its config.json",
                                   fmt::join(names, ", "), names.size() == 1 ? "is" : "are"));
    }
    return;
  }
  std::vector<std::string> missing;
  if (!sizes.layers) missing.emplace_back("--layers");
  if (!sizes.hidden_size) missing.emplace_back("--hidden-size");
  if (!sizes.heads) missing.emplace_back("--heads");
  if (!missing.empty())
    throw UsageError(fmt::format("a model from scratch needs its sizes: {} missing", fmt::join(missing, ", ")));
  if (*sizes.hidden_size % *sizes.heads != 0)
    throw UsageError(fmt::format("--heads {} do not divide --hidden-size {}", *sizes.heads, *sizes.hidden_size));
  constexpr std::int64_t kWidestHead = 256;
  if (*sizes.hidden_size / *sizes.heads > kWidestHead) {
    throw UsageError(fmt::format("--hidden-size {} over {} heads makes heads of {}; Lathe's attention goes up to {}",
                                 *sizes.hidden_size, *sizes.heads, *sizes.hidden_size / *sizes.heads, kWidestHead));
  }
}

/// The tokenizer of a folder, or of the folder that a vocab.txt is in.
WordPieceTokenizer load_tokenizer(const fs::path& given) {
  std::error_code ignored;
  if (!fs::is_regular_file(given, ignored)) return WordPieceTokenizer::load(find_model(given, hub_cache_folder()));
  if (given.filename() != "vocab.txt")
    throw UsageError(
        fmt::format("--tokenizer {}: a vocabulary by itself is called vocab.txt, as Hugging Face has it", given.string()));
  return WordPieceTokenizer::load(fs::absolute(given).parent_path());
}

/// What --model's config.json would say of a model from scratch.
BertConfig config_of(const PretrainOptions& options, const WordPieceTokenizer& tokenizer) {
  BertConfig config;
  config.vocabulary_size = tokenizer.vocabulary_size();
  config.layers = *options.sizes.layers;
  config.hidden_size = *options.sizes.hidden_size;
  config.heads = *options.sizes.heads;
  config.intermediate_size = options.sizes.intermediate_size.value_or(4 * config.hidden_size);
  config.max_positions = std::max<std::int64_t>(kUsualLength, options.running.max_length.value_or(0));
  config.pad_token_id = tokenizer.special_tokens().padding.value_or(0);
  config.hidden_dropout = options.dropout.value_or(config.hidden_dropout);
  config.attention_dropout = options.dropout.value_or(config.attention_dropout);
  return config;
}

/// Refuses a model that can't be trained on the CPU here before any memory is taken for it.
void check_memory(const BertConfig& config) {
  const auto c = static_cast<double>(config.hidden_size);
  const auto f = static_cast<double>(config.intermediate_size);
  const auto tables = static_cast<double>(config.vocabulary_size + config.max_positions);
  const double parameters = c * tables + static_cast<double>(config.layers) * (4.0 * c * c + 2.0 * c * f) + c * c;
  constexpr double kBytes = 16.0;  // a weight, its gradient, two moments
  constexpr double kGibibyte = 1 << 30;
  const double needed = kBytes * parameters;
  const auto free = static_cast<double>(std::min(available_host_memory(), available_addresses()));
  if (needed <= free) return;
  throw OutOfMemoryError(
      fmt::format(
          "a model of {:.4g} parameters takes at least {:.4g} GiB to train, and {:.1f} GiB are free; take smaller ones of "
          "--layers, --hidden-size and --intermediate-size",
          parameters, needed / kGibibyte, free / kGibibyte),
      static_cast<std::int64_t>(needed), static_cast<std::int64_t>(free));
}

/// Sequences to train on and to measure the loss of.
struct RunSequences {
  TokenizedSamples train;
  std::optional<TokenizedSamples> dev;
};

/// Says what was read.
void print_sequences(const std::string& name, const TokenizedDocuments& made) {
  const double share = made.tokens > 0 ? 100.0 * static_cast<double>(made.unknown) / static_cast<double>(made.tokens) : 0.0;
  write_message(fmt::format("{}: {}, {}, {}, {:.2f} % of them unknown, in {}{}\n", name, counted(made.documents(), "document"),
                            counted(made.paragraphs, "paragraph"), counted(made.tokens, "token"), share,
                            counted(made.samples.count(), "sequence"), made.from_cache ? ", from the cache" : ""));
}

TokenizedDocuments read_sequences(const std::string& name, const std::vector<fs::path>& files,
                                  const WordPieceTokenizer& tokenizer, std::int32_t max_length, int threads, TokenCache* cache) {
  TokenizedDocuments made = tokenize_documents(tokenizer, files, max_length, threads, cache);
  print_sequences(name, made);
  if (made.samples.count() == 0) throw FormatError(files.front(), "", "the text makes no token that could be guessed");
  return made;
}

RunSequences read_all(const PretrainOptions& options, const DevSplit& dev, const WordPieceTokenizer& tokenizer,
                      std::int32_t max_length, int threads, TokenCache* cache) {
  TokenizedDocuments train = read_sequences("train", options.train, tokenizer, max_length, threads, cache);
  RunSequences sequences;
  if (dev.share) {
    const HeldOut parts = hold_out(train.documents(), *dev.share, options.seed);
    sequences.dev = sequences_of(train, parts.dev);
    sequences.train = sequences_of(train, parts.train);
    write_message(fmt::format("dev: {} of the training data, {} are left\n",
                              counted(static_cast<std::int64_t>(parts.dev.size()), "document"), parts.train.size()));
    if (sequences.dev->count() == 0 || sequences.train.count() == 0)
      throw UsageError(fmt::format("--dev {}: a part of the documents has no token that could be guessed", *options.dev));
  } else {
    sequences.train = std::move(train.samples);
  }
  if (dev.file) sequences.dev = read_sequences("dev", {*dev.file}, tokenizer, max_length, threads, cache).samples;
  return sequences;
}

std::unique_ptr<MaskedLm> load_or_create(const PretrainOptions& options, const std::optional<WordPieceTokenizer>& tokenizer,
                                         const std::optional<BertConfig>& config, const DeviceChoice& device) {
  if (options.model)
    return MaskedLm::load(*options.model, device.device, options.seed, options.dropout, ArenaUse::training, device.dtype);
  return MaskedLm::create(*config, *tokenizer, device.device, options.seed, device.dtype);
}

void print_plan(const MaskedLm& model, const RunSequences& sequences, const PretrainOptions& options,
                const TrainingSteps& steps) {
  const BertConfig& config = model.config();
  write_message(fmt::format("model: {:.1f}M parameters{}; {} layers, hidden size {}, {} heads, {} tokens\n",
                            static_cast<double>(model.parameter_count()) / 1e6, options.model ? "" : ", all new", config.layers,
                            config.hidden_size, config.heads, config.vocabulary_size));
  if (options.model && !model.report().initialised.empty())
    write_message(fmt::format("model: new: {}\n", fmt::join(model.report().initialised, ", ")));
  if (const auto& unused = model.report().unused; !unused.empty())
    write_message(fmt::format("model: {} of the file not used: {}\n", counted(static_cast<std::int64_t>(unused.size()), "tensor"),
                              printable(quoted_list(unused, 4))));
  write_message(fmt::format("training: {} steps of up to {} tokens, {} in the first epoch, {} of warm-up\n", steps.total,
                            options.batch_tokens, steps.per_epoch, steps.warmup));
  if (!sequences.dev) write_message("no --dev: the loss is that of training alone\n");
}

/// Writes the run's files and tells the terminal.
class RunObserver final : public PretrainObserver {
 public:
  RunObserver(fs::path output, const TrainingSteps& steps, Ranks& ranks)
      : output_(std::move(output)), ranks_(ranks), log_(output_), progress_(steps.total) {
    curves_.steps_per_epoch = steps.per_epoch;
  }

  void tuned(const std::string& table) override { write_product_table(output_, table); }
  void traced(const std::string& chrome_trace) override { write_trace(output_, chrome_trace); }
  void stepped(std::int64_t step, std::int64_t, std::int64_t tokens) override { progress_.advance(step, tokens); }
  void logged(const StepLog& log) override {
    log_.write(log);
    collect(curves_, log);
    progress_.note(log.step, fmt::format("loss {:.4f}  perplexity {:.5g}  {:.0f} tokens/s", log.loss, std::exp(log.loss),
                                         log.tokens_per_second));
  }
  void evaluated(const MaskedLmEvaluation& log) override {
    log_.write(log, "dev");
    collect(curves_, log);
    progress_.line(fmt::format("epoch {:.4g}: dev loss {:.4f}, perplexity {:.5g}, {} masked tokens", log.epoch, log.score.loss,
                               log.score.perplexity(), log.score.tokens));
  }
  void save(const MaskedLm& model) override {
    const auto tell = [this] { ranks_.working("saving"); };
    tell();
    model.save_weights(output_, tell);
  }
  void finish() { progress_.finish(); }
  const Curves& curves() const { return curves_; }

 private:
  fs::path output_;
  Ranks& ranks_;
  MetricsLog log_;
  Curves curves_;
  Progress progress_;
};

/// The settings of a run, all resolved, as --config reads them again.
RunSection settings_section(const PretrainOptions& options, const DevSplit& dev, const BertConfig& config,
                            std::int32_t max_length, const DeviceChoice& device) {
  RunSection run{.name = "pretrain", .values = {{"task", options.task}}};
  if (options.model) run.values.emplace_back("model", full_path(*options.model));
  if (options.tokenizer) {
    run.values.insert(run.values.end(), {{"tokenizer", full_path(*options.tokenizer)},
                                         {"layers", config.layers},
                                         {"hidden-size", config.hidden_size},
                                         {"heads", config.heads},
                                         {"intermediate-size", config.intermediate_size}});
  }
  std::vector<std::string> files;
  for (const fs::path& file : options.train) files.push_back(full_path(file));
  run.values.emplace_back("train", files.size() == 1 ? RunValue(files.front()) : RunValue(files));
  if (options.dropout) run.values.emplace_back("dropout", *options.dropout);
  run.values.insert(run.values.end(), {{"batch-tokens", options.batch_tokens},
                                       {"mlm-probability", options.mlm_probability},
                                       {"max-length", std::int64_t{max_length}}});
  append_training_settings(run, options, dev, device);
  return run;
}

}  // namespace

int pretrain_command(const PretrainOptions& call, Ranks& ranks) {
  PretrainOptions options = call;
  check_start(options);
  if (options.model) options.model = find_model(*call.model, hub_cache_folder());
  const DevSplit dev_split = parse_dev(options.dev);
  PretrainSettings settings;
  static_cast<TrainingSettings&>(settings) = training_settings(options);
  settings.batch_tokens = options.batch_tokens;
  settings.mlm_probability = options.mlm_probability;
  std::vector<fs::path> inputs = options.train;
  if (dev_split.file) inputs.push_back(*dev_split.file);
  check_readable_twice("pretrain", inputs);

  std::optional<WordPieceTokenizer> tokenizer;
  std::optional<BertConfig> config;
  std::vector<fs::path> read = inputs;
  if (options.tokenizer) {
    tokenizer = load_tokenizer(*options.tokenizer);
    config = config_of(options, *tokenizer);
    read.insert(read.end(), tokenizer->files().begin(), tokenizer->files().end());
  }
  const Existing existing = options.overwrite ? Existing::overwrite : Existing::refuse;
  if (ranks.first()) check_output_folder(options.output, options.model, read, existing);

  const DeviceChoice device = choose_device(options.running, ranks);
  write_message(fmt::format("device: {}\n", describe(device)));
  const std::string products = choose_products(options, device, ranks.first());
  if (config && device.device->kind() == DeviceKind::cpu) check_memory(*config);
  const auto model = load_or_create(options, tokenizer, config, device);
  if (options.model) check_finite(model->report(), *options.model, options);
  static_cast<void>(Masking(model->tokenizer(), settings.mlm_probability));  // what it refuses is refused now
  const std::int32_t max_length = length_for(model->config(), options.running.max_length, kUsualLength);
  const auto cache = choose_token_cache(options.cache_dir, ranks.place().local_size, cache_use(options));
  const RunSequences sequences = read_all(options, dev_split, model->tokenizer(), max_length,
                                          tokenizing_threads(options.running, device.threads, cache.get()), cache.get());
  const TokenizedSamples* const dev = sequences.dev ? &*sequences.dev : nullptr;
  const TrainingSteps steps = pretrain_steps(settings, sequences.train);
  print_plan(*model, sequences, options, steps);
  const RunSection hashes = inputs_section(std::move(inputs), options.model ? &*options.model : nullptr, model->tokenizer());
  if (options.config) warn_of_changes(*options.config, hashes, device);
  const MemoryEstimate memory = estimate_memory(*model, sequences.train, dev, settings, ranks.place());
  if (ranks.size() == 1) print_memory(memory, *device.device);
  expect_memory(memory, *model, sequences.train, dev, settings, ranks.place());
  const std::vector<RunSection> sections = {settings_section(options, dev_split, model->config(), max_length, device),
                                            chosen_section(device, steps, ranks), hashes};
  ranks.agree(Ranks::Part::more, common_facts(sections));
  const MemoryEstimate most = most_memory(memory, *device.device, ranks);
  take_products_of_first(products, device, ranks);
  if (options.dry_run) {
    ranks.agree(Ranks::Part::last);
    fmt::print("{}", format_estimate(estimate_run(*model, sequences.train, dev, settings, ranks.communicator(model->device())),
                                     fmt::format("up to {} tokens", settings.batch_tokens)));
    return 0;
  }

  rehearse(*model, sequences.train, settings, ranks.place());
  std::optional<FileLock> lock;
  std::optional<RunObserver> observer;
  if (ranks.first()) {
    lock.emplace(prepare_output_folder(options.output, existing));
    write_run_file(options.output, sections);
    model->save_description(options.output);
    observer.emplace(options.output, steps, ranks);
  }
  ranks.agree(Ranks::Part::last);

  const std::atomic<int>& stop = watch_stop_signals();
  PretrainObserver nobody;
  PretrainObserver& told = observer ? *observer : nobody;
  const PretrainResult result =
      pretrain(*model, sequences.train, dev, settings, told, &stop, ranks.communicator(model->device()));
  if (!observer) return result.interrupted ? 128 + stop.load() : 0;
  observer->finish();
  ranks.working("writing results");
  const std::int64_t peak = peak_memory_bytes();
  RunPlace place = place_of(device, ranks);
  place.estimated_memory_bytes = most.total();
  write_results(options.output, result, peak, place);
  write_curves(options.output, observer->curves());
  print_training(result, peak, place);
  if (result.interrupted) {
    write_message(fmt::format("interrupted after step {}; the model is kept as that step left it\n", result.steps));
    return 128 + stop.load();
  }
  if (result.dev) {
    fmt::print("dev: loss {:.4f}, perplexity {:.5g}, {} masked tokens\n", result.dev->score.loss, result.dev->score.perplexity(),
               result.dev->score.tokens);
  }
  write_message(fmt::format("wrote {}\n", options.output.string()));
  return 0;
}

}  // namespace lathe
