#pragma once
// The options of the commands that look at texts, models and data, for tools/command_line.cc.
#include <string_view>

#include "tools/options.h"

namespace CLI {
class App;
}

namespace lathe {

/// Adds the options that say how a data set is read; `source` is what holds before the default, such as "as the model was trained, else ".
void add_reading(CLI::App& command, ReadingOptions& options, std::string_view source);

/// Each adds a command. The options must outlive the parser.
void add_tokenize(CLI::App& app, TokenizeOptions& options);
void add_inspect(CLI::App& app, InspectOptions& options);
void add_check_data(CLI::App& app, CheckDataOptions& options);

}  // namespace lathe
