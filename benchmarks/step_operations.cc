#include "benchmarks/step_operations.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace lathe::bench {
namespace {

constexpr std::array kModels = {
    StepModel{.name = "tiny", .layers = 2, .hidden_size = 64, .heads = 2, .vocabulary = 1024},
    StepModel{.name = "base", .layers = 12, .hidden_size = 768, .heads = 12, .vocabulary = 30522},
    StepModel{.name = "large", .layers = 24, .hidden_size = 1024, .heads = 16, .vocabulary = 30522},
};

/// TFLOP/s of a product by what its name contains; the first that fits.
struct Sheet {
  std::string_view name, variant;
  double bf16, f32;
};
constexpr std::array kSheets = {
    Sheet{"H200", "NVL", 835.5, 60.0}, Sheet{"H200", "", 989.5, 66.9},     Sheet{"GH200", "", 989.5, 66.9},
    Sheet{"H100", "NVL", 835.5, 60.0}, Sheet{"H100", "PCIe", 756.5, 51.2}, Sheet{"H100", "", 989.5, 66.9},
    Sheet{"A100", "", 312.0, 19.5},
};

}  // namespace

std::span<const StepModel> step_models() { return kModels; }

const StepModel& step_model(std::string_view name) {
  const auto* const found = std::ranges::find(kModels, name, &StepModel::name);
  if (found == kModels.end()) throw std::out_of_range(fmt::format("no model '{}'", name));
  return *found;
}

std::string_view name(StepTask task) { return task == StepTask::mlm ? "mlm" : "classify"; }

std::int64_t step_operations(const StepModel& model, StepTask task, std::span<const std::int64_t> lengths, std::int64_t rows) {
  const std::int64_t d = model.hidden_size;
  const std::int64_t weights = 12 * model.layers * d * d;
  std::int64_t tokens = 0;
  std::int64_t squares = 0;
  for (const std::int64_t length : lengths) {
    tokens += length;
    squares += length * length;
  }
  const std::int64_t head = task == StepTask::mlm ? 6 * rows * (d * d + d * model.vocabulary) : 0;
  return 6 * weights * tokens + 12 * model.layers * d * squares + head;
}

std::optional<Peak> data_sheet_peak(std::string_view device, std::string_view dtype) {
  for (const Sheet& sheet : kSheets) {
    if (device.find(sheet.name) == std::string_view::npos || device.find(sheet.variant) == std::string_view::npos) continue;
    const double rate = dtype == "bf16" ? sheet.bf16 : sheet.f32;
    return Peak{.operations_per_second = rate * 1e12,
                .source = fmt::format("NVIDIA's data sheet of the {}{}{}, {} without sparsity", sheet.name,
                                      sheet.variant.empty() ? "" : " ", sheet.variant, dtype == "bf16" ? "bf16" : "fp32")};
  }
  return std::nullopt;
}

}  // namespace lathe::bench
