#pragma once
// The commands. Each returns the exit status; errors are exceptions.
#include "tools/options.h"
#include "tools/ranks.h"

namespace lathe {

int finetune_command(const FinetuneOptions& call, Ranks& ranks);
int pretrain_command(const PretrainOptions& call, Ranks& ranks);
int evaluate_command(const EvaluateOptions& options);
int predict_command(const PredictOptions& options);
int tokenize_command(const TokenizeOptions& options);
int inspect_command(const InspectOptions& options);
int check_data_command(const CheckDataOptions& options);
int bench_command(const BenchOptions& options);

}  // namespace lathe
