#pragma once
// A model's parameters as files hold them: from a folder into an arena, and back.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/layers/bert.h"
#include "lathe/runtime/parameters.h"
#include "lathe/text/wordpiece.h"

namespace [[gnu::visibility("default")]] lathe {

/// A tensor with values that aren't numbers to train on.
struct NonFiniteTensor {
  std::string name;  ///< as the file has it
  std::int64_t nan = 0;
  std::int64_t infinite = 0;
};

/// What was found in a folder when weights were loaded.
struct LoadReport {
  std::vector<std::string> initialised;  ///< parameters that the file doesn't have, or has for other labels, and that start anew
  std::vector<std::string> unused;       ///< tensors of the file that the model has no place for
  std::vector<NonFiniteTensor> non_finite;  ///< in the model's order
};

/// "7 weights in 2 tensors are not finite: bert.pooler.dense.weight (3 NaN, 1 infinite), classifier.bias (3 NaN)", cut after the first few.
std::string describe(std::span<const NonFiniteTensor> tensors);

/// The layers' settings of a configuration.
BertSettings bert_settings(const BertConfig& config);

/// Fills `parameters`, which have their memory, with what `match` found in `file`. What it did not find is drawn from `seed` with this standard
/// deviation.
LoadReport read_parameters(const ParameterSet& parameters, const SafetensorsFile& file, const BertMatch& match,
                           std::uint32_t seed, double deviation);

/// Writes model.safetensors into `folder`, atomically, under Hugging Face's names: of a model in bf16 the fp32 master. `written`,
/// where given, is called after each tensor.
void save_parameters(const ParameterSet& parameters, const std::filesystem::path& folder,
                     const std::function<void()>& written = {});

/// Copies the tokenizer's files into `folder`, each atomically.
void save_tokenizer(const WordPieceTokenizer& tokenizer, const std::filesystem::path& folder);

}  // namespace lathe
