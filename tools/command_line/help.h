#pragma once
// --help and --version, as text.
#include <string>

#include "tools/command_line/description.h"

namespace lathe {

/// The statuses that every command ends with, a line each.
std::string exit_statuses();

/// "(required)", "(default: 32)" or nothing, for a line about the option.
std::string option_note(const OptionDescription& option);

/// Help for the whole program: its commands.
std::string program_help(const ProgramDescription& program);
/// Help for one command: every option with its unit and default, examples, exit statuses. 80 columns, which every terminal has.
std::string command_help(const CommandDescription& command);

}  // namespace lathe
