#pragma once
// The options of each command, declared to the parser.
#include <string>

#include "tools/options.h"

namespace CLI {
class App;
}

namespace lathe {

/// Where a command's options have their defaults from.
enum class Defaults { lathe, run };

/// Which columns of which format are read.
void add_reading(CLI::App& command, ReadingOptions& options, Defaults defaults);
/// On what, in which pieces.
void add_running(CLI::App& command, RunningOptions& options, Defaults defaults);
/// On what.
void add_device(CLI::App& command, RunningOptions& options);
/// How a run is begun: from a file's settings, for a look, in place of another.
void add_run(CLI::App& command, TrainingOptions& options);
/// How long and how fast a run trains; `seeds` says what --seed is of.
void add_training(CLI::App& command, TrainingOptions& options, const char* seeds);
/// How long the ranks of a run wait for each other.
void add_timeouts(CLI::App& command, TrainingOptions& options);

void add_finetune(CLI::App& app, FinetuneOptions& options);
void add_pretrain(CLI::App& app, PretrainOptions& options);
void add_evaluate(CLI::App& app, EvaluateOptions& options);
void add_predict(CLI::App& app, PredictOptions& options);
void add_tokenize(CLI::App& app, TokenizeOptions& options);
void add_inspect(CLI::App& app, InspectOptions& options);
void add_check_data(CLI::App& app, CheckDataOptions& options);
void add_bench(CLI::App& app, BenchOptions& options);
void add_completion(CLI::App& app, std::string& shell);
void add_man(CLI::App& app);

}  // namespace lathe
