#include "tools/command_line/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

namespace lathe {
namespace {

constexpr std::size_t kColumns = 80;
constexpr std::size_t kTextColumn = 29;

/// Words of `text` in lines that start at column `indent`; the first line goes on where the caller is, at column `at`, if there is room.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t at) {
  std::string next_line(indent + 1, ' ');
  next_line.front() = '\n';
  std::string result = at == 0 || at + 2 <= indent ? std::string(indent - at, ' ') : next_line;
  std::size_t column = indent;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const bool first = column == indent;
    if (!first && column + 1 + word.size() > kColumns) {
      result += next_line;
      column = indent;
    } else if (!first) {
      result += ' ';
      ++column;
    }
    column += word.size();
    result += word;
  }
  return result + "\n";
}

std::string option_lines(const OptionDescription& option) {
  const std::string head = "  " + usage_of(option);
  std::string text = option.text;
  if (const std::string note = option_note(option); !note.empty()) text += " " + note;
  return head + wrapped(text, kTextColumn, head.size());
}

/// Options by group, in the order in which groups first appear; CLI11's own group first.
std::string option_groups(const CommandDescription& command) {
  std::vector<std::string> groups;
  for (const OptionDescription& option : command.options) {
    if (std::ranges::find(groups, option.group) == groups.end()) groups.push_back(option.group);
  }
  std::string text;
  for (const std::string& group : groups) {
    text += fmt::format("\n{}:\n", group);
    for (const OptionDescription& option : command.options) {
      if (option.group == group) text += option_lines(option);
    }
  }
  return text;
}

std::string usage(const CommandDescription& command) {
  std::string text = fmt::format("Usage: lathe {}", command.name);
  for (const OptionDescription& option : command.options) {
    if (option.required) text.append(" ").append(usage_of(option));
  }
  return text + " [options]\n";
}

}  // namespace

std::string exit_statuses() {
  return "  0    done\n"
         "  1    a fault of Lathe\n"
         "  2    a mistake in the call or in its files; one line says which, and nothing\n"
         "       is left half-written\n"
         "  130  ended by Ctrl-C (143: by SIGTERM)\n";
}

std::string option_note(const OptionDescription& option) {
  if (option.required) return "(required)";
  return option.otherwise.empty() ? "" : "(default: " + option.otherwise + ")";
}

std::string program_help(const ProgramDescription& program) {
  std::string text = wrapped(program.program.text, 0, 0) + "\nUsage: lathe COMMAND [options]\n\nCommands:\n";
  for (const CommandDescription& command : program.commands) {
    const std::string head = "  " + command.name;
    text += head + wrapped(command.text, 14, head.size());
  }
  text += option_groups(program.program);
  text += fmt::format("\n{}\n", program.program.footer);
  return text + "\nExit status:\n" + exit_statuses();
}

std::string command_help(const CommandDescription& command) {
  return wrapped(command.text, 0, 0) + "\n" + usage(command) + option_groups(command) + "\n" + command.footer +
         "\n\nExit status:\n" + exit_statuses();
}

}  // namespace lathe
