#pragma once
// What completes Lathe's command line in a shell.
#include <string>

#include "tools/command_line/description.h"

namespace lathe {

/// A script for bash: commands, options, the choices of those that have some, files and folders where they belong.
std::string bash_completion(const ProgramDescription& program);

}  // namespace lathe
