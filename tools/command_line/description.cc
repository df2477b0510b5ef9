#include "tools/command_line/description.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <sstream>

namespace lathe {
namespace {

struct ValueName {
  std::string_view name;
  ValueKind kind;
  Completion completion;
};

/// The names of values tell what they are; one that isn't here is text that no shell can guess.
constexpr std::array kValueNames = {
    ValueName{"FILE", ValueKind::text, Completion::files},
    ValueName{"DIR", ValueKind::text, Completion::folders},
    ValueName{"DIR|NAME", ValueKind::text, Completion::folders},
    ValueName{"DIR|FILE", ValueKind::text, Completion::files},
    ValueName{"FILE|SHARE", ValueKind::text_or_number, Completion::files},
    ValueName{"SHARE", ValueKind::number, Completion::nothing},
    ValueName{"SHARE|STEPS", ValueKind::text_or_number, Completion::nothing},
    ValueName{"COLUMN", ValueKind::text_or_number, Completion::nothing},
    ValueName{"LABEL", ValueKind::text_or_number, Completion::nothing},
    ValueName{"N", ValueKind::number, Completion::nothing},
    ValueName{"STEPS", ValueKind::number, Completion::nothing},
    ValueName{"EPOCHS", ValueKind::number, Completion::nothing},
    ValueName{"TEXTS", ValueKind::number, Completion::nothing},
    ValueName{"TOKENS", ValueKind::number, Completion::nothing},
    ValueName{"MIB", ValueKind::number, Completion::nothing},
    ValueName{"SECONDS", ValueKind::number, Completion::nothing},
    ValueName{"RATE", ValueKind::number, Completion::nothing},
    ValueName{"NORM", ValueKind::number, Completion::nothing},
};

/// CLI11 appends a validator's words to the value's name, after a colon; a list of choices stands in braces.
std::vector<std::string> choices_of(const std::string& type) {
  const std::size_t open = type.find(":{");
  if (open == std::string::npos || type.back() != '}') return {};
  std::istringstream list(type.substr(open + 2, type.size() - open - 3));
  std::vector<std::string> choices;
  for (std::string choice; std::getline(list, choice, ',');) choices.push_back(choice);
  return choices;
}

OptionDescription describe_option(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  OptionDescription described{.name = option.get_lnames().empty() ? option.get_name() : "--" + option.get_lnames().front(),
                              .value = option.get_items_expected_max() == 0 ? "" : type.substr(0, type.find(':')),
                              .text = option.get_description(),
                              .otherwise = option.get_default_str(),
                              .group = option.get_group(),
                              .choices = choices_of(type),
                              .required = option.get_required(),
                              .positional = option.get_positional()};
  if (described.positional) described.group = "Arguments";
  if (described.value.empty()) return described;
  const auto* const known = std::ranges::find(kValueNames, described.value, &ValueName::name);
  described.kind = known == kValueNames.end() ? ValueKind::text : known->kind;
  if (known != kValueNames.end()) described.completion = known->completion;
  return described;
}

CommandDescription describe_command(const CLI::App& app) {
  CommandDescription command{.name = app.get_name(), .text = app.get_description(), .footer = app.get_footer(), .options = {}};
  for (const CLI::Option* option : app.get_options()) command.options.push_back(describe_option(*option));
  // Arguments stand first and --help, which CLI11 declares first, last.
  std::ranges::stable_sort(command.options, {}, [](const OptionDescription& option) {
    return option.positional ? 0 : option.name != "--help" ? 1 : 2;
  });
  return command;
}

}  // namespace

std::string usage_of(const OptionDescription& option) {
  if (option.positional) return option.value;
  return option.value.empty() ? option.name : option.name + " " + option.value;
}

std::vector<std::string> option_names(const CommandDescription& command, Dashes dashes) {
  std::vector<std::string> names;
  for (const OptionDescription& option : command.options) {
    if (!option.positional) names.push_back(dashes == Dashes::with ? option.name : option.name.substr(2));
  }
  return names;
}

const CommandDescription* ProgramDescription::find(std::string_view command) const {
  const auto found = std::ranges::find(commands, command, &CommandDescription::name);
  return found == commands.end() ? nullptr : &*found;
}

ProgramDescription describe(const CLI::App& app) {
  ProgramDescription described{.program = describe_command(app), .commands = {}};
  for (const CLI::App* command : app.get_subcommands({})) described.commands.push_back(describe_command(*command));
  return described;
}

}  // namespace lathe
