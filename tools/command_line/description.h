#pragma once
// The command line as data. The parser's declarations are the one source of --help, the man page, completion and suggestions.
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace lathe {

/// What a value may be, by the name that --help gives it.
enum class ValueKind { flag, text, number, text_or_number };

/// What a shell offers for a value.
enum class Completion { nothing, files, folders };

struct OptionDescription {
  std::string name;   ///< "--lr"; of a positional argument what the parser calls it
  std::string value;  ///< "RATE"; empty for a flag
  std::string text;
  std::string otherwise;  ///< the default, where there is one
  std::string group;
  std::vector<std::string> choices;
  bool required = false;
  bool positional = false;
  ValueKind kind = ValueKind::flag;
  Completion completion = Completion::nothing;
};

/// What a user types: "--lr RATE", "--json", "DIR|FILE".
std::string usage_of(const OptionDescription& option);

struct CommandDescription {
  std::string name;  ///< "finetune"; of the whole, "lathe"
  std::string text;
  std::string footer;
  std::vector<OptionDescription> options;
};

/// Names of the options with or without their dashes; positional arguments have none.
enum class Dashes { with, without };
std::vector<std::string> option_names(const CommandDescription& command, Dashes dashes);

struct ProgramDescription {
  CommandDescription program;
  std::vector<CommandDescription> commands;
  const CommandDescription* find(std::string_view command) const;
};

/// Describes what `app` declares.
ProgramDescription describe(const CLI::App& app);

}  // namespace lathe
