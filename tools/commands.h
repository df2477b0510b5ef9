#pragma once
// The commands. Each returns the exit status; errors are exceptions.
#include "tools/options.h"

namespace lathe {

int finetune_command(const FinetuneOptions& options);
int evaluate_command(const EvaluateOptions& options);
int predict_command(const PredictOptions& options);

}  // namespace lathe
