#include "tools/command_line/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lathe {
namespace {

/// How a value is completed.
std::string action_of(const OptionDescription& option) {
  if (!option.choices.empty()) return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", fmt::join(option.choices, " "));
  if (option.completion == Completion::files) return "_lathe_paths -f";
  return option.completion == Completion::folders ? "_lathe_paths -d" : "return";
}

}  // namespace

std::string bash_completion(const ProgramDescription& program) {
  std::vector<std::string> commands;
  for (const CommandDescription& command : program.commands) commands.push_back(command.name);
  std::string values;
  std::string others;
  for (const CommandDescription& command : program.commands) {
    for (const OptionDescription& option : command.options) {
      if (option.positional) {
        others += fmt::format("    {}\\ [!-]*|{}\\ ) {} ;;\n", command.name, command.name, action_of(option));
      } else if (!option.value.empty()) {
        values += fmt::format("    {}\\ {}) {} ;;\n", command.name, option.name, action_of(option));
      }
    }
    others += fmt::format("    {}\\ *) COMPREPLY=($(compgen -W '{}' -- \"$word\")) ;;\n", command.name,
                          fmt::join(option_names(command, Dashes::with), " "));
  }
  return fmt::format(
      R"(# Completion of lathe's command line in bash, made by `lathe completion`.
_lathe_paths() {{
  local IFS=$'\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen "$1" -- "$word"))
}}

_lathe() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command=${{COMP_WORDS[1]}}
  COMPREPLY=()
  # --option=value is three words.
  if [ "$word" = "=" ]; then
    word=
  elif [ "$before" = "=" ]; then
    before=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  if [ "$COMP_CWORD" -le 1 ]; then
    COMPREPLY=($(compgen -W '{} {}' -- "$word"))
    return
  fi
  case "$command $before" in
{}    *) _lathe_others ;;
  esac
}}

_lathe_others() {{
  case "$command $word" in
{}  esac
}}

complete -F _lathe lathe
)",
      fmt::join(commands, " "), fmt::join(option_names(program.program, Dashes::with), " "), values, others);
}

}  // namespace lathe
