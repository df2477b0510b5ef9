#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string_view>

#include "lathe/kernels/matmul.h"
#include "lathe/runtime/error.h"
#include "tools/options.h"

namespace lathe {
namespace {

constexpr const char* kReading = "Reading data";
constexpr const char* kRunning = "Running";
constexpr const char* kTraining = "Training";

/// CLI11 fills optionals, but shows no default for them: the text says it.
void add_reading(CLI::App& command, ReadingOptions& options, std::string_view source) {
  const std::string otherwise(source);
  command
      .add_option("--text-column", options.text_column,
                  "column with the text (default: " + otherwise + R"("text", "sentence", or the only other column))")
      ->type_name("NAME")
      ->group(kReading);
  command
      .add_option("--pair-column", options.pair_column, "column with a second text, for pairs (default: " + otherwise + "none)")
      ->type_name("NAME")
      ->group(kReading);
  command.add_option("--label-column", options.label_column, "column with the label (default: " + otherwise + "label)")
      ->type_name("NAME")
      ->group(kReading);
  command
      .add_option("--format", options.format, "tsv, csv, jsonl or txt (default: by the file's extension; txt for standard input)")
      ->check(CLI::IsMember({"tsv", "csv", "jsonl", "txt"}))
      ->type_name("FORMAT")
      ->group(kReading);
}

void add_running(CLI::App& command, RunningOptions& options, std::string_view source) {
  const std::string otherwise(source);
  command
      .add_option("--max-length", options.max_length,
                  "tokens a text is cut to, [CLS] and [SEP] included (default: " + otherwise + "128)")
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("TOKENS")
      ->group(kRunning);
  command.add_option("--batch-size", options.batch_size, "texts a step (default: " + otherwise + "32)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("TEXTS")
      ->group(kRunning);
  command.add_option("--device", options.device, "auto or cpu")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->type_name("DEVICE")
      ->capture_default_str()
      ->group(kRunning);
  command.add_option("--precision", options.precision, "auto or fp32")
      ->check(CLI::IsMember({"auto", "fp32"}))
      ->type_name("PRECISION")
      ->capture_default_str()
      ->group(kRunning);
  command.add_option("--threads", options.threads, "threads (default: the physical cores that this process may use)")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->group(kRunning);
  command.add_option("--instruction-set", options.instruction_set, "auto, avx2 or avx512")
      ->check(CLI::IsMember({"auto", "avx2", "avx512"}))
      ->type_name("SET")
      ->capture_default_str()
      ->group(kRunning);
}

constexpr const char* kModelHelp = "folder with config.json, model.safetensors, and tokenizer.json or vocab.txt";
constexpr const char* kFromRun = "as the model was trained, else ";

void add_finetune(CLI::App& app, FinetuneOptions& options) {
  CLI::App* command = app.add_subcommand("finetune", "Train a published BERT to classify texts or pairs of texts");
  command->footer(
      "Example:\n  lathe finetune --model all-MiniLM-L6-v2 --train train.tsv --dev 0.1 --output sentiment\n\n"
      "The output folder opens in Hugging Face's AutoModelForSequenceClassification. Ctrl-C ends after the current step and "
      "keeps the\n"
      "best model so far. Exit status: 0 done, 2 a mistake in the call or its files, 130 or 143 interrupted, 1 a fault of "
      "Lathe.");
  command->add_option("--model", options.model, kModelHelp)->required()->type_name("DIR");
  command->add_option("--train", options.train, "data to train on: .tsv, .csv, .jsonl")->required()->type_name("FILE");
  command->add_option("--output", options.output, "folder to write: the model, run.toml, results.json, metrics.jsonl")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--dev", options.dev,
                   "data to evaluate after each epoch, the best of which is kept; or a share of --train, such as 0.1")
      ->type_name("FILE|SHARE");
  command->add_option("--test", options.test, "data to evaluate at the end")->type_name("FILE");
  command->add_flag("--overwrite", options.overwrite, "replace an earlier run in --output; files that Lathe doesn't write stay");
  CLI::Option* epochs = command->add_option("--epochs", options.epochs, "passes over the data; fractions are allowed")
                            ->check(CLI::PositiveNumber)
                            ->type_name("N")
                            ->capture_default_str()
                            ->group(kTraining);
  command->add_option("--max-steps", options.max_steps, "steps to train, instead of --epochs")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->excludes(epochs)
      ->group(kTraining);
  command->add_option("--lr", options.learning_rate, "peak learning rate")
      ->check(CLI::NonNegativeNumber)
      ->type_name("RATE")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--warmup", options.warmup, "a number with a point is a share of all steps, an integer is steps")
      ->type_name("SHARE|STEPS")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--weight-decay", options.weight_decay, "of AdamW; biases and LayerNorm are not decayed")
      ->check(CLI::NonNegativeNumber)
      ->type_name("RATE")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--max-grad-norm", options.max_grad_norm, "gradients are scaled down to this norm; 0: never")
      ->check(CLI::NonNegativeNumber)
      ->type_name("NORM")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--seed", options.seed, "of shuffling, dropout, new weights and --dev's split")
      ->type_name("N")
      ->capture_default_str()
      ->group(kTraining);
  command->add_option("--log-steps", options.log_steps, "steps from one line of metrics.jsonl to the next")
      ->check(CLI::PositiveNumber)
      ->type_name("N")
      ->capture_default_str()
      ->group(kTraining);
  add_reading(*command, options.reading, "");
  add_running(*command, options.running, "");
}

void add_evaluate(CLI::App& app, EvaluateOptions& options) {
  CLI::App* command = app.add_subcommand("evaluate", "Score a fine-tuned model on labelled data");
  command->footer("Example:\n  lathe evaluate --model sentiment --data test.tsv --json");
  command->add_option("--model", options.model, "folder that finetune wrote, or any with a classification head")
      ->required()
      ->type_name("DIR");
  command->add_option("--data", options.data, "labelled data: .tsv, .csv, .jsonl")->required()->type_name("FILE");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  add_reading(*command, options.reading, kFromRun);
  add_running(*command, options.running, kFromRun);
}

void add_predict(CLI::App& app, PredictOptions& options) {
  CLI::App* command = app.add_subcommand("predict", "Classify texts: a JSON object a line, in input order");
  command->footer(
      "Example:\n  echo 'A warm, funny film.' | lathe predict --model sentiment\n\n"
      "Each line: {\"line\": where the record starts, \"label\", \"score\": its probability, \"scores\": of every label}.");
  command->add_option("--model", options.model, "folder that finetune wrote, or any with a classification head")
      ->required()
      ->type_name("DIR");
  command->add_option("--data", options.data, "data, or - for standard input, a text a line")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--output", options.output, "file to write (default: standard output)")->type_name("FILE");
  add_reading(*command, options.reading, kFromRun);
  add_running(*command, options.running, kFromRun);
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Lathe trains transformers: fine-tune a published BERT, evaluate it, predict with it.", "lathe");
  app.set_version_flag("--version", std::string("lathe " LATHE_VERSION ", matrix products by ") + MatmulPlans::library());
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer("`lathe COMMAND --help` explains a command and shows an example.");
  FinetuneOptions finetune;
  EvaluateOptions evaluate;
  PredictOptions predict;
  add_finetune(app, finetune);
  add_evaluate(app, evaluate);
  add_predict(app, predict);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    // Help and version go to standard output and are no error; all else is one line.
    if (failure.get_exit_code() == 0) return app.exit(failure);
    std::cerr << "lathe: " << printable(failure.what()) << " (try `lathe --help`)\n";
    return 2;
  }
  if (app.got_subcommand("finetune")) return finetune;
  if (app.got_subcommand("evaluate")) return evaluate;
  return predict;
}

}  // namespace lathe
