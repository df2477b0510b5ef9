#pragma once
// What this program is made of.
#include <string>

namespace lathe {

/// The version, then a line each: the build, instruction sets, backends, processes, libraries.
std::string version_text();

}  // namespace lathe
