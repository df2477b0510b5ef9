#include "tools/command_line/declare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/cases.h"
#include "lathe/runtime/device.h"
#include "lathe/runtime/error.h"
#include "tools/bench_step.h"
#include "tools/device_request.h"
#include "tools/number_check.h"

namespace lathe {
namespace {

constexpr const char* kReading = "Reading data";
constexpr const char* kRunning = "Running";
constexpr const char* kTraining = "Training";
constexpr const char* kSizes = "A model from scratch";
constexpr const char* kWholeSteps = "Whole steps";

/// CLI11 fills optionals, but shows no default for them: the text says it.
std::string with_default(std::string_view text, Defaults defaults, std::string_view otherwise) {
  return std::string(text) + " (default: " + (defaults == Defaults::run ? "as the model was trained, else " : "") +
         std::string(otherwise) + ")";
}

/// More steps than anybody takes.
constexpr std::int64_t kMostSteps = 1'000'000'000;

constexpr const char* kModel =
    "the model: a folder with config.json, model.safetensors, and tokenizer.json or vocab.txt; or a name in the local Hugging "
    "Face "
    "cache, as org/name";
constexpr const char* kTrainedModel =
    "a model with a classification head: a folder, as finetune writes it, or a name in the local Hugging Face cache";
constexpr const char* kTokenizer =
    "a folder with tokenizer.json or vocab.txt, or the name of a model in the local Hugging Face cache";
constexpr const char* kPositive = "of two classes, the one that precision, recall and F1 are of; ids stay as they are";

/// What --device says of this build.
std::string device_text() {
  constexpr const char* kPlaces = "auto (a GPU where this build has CUDA and there is one, else the CPU), cpu, cuda";
  switch (cuda_backend()) {
    case CudaBackend::none:
      return fmt::format("{}; this build has cpu", kPlaces);
    case CudaBackend::gpu:
      return fmt::format("{}, or cuda:N for one of several GPUs, from 0", kPlaces);
    case CudaBackend::emulated:
      return "auto or cpu; or emulated, which runs the CUDA kernels on the CPU, slowly, to test them (cuda is the same here)";
  }
  return kPlaces;
}

/// A number may follow cuda, which the list of choices doesn't show.
CLI::Validator device_check() {
  const bool emulated = cuda_backend() == CudaBackend::emulated;
  return {[](const std::string& text) -> std::string {
            try {
              parse_device(text);
              return "";
            } catch (const UsageError& failure) {
              return failure.what();
            }
          },
          emulated ? "{auto,cpu,cuda,emulated}" : "{auto,cpu,cuda}"};
}

void add_cache(CLI::App& command, std::optional<std::string>& folder, std::string_view otherwise) {
  command
      .add_option("--cache-dir", folder,
                  fmt::format("folder in which tokens are kept from run to run, or none (default: LATHE_CACHE of the "
                              "environment, else {})",
                              otherwise))
      ->type_name("DIR")
      ->group(kRunning);
}
constexpr const char* kTrainingCache = "none for one process, and for several of a host ~/.cache/lathe/tokens";

void add_threads(CLI::App& command, std::optional<std::int32_t>& threads) {
  command.add_option("--threads", threads, "threads (default: the physical cores that this process may use)")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->group(kRunning);
}

}  // namespace

void add_reading(CLI::App& command, ReadingOptions& options, Defaults defaults) {
  const auto column = [&](const char* name, std::optional<std::string>& target, const char* text, const char* otherwise) {
    command.add_option(name, target, with_default(text, defaults, otherwise))->type_name("COLUMN")->group(kReading);
  };
  column("--text-column", options.text_column, "column with the text", R"("text", "sentence", or the only other column)");
  column("--pair-column", options.pair_column, "column with a second text, for pairs", "none");
  column("--label-column", options.label_column, "column with the label", "label");
  command
      .add_option("--format", options.format, "tsv, csv, jsonl or txt (default: by the file's extension; txt for standard input)")
      ->check(CLI::IsMember({"tsv", "csv", "jsonl", "txt"}))
      ->type_name("FORMAT")
      ->group(kReading);
  CLI::Option* no_header = command.add_flag_callback(
      "--no-header", [&] { options.no_header = true; },
      "the first row of a tsv or csv file is a record; columns go by their numbers, from 1: --label-column 1 --text-column 2");
  no_header->group(kReading);
  if (defaults == Defaults::run) {
    command
        .add_flag_callback(
            "--header", [&] { options.no_header = false; },
            "the first row names the columns, though the model was trained without")
        ->excludes(no_header)
        ->group(kReading);
  }
}

void add_running(CLI::App& command, RunningOptions& options, Defaults defaults) {
  command
      .add_option("--max-length", options.max_length,
                  with_default("tokens a text is cut to, [CLS] and [SEP] included", defaults,
                               "128, or all positions of a model that has fewer"))
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("TOKENS")
      ->group(kRunning);
  command.add_option("--batch-size", options.batch_size, with_default("texts a step", defaults, "32"))
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("TEXTS")
      ->group(kRunning);
  add_device(command, options);
}

void add_device(CLI::App& command, RunningOptions& options) {
  command.add_option("--device", options.device, device_text())
      ->check(device_check())
      ->type_name("DEVICE")
      ->capture_default_str()
      ->group(kRunning);
  command
      .add_option("--precision", options.precision,
                  "auto (bf16 on a GPU, fp32 on the CPU), fp32, or bf16, which keeps fp32 master weights and needs a GPU")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->type_name("PRECISION")
      ->capture_default_str()
      ->group(kRunning);
  add_threads(command, options.threads);
  command.add_option("--instruction-set", options.instruction_set, "auto (the processor's best), avx2 or avx512")
      ->check(CLI::IsMember({"auto", "avx2", "avx512"}))
      ->type_name("SET")
      ->capture_default_str()
      ->group(kRunning);
}

void add_run(CLI::App& command, TrainingOptions& options) {
  command
      .add_option(
          "--config", options.config,
          "settings in TOML, by the names of these options, as an earlier run's run.toml has them; options given here win "
          "(default: none)")
      ->type_name("FILE");
  command.add_flag("--dry-run", options.dry_run,
                   "read everything, take a few steps on a copy, print parameters, memory, steps and "
                   "time, and write nothing");
  CLI::Option* profile =
      command.add_flag("--profile", options.profile,
                       "record what all ranks do when, for chrome://tracing or ui.perfetto.dev (trace.json in --output)");
  command.add_option("--profile-steps", options.profile_steps, "steps that --profile records, from the second on")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{10'000}))
      ->type_name("STEPS")
      ->capture_default_str()
      ->needs(profile);
  command.add_flag("--overwrite", options.overwrite, "replace an earlier run in --output; files that Lathe doesn't write stay");
  command.add_flag("--allow-non-finite", options.allow_non_finite, "train also where weights of --model are NaN or infinite");
}

void add_training(CLI::App& command, TrainingOptions& options, const char* seeds) {
  CLI::Option* epochs = command.add_option("--epochs", options.epochs, "passes over the data; fractions are allowed")
                            ->check(above_zero())
                            ->type_name("EPOCHS")
                            ->capture_default_str()
                            ->group(kTraining);
  command.add_option("--max-steps", options.max_steps, "steps to train, instead of --epochs (default: as --epochs says)")
      ->check(CLI::Range(std::int64_t{1}, kMostSteps))
      ->type_name("STEPS")
      ->excludes(epochs)
      ->group(kTraining);
  command.add_option("--lr", options.learning_rate, "peak learning rate")
      ->check(zero_or_more())
      ->type_name("RATE")
      ->capture_default_str()
      ->group(kTraining);
  command
      .add_option("--warmup", options.warmup,
                  "rising learning rate at the start, which then falls to 0: a number with a point is a share of all steps, an "
                  "integer is "
                  "steps")
      ->type_name("SHARE|STEPS")
      ->capture_default_str()
      ->group(kTraining);
  command.add_option("--weight-decay", options.weight_decay, "of AdamW; biases and LayerNorm are not decayed")
      ->check(zero_or_more())
      ->type_name("RATE")
      ->capture_default_str()
      ->group(kTraining);
  command.add_option("--max-grad-norm", options.max_grad_norm, "gradients are scaled down to this norm; 0: never")
      ->check(zero_or_more())
      ->type_name("NORM")
      ->capture_default_str()
      ->group(kTraining);
  command.add_option("--seed", options.seed, seeds)
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{std::numeric_limits<std::uint32_t>::max()}))
      ->type_name("N")
      ->capture_default_str()
      ->group(kTraining);
  command
      .add_option(
          "--micro-batch-tokens", options.micro_batch_tokens,
          "tokens to compute with at once, so that a step needs less memory: a batch's gradients are added up piece by piece, "
          "and are the same; 0: all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 31))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(kTraining);
  command
      .add_option("--recompute", options.recompute,
                  "what backward computes again instead of having it kept, so that a step needs less memory and, with blocks "
                  "(the model's layers), about a third more time; the results are the same")
      ->check(CLI::IsMember({"none", "blocks"}))
      ->type_name("WHAT")
      ->capture_default_str()
      ->group(kTraining);
  command
      .add_flag(
          "--shard-optimizer", options.shard_optimizer,
          "of several processes, each keeps the optimizer's state of its share of the weights and updates those (ZeRO-1): less "
          "memory for as much traffic, and the same results; a process alone keeps all of it")
      ->group(kTraining);
  command
      .add_option(
          "--gradient-bucket-mib", options.gradient_bucket_mib,
          "of several processes, gradients that are summed at once, in MiB: the smaller, the sooner the first sum begins beside "
          "a GPU's backward, and the more messages there are")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->type_name("MIB")
      ->capture_default_str()
      ->group(kTraining);
  command
      .add_flag("--no-graphs", options.no_graphs,
                "on a GPU, launch a step's kernels one by one instead of replaying what was captured of one")
      ->group(kTraining);
  CLI::Option* tune =
      command
          .add_flag("--tune", options.tune,
                    "on a GPU, time the library's algorithms for the run's matrix products and take the fastest; the "
                    "choices are kept with the run (products.jsonl)")
          ->group(kTraining);
  command
      .add_option(
          "--product-table", options.product_table,
          "products.jsonl of an earlier run, whose choices are taken, so that it can be repeated to the bit (default: the "
          "library's first choice)")
      ->type_name("FILE")
      ->excludes(tune)
      ->group(kTraining);
  command.add_option("--log-steps", options.log_steps, "steps from one line of metrics.jsonl to the next")
      ->check(CLI::Range(std::int64_t{1}, kMostSteps))
      ->type_name("STEPS")
      ->capture_default_str()
      ->group(kTraining);
}

void add_timeouts(CLI::App& command, TrainingOptions& options) {
  constexpr std::int64_t kLongest = 1'000'000;
  command
      .add_option(
          "--comm-timeout", options.comm_timeout,
          "of several processes: how long one may be silent, or keep the others waiting without a sign of work, before all "
          "are ended")
      ->check(CLI::Range(std::int64_t{1}, kLongest))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kRunning);
  command
      .add_option("--start-timeout", options.start_timeout,
                  "of several processes: how long until all have started, read their data and agreed")
      ->check(CLI::Range(std::int64_t{1}, kLongest))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kRunning);
}

void add_finetune(CLI::App& app, FinetuneOptions& options) {
  CLI::App* command = app.add_subcommand("finetune", "Train a published BERT to classify texts or pairs of texts.");
  command->footer(
      "The output folder opens in Hugging Face's AutoModelForSequenceClassification.\n"
      "Ctrl-C ends after the current step and keeps the best model so far.\n\n"
      "Examples:\n"
      "  lathe finetune --model all-MiniLM-L6-v2 --train train.tsv --dev 0.1 \\\n"
      "      --output sentiment\n"
      "  lathe finetune --config sentiment/run.toml --output again   # the same bytes\n"
      "  lathe finetune --model all-MiniLM-L6-v2 --train news.csv --no-header \\\n"
      "      --label-column 1 --text-column 2 --pair-column 3 --output news --dry-run");
  command->add_option("--model", options.model, kModel)->required()->type_name("DIR|NAME");
  command->add_option("--train", options.train, "data to train on: .tsv, .csv, .jsonl")->required()->type_name("FILE");
  command
      ->add_option("--output", options.output,
                   "folder to write: the model, run.toml, results.json, metrics.jsonl, report.html, curves.svg; with --tune "
                   "products.jsonl, with --profile trace.json")
      ->required()
      ->type_name("DIR");
  command
      ->add_option(
          "--dev", options.dev,
          "data to evaluate after each epoch, the best of which is kept; or a share of --train, such as 0.1 (default: none, and "
          "the last epoch is kept)")
      ->type_name("FILE|SHARE");
  command->add_option("--test", options.test, "data to evaluate at the end (default: none)")->type_name("FILE");
  add_run(*command, options);
  add_training(*command, options, "of shuffling, dropout, new weights and --dev's split");
  command->add_option("--positive-label", options.positive_label, std::string(kPositive) + " (default: the class with id 1)")
      ->type_name("LABEL")
      ->group(kTraining);
  command
      ->add_flag("--new-head", options.new_head,
                 "train a new classification head, whatever the model has; needed where its head is for other labels")
      ->group(kTraining);
  add_reading(*command, options.reading, Defaults::lathe);
  add_running(*command, options.running, Defaults::lathe);
  add_cache(*command, options.cache_dir, kTrainingCache);
  add_timeouts(*command, options);
}

void add_pretrain(CLI::App& app, PretrainOptions& options) {
  CLI::App* command = app.add_subcommand("pretrain", "Train a BERT on plain text, to guess masked words.");
  command->footer(
      "Text is UTF-8: a line is a paragraph, an empty line ends a document. The tokens\n"
      "of a document fill sequences of --max-length; as many as fit make a batch. 15 %\n"
      "of them are to be guessed, drawn anew at each step: 80 % of these are shown as\n"
      "[MASK], 10 % as some other token, 10 % as they are. Perplexity is exp(loss).\n"
      "A small model from scratch takes --lr 1e-3 to 5e-4, one of BERT's size 1e-4.\n"
      "The output folder opens in Hugging Face's AutoModelForMaskedLM, and as --model\n"
      "of finetune. Ctrl-C ends after the current step and keeps the model.\n\n"
      "Examples:\n"
      "  lathe pretrain --task mlm --tokenizer all-MiniLM-L6-v2 --layers 4 \\\n"
      "      --hidden-size 256 --heads 4 --train wiki.txt --dev 0.1 \\\n"
      "      --lr 5e-4 --output small\n"
      "  lathe pretrain --task mlm --model all-MiniLM-L6-v2 --train wiki.txt \\\n"
      "      --max-steps 20 --output adapted\n"
      "  lathe finetune --model small --train train.tsv --output classifier");
  command->add_option("--task", options.task, "what is learnt: mlm, to guess masked words")
      ->check(CLI::IsMember({"mlm"}))
      ->type_name("TASK")
      ->capture_default_str();
  CLI::Option* model =
      command->add_option("--model", options.model, std::string(kModel) + "; its training goes on (default: one from scratch)")
          ->type_name("DIR|NAME");
  command
      ->add_option("--tokenizer", options.tokenizer,
                   std::string(kTokenizer) + ", or a vocab.txt itself: its tokens, for a model from scratch (default: --model's)")
      ->excludes(model)
      ->type_name("DIR|FILE");
  command->add_option("--train", options.train, "text to train on, one file or several")->required()->type_name("FILE");
  command
      ->add_option("--output", options.output,
                   "folder to write: the model, run.toml, results.json, metrics.jsonl, curves.svg; with --tune products.jsonl, "
                   "with --profile trace.json")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--dev", options.dev,
                   "text whose loss is measured after each epoch; or a share of --train's documents to hold out, such as 0.01 "
                   "(default: none)")
      ->type_name("FILE|SHARE");
  add_run(*command, options);
  const auto size = [&](const char* name, std::optional<std::int64_t>& target, const char* text, std::int64_t most) {
    command->add_option(name, target, text)->check(CLI::Range(std::int64_t{1}, most))->type_name("N")->group(kSizes);
  };
  size("--layers", options.sizes.layers, "layers (default: must be given)", 1'000);
  size("--hidden-size", options.sizes.hidden_size, "width of the hidden states (default: must be given)", 65'536);
  size("--heads", options.sizes.heads, "attention heads, which divide --hidden-size (default: must be given)", 65'536);
  size("--intermediate-size", options.sizes.intermediate_size, "width inside the feed-forward (default: 4 times --hidden-size)",
       1'000'000);
  add_training(*command, options, "of new weights, shuffling, masks, dropout and --dev's split");
  command->add_option("--batch-tokens", options.batch_tokens, "tokens a step, [CLS] and [SEP] included: as many sequences as fit")
      ->check(CLI::Range(std::int64_t{3}, std::int64_t{1} << 24U))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--mlm-probability", options.mlm_probability, "of a token to be one that is guessed")
      ->check(share_of_one())
      ->type_name("SHARE")
      ->capture_default_str()
      ->group(kTraining);
  command
      ->add_option(
          "--dropout", options.dropout,
          "share of hidden values and of attention's probabilities that a step drops (default: 0.1, or as --model has it)")
      ->check(dropout_rate())
      ->type_name("SHARE")
      ->group(kTraining);
  command
      ->add_option("--max-length", options.running.max_length,
                   "tokens of a sequence, [CLS] and [SEP] included (default: 512, or all positions of a model that has fewer)")
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("TOKENS")
      ->group(kRunning);
  add_device(*command, options.running);
  add_cache(*command, options.cache_dir, kTrainingCache);
  add_timeouts(*command, options);
}

void add_evaluate(CLI::App& app, EvaluateOptions& options) {
  CLI::App* command = app.add_subcommand("evaluate", "Score a fine-tuned model on labelled data.");
  command->footer("Example:\n  lathe evaluate --model sentiment --data test.tsv --json");
  command->add_option("--model", options.model, kTrainedModel)->required()->type_name("DIR|NAME");
  command->add_option("--data", options.data, "labelled data: .tsv, .csv, .jsonl")->required()->type_name("FILE");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  command->add_option("--positive-label", options.positive_label, with_default(kPositive, Defaults::run, "the class with id 1"))
      ->type_name("LABEL");
  add_reading(*command, options.reading, Defaults::run);
  add_running(*command, options.running, Defaults::run);
  add_cache(*command, options.cache_dir, "none");
}

void add_predict(CLI::App& app, PredictOptions& options) {
  CLI::App* command = app.add_subcommand("predict", "Classify texts: a JSON object a line, in input order.");
  command->footer(
      "Each line: {\"line\": where the record starts, \"label\", \"score\": its\n"
      "probability, \"scores\": of every label}.\n\n"
      "Example:\n  echo 'A warm, funny film.' | lathe predict --model sentiment");
  command->add_option("--model", options.model, kTrainedModel)->required()->type_name("DIR|NAME");
  command->add_option("--data", options.data, "data, or - for standard input, a text a line")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--output", options.output, "file to write (default: standard output)")->type_name("FILE");
  add_reading(*command, options.reading, Defaults::run);
  add_running(*command, options.running, Defaults::run);
}

void add_tokenize(CLI::App& app, TokenizeOptions& options) {
  CLI::App* command = app.add_subcommand("tokenize", "Show the tokens that a model sees of a text.");
  command->footer(
      "Offsets are begin and end in the text, in code points (characters) from 0, as\n"
      "Hugging Face's offset_mapping has them; special tokens that frame a text have 0\n"
      "and 0. With --json each line is {\"line\": where the record starts, \"tokens\",\n"
      "\"ids\", \"types\", \"offsets\": [[begin, end], ...]}. A count of records, tokens\n"
      "and unknown tokens goes to standard error at the end.\n\n"
      "Example:\n  echo 'A warm, funny film.' | lathe tokenize --model all-MiniLM-L6-v2");
  command->add_option("--model", options.model, kTokenizer)->required()->type_name("DIR|NAME");
  command->add_option("--data", options.data, "data, or - for standard input, a text a line")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_flag("--json", options.json, "print one JSON object a record, each on a line");
  command
      ->add_option("--max-length", options.max_length,
                   with_default("tokens a text is cut to, [CLS] and [SEP] included", Defaults::run, "128"))
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("TOKENS");
  add_threads(*command, options.threads);
  add_reading(*command, options.reading, Defaults::run);
}

void add_inspect(CLI::App& app, InspectOptions& options) {
  CLI::App* command =
      app.add_subcommand("inspect", "Show what a model or a file of weights holds, and whether it fits together.");
  command->footer(
      "Of a folder: config.json, model.safetensors and the tokenizer, and what each\n"
      "lacks of the others. Of a file: its tensors. Values that aren't finite are\n"
      "counted in all tensors of floating-point types (F4 and F6 have none). Findings\n"
      "don't change the exit status; a file that can't be read or isn't valid does.\n\n"
      "Example:\n  lathe inspect all-MiniLM-L6-v2");
  command
      ->add_option("path", options.path, "a model's folder or its name in the local Hugging Face cache, or a .safetensors file")
      ->required()
      ->type_name("DIR|FILE|NAME");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  add_threads(*command, options.threads);
}

void add_check_data(CLI::App& app, CheckDataOptions& options) {
  CLI::App* command = app.add_subcommand("check-data", "Look for what is wrong with a data set before training on it.");
  command->footer(
      "Texts count as the same where they differ at most in white space. Warnings\n"
      "don't change the exit status; a file that can't be read as a data set does.\n\n"
      "Example:\n  lathe check-data train.tsv --dev dev.tsv --model all-MiniLM-L6-v2");
  command->add_option("data", options.data, "data: .tsv, .csv, .jsonl, .txt")->required()->type_name("FILE");
  command
      ->add_option("--dev", options.dev,
                   "data to evaluate on: texts in both files are told, and labels that only it has (default: none)")
      ->type_name("FILE");
  command
      ->add_option("--model", options.model,
                   std::string(kTokenizer) + ": lengths are then in tokens, too (default: in characters and words alone)")
      ->type_name("DIR|NAME");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  add_threads(*command, options.threads);
  add_reading(*command, options.reading, Defaults::lathe);
}

namespace {

/// What `lathe bench step` takes.
void add_bench_step(CLI::App& command, BenchStepOptions& options) {
  const auto several = [&](const char* name, std::vector<std::string>& target, const char* text, const char* type) {
    return command.add_option(name, target, text)->type_name(type)->group(kWholeSteps);
  };
  several("--task", options.tasks, "mlm, classify or both (default: both)", "TASK")->check(CLI::IsMember({"mlm", "classify"}));
  several("--model-size", options.models,
          "tiny, base or large, one or more (default: base on a CPU, base and large on a GPU, tiny emulated)", "SIZE")
      ->check(CLI::IsMember({"tiny", "base", "large"}));
  CLI::Option* const lengths = several(
      "--lengths", options.lengths,
      "of sequences, one or more of fixed:N, sst2, wiki and real: wiki for mlm, sst2 for classify (default: fixed:128, fixed:512 "
      "and real; fixed:32 and real emulated)",
      "LENGTHS");
  command
      .add_option("--lengths-from", options.lengths_from,
                  "a file with a sequence's length a line, whose distribution is taken (default: --lengths)")
      ->type_name("FILE")
      ->excludes(lengths)
      ->group(kWholeSteps);
  command
      .add_option("--tokens", options.tokens, "real tokens of a step (default: 1,024 on a CPU, 32,768 on a GPU, 128 emulated)")
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("N")
      ->group(kWholeSteps);
  command
      .add_option("--warmup-steps", options.warmup_steps,
                  "steps before the measured ones (default: 2 on a CPU, 40 on a GPU, 1 emulated)")
      ->check(CLI::Range(1, 100000))
      ->type_name("N")
      ->group(kWholeSteps);
  command.add_option("--steps", options.steps, "steps to measure (default: 20 on a CPU, 40 on a GPU, 2 emulated)")
      ->check(CLI::Range(1, 100000))
      ->type_name("N")
      ->group(kWholeSteps);
  command
      .add_option("--seconds", options.seconds, "seconds after which no further step is measured, but for three (default: 10)")
      ->check(CLI::Range(0.0, 1e6))
      ->type_name("S")
      ->group(kWholeSteps);
  command.add_option("--dropout", options.dropout, "all dropout rates; 0 for none (default: 0.1)")
      ->check(dropout_rate())
      ->type_name("SHARE")
      ->group(kWholeSteps);
  command.add_option("--precision", options.precision, "auto (bf16 on a GPU, fp32 on the CPU), fp32 or bf16 (default: auto)")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->type_name("PRECISION")
      ->group(kWholeSteps);
  command
      .add_flag("--no-graphs", options.no_graphs, "launch a GPU's kernels one by one, rather than replay a step as a CUDA graph")
      ->group(kWholeSteps);
}

}  // namespace

void add_bench(CLI::App& app, BenchOptions& options) {
  CLI::App* command = app.add_subcommand(
      "bench", "Measure kernels or whole training steps on this machine, or count what kernels ask of memory.");
  command->footer(
      "Times are of BERT-base's and BERT-large's shapes, beside what this machine\n"
      "reaches in the same run with a copy and with a matrix product. --profile\n"
      "emulated counts instead, without a GPU, what each CUDA kernel asks of memory,\n"
      "by tensor and by source line; it takes a build of the preset `emulated`.\n\n"
      "`lathe bench step` takes whole training steps of a BERT with random weights on\n"
      "made-up tokens, as finetune and pretrain take them: real tokens a second, share\n"
      "of the peak, memory, and the time of each phase.\n\n"
      "Examples:\n  lathe bench gather cast --shape 256x768 --json\n"
      "  lathe bench step --task mlm --model-size base --lengths fixed:128 real");
  const auto names = bench::families();
  std::vector<std::string> choices(names.begin(), names.end());
  choices.emplace_back(kBenchStep);
  command
      ->add_option("family", options.families,
                   fmt::format("kernels to measure, of {} (default: all); or {}: whole training steps", fmt::join(names, ", "),
                               kBenchStep))
      ->check(CLI::IsMember(choices))
      ->type_name("FAMILY");
  command->add_option("--device", options.device, device_text())
      ->check(device_check())
      ->type_name("DEVICE")
      ->capture_default_str();
  command
      ->add_option(
          "--shape", options.shape,
          "tokens and channels instead of the usual ones, such as 4096x1024; other sizes follow from them (default: 768 and 1024 "
          "channels; 1,024 tokens on a CPU, 16,384 and 65,536 on a GPU, 257 emulated)")
      ->type_name("TxC");
  command
      ->add_option("--profile", options.profile,
                   "emulated: run each kernel once on the emulated GPU and count (default: measure times)")
      ->check(CLI::IsMember({"emulated"}))
      ->type_name("HOW");
  command->add_flag("--json", options.json, "print one JSON object instead of the tables");
  add_threads(*command, options.threads);
  add_bench_step(*command, options.step);
}

void add_completion(CLI::App& app, std::string& shell) {
  CLI::App* command = app.add_subcommand("completion", "Print what a shell needs to complete Lathe's options and files.");
  command->footer("Example, for the shell that it is typed in:\n  source <(lathe completion bash)");
  command->add_option("shell", shell, "the shell: bash")->check(CLI::IsMember({"bash"}))->type_name("SHELL")->default_val("bash");
}

void add_man(CLI::App& app) {
  app.add_subcommand("man", "Print the manual page, made from the same text as --help.")
      ->footer("Example:\n  lathe man | man -l -");
}

}  // namespace lathe
