#pragma once
// The manual page.
#include <string>

#include "tools/command_line/description.h"

namespace lathe {

/// lathe(1) in man's macros.
std::string man_page(const ProgramDescription& program);

}  // namespace lathe
