#include "tools/look_command_line.h"

#include <CLI/CLI.hpp>

namespace lathe {
namespace {

constexpr const char* kStatuses = "Exit status: 0 done, 2 a mistake in the call or its files, 1 a fault of Lathe.";

void add_threads(CLI::App& command, std::optional<std::int32_t>& threads) {
  command.add_option("--threads", threads, "threads (default: the physical cores that this process may use)")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
}

}  // namespace

void add_tokenize(CLI::App& app, TokenizeOptions& options) {
  CLI::App* command = app.add_subcommand("tokenize", "Show the tokens that a model sees of a text");
  command->footer(
      std::string(
          "Example:\n  echo 'A warm, funny film.' | lathe tokenize --model all-MiniLM-L6-v2\n\n"
          "Offsets are begin and end in the text, in code points (characters) from 0, as Hugging Face's\n"
          "offset_mapping has them; special tokens that frame a text have 0 and 0. With --json each line is\n"
          "{\"line\": where the record starts, \"tokens\", \"ids\", \"types\", \"offsets\": [[begin, end], ...]}. A count of\n"
          "records, tokens and unknown tokens goes to standard error at the end.\n") +
      kStatuses);
  command->add_option("--model", options.model, "folder with tokenizer.json or vocab.txt")->required()->type_name("DIR");
  command->add_option("--data", options.data, "data, or - for standard input, a text a line")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_flag("--json", options.json, "print one JSON object a record, each on a line");
  command
      ->add_option("--max-length", options.max_length,
                   "tokens a text is cut to, [CLS] and [SEP] included (default: as the model was trained, else 128)")
      ->check(CLI::Range(3, 1 << 20))
      ->type_name("TOKENS");
  add_threads(*command, options.threads);
  add_reading(*command, options.reading, "as the model was trained, else ");
}

void add_inspect(CLI::App& app, InspectOptions& options) {
  CLI::App* command = app.add_subcommand("inspect", "Show what a model or a file of weights holds, and whether it fits together");
  command->footer(
      std::string("Example:\n  lathe inspect all-MiniLM-L6-v2\n\n"
                  "Of a folder: config.json, model.safetensors and the tokenizer, and what each lacks of the others. Of a\n"
                  "file: its tensors. Values that aren't finite are counted in all tensors of floating-point types (F4 and\n"
                  "F6 have none). Findings don't change the exit status; a file that can't be read or isn't valid does.\n") +
      kStatuses);
  command->add_option("path", options.path, "a model's folder, or a .safetensors file")->required()->type_name("DIR|FILE");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  add_threads(*command, options.threads);
}

void add_check_data(CLI::App& app, CheckDataOptions& options) {
  CLI::App* command = app.add_subcommand("check-data", "Look for what is wrong with a data set before training on it");
  command->footer(
      std::string("Example:\n  lathe check-data train.tsv --dev dev.tsv --model all-MiniLM-L6-v2\n\n"
                  "Texts count as the same where they differ at most in white space. Warnings don't change the exit status;\n"
                  "a file that can't be read as a data set does.\n") +
      kStatuses);
  command->add_option("data", options.data, "data: .tsv, .csv, .jsonl, .txt")->required()->type_name("FILE");
  command->add_option("--dev", options.dev, "data to evaluate on: texts in both files are told, and labels that only it has")
      ->type_name("FILE");
  command
      ->add_option("--model", options.model,
                   "folder with a tokenizer: lengths are then in tokens, too (default: in characters and words alone)")
      ->type_name("DIR");
  command->add_flag("--json", options.json, "print one JSON object instead of the report");
  add_threads(*command, options.threads);
  add_reading(*command, options.reading, "");
}

}  // namespace lathe
