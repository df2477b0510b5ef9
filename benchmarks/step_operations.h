#pragma once
// What a training step's mathematics asks for, and the rates that GPUs are sold with.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lathe::bench {

/// Sizes of a BERT that is measured.
struct StepModel {
  std::string_view name;
  std::int64_t layers = 0;       ///< L
  std::int64_t hidden_size = 0;  ///< d; the feed-forward size is 4d
  std::int64_t heads = 0;
  std::int64_t vocabulary = 0;  ///< V
};
/// "tiny", for tests, then BERT's "base" and "large".
std::span<const StepModel> step_models();
/// Throws std::out_of_range for an unknown name.
const StepModel& step_model(std::string_view name);

enum class StepTask : std::uint8_t { mlm, classify };
std::string_view name(StepTask task);

/// What step_operations() counts, in words.
inline constexpr const char* kStepFormula = "6 N T + 12 L d sum(s^2) + 6 R (d^2 + d V), N = 12 L d^2";

/// Floating-point operations of a step's forward and backward: T tokens, each of them through N = 12 L d^2 weights, 2 operations forward and 4 backward; the scores and
/// weighted sums of attention within each sequence, of s tokens; for MLM the head of the R masked tokens, for classification none. It is the whole model's
/// mathematics: embeddings, normalisation, softmax and the optimizer aren't counted, and neither is it less where a program leaves out what can't reach the loss.
std::int64_t step_operations(const StepModel& model, StepTask task, std::span<const std::int64_t> lengths, std::int64_t rows);

/// A rate to divide by.
struct Peak {
  double operations_per_second = 0.0;
  std::string source;  ///< where it is from
};
/// Dense matrix products in "bf16" or "f32" (no TF32), as NVIDIA's data sheets have them; nothing for other GPUs than A100, H100, H200 and GH200.
std::optional<Peak> data_sheet_peak(std::string_view device, std::string_view dtype);

}  // namespace lathe::bench
