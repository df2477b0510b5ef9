// Parsing: from argv to a command's options, and one line where that fails.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "tools/command_line/completion.h"
#include "tools/command_line/config_file.h"
#include "tools/command_line/declare.h"
#include "tools/command_line/description.h"
#include "tools/command_line/help.h"
#include "tools/command_line/man_page.h"
#include "tools/command_line/suggestions.h"
#include "tools/command_line/version.h"
#include "tools/options.h"

namespace lathe {
namespace {

/// The command that was parsed, null where none was.
CLI::App* parsed_command(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? nullptr : commands.front();
}

void print_help(const CLI::App& app, const ProgramDescription& program) {
  const CLI::App* command = parsed_command(app);
  fmt::print("{}", command == nullptr ? program_help(program) : command_help(*program.find(command->get_name())));
}

std::string meant(const std::optional<std::string>& suggestion, std::string_view dashes, std::string_view otherwise) {
  return suggestion ? fmt::format("did you mean {}{}?", dashes, *suggestion) : std::string(otherwise);
}

std::string unknown_command(const std::string& word, const ProgramDescription& program) {
  std::vector<std::string> names = {"--help", "--version"};
  for (const CommandDescription& command : program.commands) names.push_back(command.name);
  return fmt::format("there is no command '{}'; {}", word, meant(nearest_command(word, names), "", "`lathe --help` lists them"));
}

std::string unknown_option(const std::string& word, const CommandDescription& command) {
  const std::string name = word.substr(0, word.find('='));
  return fmt::format("{} has no option {}; {}", command.name, name,
                     meant(nearest_setting(std::string_view(name).substr(std::min<std::size_t>(2, name.size())),
                                           option_names(command, Dashes::without)),
                           "--", fmt::format("`lathe{} --help` lists them", command.name == "lathe" ? "" : " " + command.name)));
}

/// What is wrong with words that no declaration takes.
std::string explain_extras(const CLI::App& app, const ProgramDescription& program) {
  const std::vector<std::string> words = app.remaining(true);
  const CLI::App* command = parsed_command(app);
  const auto option = std::ranges::find_if(words, [](const std::string& word) { return word.starts_with('-'); });
  if (command == nullptr && option != words.begin()) return unknown_command(words.front(), program);
  const CommandDescription& described = command == nullptr ? program.program : *program.find(command->get_name());
  if (option != words.end()) return unknown_option(*option, described);
  return fmt::format("{} takes no '{}' there: a value follows its option", described.name, words.front());
}

/// Throws UsageError where an option is missing that was declared as required.
void check_required(const CLI::App& command, const CommandDescription& description) {
  for (const OptionDescription& option : description.options) {
    if (!option.required || command.count(option.name) > 0) continue;
    throw UsageError(fmt::format("{} is missing; `lathe {} --help` shows an example", usage_of(option), command.get_name()));
  }
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Lathe trains transformers: pre-train a BERT or fine-tune a published one, evaluate it, predict with it.",
               "lathe");
  app.set_help_flag("-h,--help", "print this help");
  app.set_version_flag("--version", "", "print the version, the build, what it can use of this processor, and its libraries");
  app.require_subcommand(0, 1);
  app.footer("`lathe COMMAND --help` explains a command and shows an example.");
  FinetuneOptions finetune;
  PretrainOptions pretrain;
  EvaluateOptions evaluate;
  PredictOptions predict;
  std::string shell;
  add_finetune(app, finetune);
  add_pretrain(app, pretrain);
  add_evaluate(app, evaluate);
  add_predict(app, predict);
  TokenizeOptions tokenize;
  InspectOptions inspect;
  CheckDataOptions check_data;
  add_tokenize(app, tokenize);
  add_inspect(app, inspect);
  add_check_data(app, check_data);
  BenchOptions bench;
  add_bench(app, bench);
  add_completion(app, shell);
  add_man(app);
  const ProgramDescription program = describe(app);
  // What is required is checked here, after --config: a file may have it.
  for (CLI::App* command : app.get_subcommands({})) {
    for (CLI::Option* option : command->get_options()) option->required(false);
  }
  try {
    app.parse(argc, argv);
    CLI::App* command = parsed_command(app);
    if (command == nullptr) throw UsageError("a subcommand is missing: lathe COMMAND [options]; `lathe --help` lists them");
    for (const auto& config : {finetune.config, pretrain.config}) {
      if (config) apply_config_file(*command, *config);
    }
    check_required(*command, *program.find(command->get_name()));
  } catch (const CLI::CallForHelp&) {
    print_help(app, program);
    return 0;
  } catch (const CLI::CallForVersion&) {
    fmt::print("{}", version_text());
    return 0;
  } catch (const CLI::ExtrasError&) {
    throw UsageError(explain_extras(app, program));
  } catch (const CLI::ArgumentMismatch& failure) {
    const std::string text = failure.what();  // "--lr: 1 required RATE:NONNEGATIVE missing", or too many
    throw UsageError(text.ends_with("missing") ? text.substr(0, text.find(':')) + " needs a value" : text);
  } catch (const CLI::ParseError& failure) {
    throw UsageError(failure.what());
  }
  if (app.got_subcommand("finetune")) return finetune;
  if (app.got_subcommand("pretrain")) return pretrain;
  if (app.got_subcommand("evaluate")) return evaluate;
  if (app.got_subcommand("predict")) return predict;
  if (app.got_subcommand("tokenize")) return tokenize;
  if (app.got_subcommand("inspect")) return inspect;
  if (app.got_subcommand("check-data")) return check_data;
  if (app.got_subcommand("bench")) return bench;
  fmt::print("{}", app.got_subcommand("man") ? man_page(program) : bash_completion(program));
  return 0;
}

}  // namespace lathe
