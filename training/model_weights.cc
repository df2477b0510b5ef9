#include "lathe/training/model_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <span>
#include <unordered_map>

#include "lathe/checkpoint/safetensors_writer.h"
#include "lathe/runtime/atomic_file.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

Activation activation_of(HiddenActivation activation) {
  switch (activation) {
    case HiddenActivation::gelu:
      return Activation::gelu_erf;
    case HiddenActivation::gelu_tanh:
      return Activation::gelu_tanh;
    case HiddenActivation::relu:
      return Activation::relu;
    case HiddenActivation::silu:
      return Activation::silu;
    case HiddenActivation::tanh:
      return Activation::tanh;
  }
  throw LogicError("an activation without a name");
}

/// Whether a parameter's values are where the host reads and writes them, as files have them.
bool on_host(const Parameter& parameter) {
  return parameter.value.device()->kind() == DeviceKind::cpu && parameter.value.dtype() == DType::f32;
}

/// A parameter's values on the host: those that it has, or room for them in `copy`.
std::span<float> host_values(const Parameter& parameter, std::vector<float>& copy) {
  const auto count = static_cast<std::size_t>(parameter.value.size());
  if (on_host(parameter)) return {parameter.value.data<float>(), count};
  copy.resize(count);
  return copy;
}

/// Calls visit(name, values) for each tensor that files hold of a parameter with such values: all of them, or its parts by rows.
template <class Visit>
void for_each_part(const Parameter& parameter, std::span<float> values, Visit visit) {
  const auto parts = parameter.file_names.size();
  for (std::size_t i = 0; i < parts; ++i)
    visit(parameter.file_names[i], values.subspan(i * values.size() / parts, values.size() / parts));
}

NonFiniteTensor count_non_finite(const std::string& name, std::span<const float> values) {
  NonFiniteTensor counted{.name = name};
  for (const float value : values) {
    if (std::isfinite(value)) continue;
    ++(std::isnan(value) ? counted.nan : counted.infinite);
  }
  return counted;
}

std::vector<std::int64_t> part_shape(const Parameter& parameter) {
  const auto dimensions = parameter.shape.dimensions();
  std::vector<std::int64_t> shape(dimensions.begin(), dimensions.end());
  shape[0] /= static_cast<std::int64_t>(parameter.file_names.size());
  return shape;
}

}  // namespace

BertSettings bert_settings(const BertConfig& config) {
  return {.vocabulary = config.vocabulary_size,
          .hidden_size = config.hidden_size,
          .layers = config.layers,
          .heads = config.heads,
          .feed_forward = config.intermediate_size,
          .positions = config.max_positions,
          .token_types = config.token_types,
          .activation = activation_of(config.hidden_activation),
          .layer_norm_epsilon = config.layer_norm_epsilon,
          .hidden_dropout = config.hidden_dropout,
          .attention_dropout = config.attention_dropout};
}

LoadReport read_parameters(const ParameterSet& parameters, const SafetensorsFile& file, const BertMatch& match,
                           std::uint32_t seed, double deviation) {
  std::unordered_map<std::string_view, const TensorEntry*> found;
  for (const MatchedTensor& tensor : match.found) found.emplace(tensor.name, tensor.entry);
  LoadReport report;
  std::vector<float> copy;
  for (const Parameter& parameter : parameters.all()) {
    const bool in_file = std::all_of(parameter.file_names.begin(), parameter.file_names.end(),
                                     [&](const std::string& name) { return found.contains(name); });
    if (in_file) {
      const std::span<float> values = host_values(parameter, copy);
      for_each_part(parameter, values, [&](const std::string& name, std::span<float> part) {
        const TensorEntry& entry = *found.at(name);
        file.read_f32(entry, part);
        if (const NonFiniteTensor counted = count_non_finite(entry.name, part); counted.nan + counted.infinite > 0)
          report.non_finite.push_back(counted);
      });
      if (!on_host(parameter)) set_values(parameter, values);
    } else {
      ParameterArena::initialise(parameter, seed, deviation);
      report.initialised.push_back(parameter.name);
    }
  }
  report.unused = match.unused;
  report.unused.insert(report.unused.end(), match.other_heads.begin(), match.other_heads.end());
  return report;
}

void save_parameters(const ParameterSet& parameters, const std::filesystem::path& folder, const std::function<void()>& written) {
  std::vector<TensorView> tensors;
  std::deque<std::vector<float>> copies;  // of what is on a GPU, until the file is written
  for (const Parameter& parameter : parameters.all()) {
    const std::span<float> values = host_values(parameter, copies.emplace_back());
    if (!on_host(parameter)) get_values(parameter, values);
    for_each_part(parameter, values, [&](const std::string& name, std::span<float> part) {
      tensors.push_back({.name = published_bert_name(name),
                         .type = SafetensorsType::f32,
                         .shape = part_shape(parameter),
                         .data = std::as_bytes(part)});
    });
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}}, written);
}

void save_tokenizer(const WordPieceTokenizer& tokenizer, const std::filesystem::path& folder) {
  for (const std::filesystem::path& file : tokenizer.files()) {
    write_file_atomically(folder / file.filename(), [&](const std::filesystem::path& temporary) {
      std::error_code failure;
      if (!std::filesystem::copy_file(file, temporary, failure))
        throw FileError(file, fmt::format("cannot be copied to {}: {}", folder.string(), failure.message()));
    });
  }
}

std::string describe(std::span<const NonFiniteTensor> tensors) {
  constexpr std::size_t kMostShown = 2;
  constexpr std::size_t kLongestName = 60;
  std::int64_t weights = 0;
  std::string list;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const NonFiniteTensor& tensor = tensors[i];
    weights += tensor.nan + tensor.infinite;
    if (i >= kMostShown) continue;
    list +=
        fmt::format("{}{} ({}{}{})", i == 0 ? "" : ", ", shortened(tensor.name, kLongestName),
                    tensor.nan > 0 ? fmt::format("{} NaN", tensor.nan) : "", tensor.nan > 0 && tensor.infinite > 0 ? ", " : "",
                    tensor.infinite > 0 ? fmt::format("{} infinite", tensor.infinite) : "");
  }
  if (tensors.size() > kMostShown) list += fmt::format(" and {} more", tensors.size() - kMostShown);
  return fmt::format("{} weight{} in {} tensor{} not finite: {}", weights, weights == 1 ? "" : "s", tensors.size(),
                     tensors.size() == 1 ? " are" : "s are", list);
}

}  // namespace lathe
