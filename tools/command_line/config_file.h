#pragma once
// --config: settings from a file, under those of the command line.
#include <filesystem>

namespace CLI {
class App;
}

namespace lathe {

/// Gives `command` the settings of its section in the file `path`, and those at the file's top, for the options that weren't given. Sections
/// [chosen] and [inputs], which a run writes for its readers, are passed over. Throws FileError, and FormatError with the line for a setting
/// that `command` doesn't have (with the nearest that it has), that has a value of another type or out of range, that is there twice, or
/// that only a call can say (--output, --overwrite, --dry-run, --config).
void apply_config_file(CLI::App& command, const std::filesystem::path& path);

}  // namespace lathe
