#pragma once
// What a file of weights holds, value by value, and how it stands to a configuration.
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors.h"

namespace [[gnu::visibility("default")]] lathe {

/// Values that aren't finite.
struct NonFiniteCount {
  std::int64_t nan = 0;
  std::int64_t infinite = 0;

  std::int64_t total() const noexcept { return nan + infinite; }
  bool operator==(const NonFiniteCount&) const = default;
};

/// Whether a type can hold NaN or infinity in a single value, so that count_non_finite looks at it: F16, BF16, F32, F64, C64 (by its
/// parts) and the F8 types. Integers and booleans can't; nor can F4 and F6.
bool may_be_non_finite(SafetensorsType type);

/// The values of each tensor of `file` that aren't finite, in the order of file.tensors(); nothing for types that can't hold any. Reads
/// the whole file, by `threads` threads (at least 1), in little memory. Throws FileError.
std::vector<std::optional<NonFiniteCount>> count_non_finite(const SafetensorsFile& file, int threads);

/// Numbers of a group of tensors.
struct TensorTotals {
  std::int64_t tensors = 0;
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
};

/// Totals by type, in the format's order.
std::map<SafetensorsType, TensorTotals> totals_by_type(std::span<const TensorEntry> tensors);

/// The part of a model that a tensor belongs to: its name, less a `bert.` in front, up to its first number, else its first word.
/// "encoder.layer.3" of "bert.encoder.layer.3.output.dense.weight", "pooler" of "pooler.dense.bias".
std::string module_group(std::string_view name);

/// Totals of the parameters, which are the tensors that aren't of integers or booleans, by module_group, in the order of names in which
/// numbers count as such.
std::vector<std::pair<std::string, TensorTotals>> parameters_by_module(std::span<const TensorEntry> tensors);

/// Whether elements of the type count as parameters: those that aren't integers or booleans.
bool is_parameter_type(SafetensorsType type);

/// How weights stand to a configuration.
struct WeightsFit {
  /// Classes of the head that is expected; 0 where none is.
  std::int64_t classes = 0;
  BertMatch match;
};

/// Compares all tensors of `file` with what `config` expects. A head is expected where the configuration's architecture is a
/// BertForSequenceClassification, or the file has one; with as many classes as the configuration has labels, else as the file's head
/// has. Throws FormatError where two names mean the same tensor. `file` must outlive the result.
WeightsFit compare_weights(const SafetensorsFile& file, const BertConfig& config);

}  // namespace lathe
