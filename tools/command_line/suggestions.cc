#include "tools/command_line/suggestions.h"

#include <algorithm>
#include <array>
#include <utility>

namespace lathe {
namespace {

using Synonym = std::pair<std::string_view, std::string_view>;

/// Names of Hugging Face's TrainingArguments and of its example scripts, with dashes, and Lathe's; docs/from-hugging-face.md explains them.
constexpr std::array kSettings = {
    Synonym{"learning-rate", "lr"},
    Synonym{"num-train-epochs", "epochs"},
    Synonym{"num-epochs", "epochs"},
    Synonym{"per-device-train-batch-size", "batch-size"},
    Synonym{"per-device-eval-batch-size", "batch-size"},
    Synonym{"train-batch-size", "batch-size"},
    Synonym{"eval-batch-size", "batch-size"},
    Synonym{"output-dir", "output"},
    Synonym{"overwrite-output-dir", "overwrite"},
    Synonym{"model-name-or-path", "model"},
    Synonym{"model-name", "model"},
    Synonym{"pretrained-model-name-or-path", "model"},
    Synonym{"train-file", "train"},
    Synonym{"validation-file", "dev"},
    Synonym{"validation-split-percentage", "dev"},
    Synonym{"eval-file", "dev"},
    Synonym{"eval-dataset", "dev"},
    Synonym{"valid", "dev"},
    Synonym{"test-file", "test"},
    Synonym{"predict-file", "data"},
    Synonym{"input", "data"},
    Synonym{"max-seq-length", "max-length"},
    Synonym{"max-seq-len", "max-length"},
    Synonym{"warmup-ratio", "warmup"},
    Synonym{"warmup-steps", "warmup"},
    Synonym{"logging-steps", "log-steps"},
    Synonym{"gradient-accumulation-steps", "micro-batch-tokens"},
    Synonym{"gradient-checkpointing", "recompute"},
    Synonym{"deepspeed", "shard-optimizer"},
    Synonym{"fsdp", "shard-optimizer"},
    Synonym{"ddp-bucket-cap-mb", "gradient-bucket-mib"},
    Synonym{"data-seed", "seed"},
    Synonym{"bf16", "precision"},
    Synonym{"fp16", "precision"},
    Synonym{"tf32", "precision"},
    Synonym{"use-cpu", "device"},
    Synonym{"no-cuda", "device"},
    Synonym{"text-column-name", "text-column"},
    Synonym{"text-column-names", "text-column"},
    Synonym{"label-column-name", "label-column"},
    Synonym{"clip-grad-norm", "max-grad-norm"},
    Synonym{"ignore-mismatched-sizes", "new-head"},
    Synonym{"per-device-train-batch-size", "batch-tokens"},
    Synonym{"per-device-eval-batch-size", "batch-tokens"},
    Synonym{"batch-size", "batch-tokens"},
    Synonym{"tokenizer-name", "tokenizer"},
    Synonym{"num-hidden-layers", "layers"},
    Synonym{"num-attention-heads", "heads"},
    Synonym{"hidden-dropout-prob", "dropout"},
    Synonym{"attention-probs-dropout-prob", "dropout"},
};

constexpr std::array kCommands = {
    Synonym{"train", "finetune"},    Synonym{"fit", "finetune"},       Synonym{"fine-tune", "finetune"},
    Synonym{"tune", "finetune"},     Synonym{"eval", "evaluate"},      Synonym{"test", "evaluate"},
    Synonym{"score", "evaluate"},    Synonym{"infer", "predict"},      Synonym{"classify", "predict"},
    Synonym{"inference", "predict"}, Synonym{"pre-train", "pretrain"}, Synonym{"run-mlm", "pretrain"},
    Synonym{"mlm", "pretrain"},      Synonym{"help", "--help"},        Synonym{"version", "--version"},
};

/// Letters to insert, delete, change or swap with a neighbour (optimal string alignment).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

/// Lower case, '-' for '_'.
std::string normal(std::string_view name) {
  std::string result(name);
  std::ranges::transform(result, result.begin(), [](char c) {
    if (c == '_') return '-';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

std::optional<std::string> by_synonym(std::string_view given, std::span<const Synonym> synonyms,
                                      std::span<const std::string> known) {
  // Commands may have different names for the same: the first that this one knows.
  const auto found = std::ranges::find_if(synonyms, [&](const Synonym& synonym) {
    return synonym.first == given && std::ranges::find(known, synonym.second) != known.end();
  });
  return found == synonyms.end() ? std::nullopt : std::optional(std::string(found->second));
}

}  // namespace

std::optional<std::string> nearest(std::string_view given, std::span<const std::string> known) {
  constexpr std::size_t kLongest = 64;  // the table grows with the square
  constexpr std::size_t kShortest = 3;
  if (given.size() > kLongest) return std::nullopt;
  const std::string name = normal(given);
  std::optional<std::string> best;
  std::size_t least = std::max<std::size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::size_t steps = distance(name, candidate);
    const bool begins = candidate.starts_with(name) || name.starts_with(candidate);
    if (begins && std::min(name.size(), candidate.size()) >= kShortest) steps = std::min<std::size_t>(steps, 1);
    if (steps < least) {
      least = steps;
      best = candidate;
    }
  }
  return best;
}

std::optional<std::string> nearest_setting(std::string_view given, std::span<const std::string> known) {
  const auto synonym = by_synonym(normal(given), kSettings, known);
  return synonym ? synonym : nearest(given, known);
}

std::optional<std::string> nearest_command(std::string_view given, std::span<const std::string> known) {
  const auto synonym = by_synonym(normal(given), kCommands, known);
  return synonym ? synonym : nearest(given, known);
}

}  // namespace lathe
