#include "lathe/checkpoint/bert_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

constexpr std::string_view kPrefix = "bert.";
constexpr std::string_view kClassifier = "classifier.";
constexpr std::string_view kPretraining = "cls.";

std::string canonical_name(std::string_view name) {
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  for (const auto& [old_end, new_end] :
       {std::pair<std::string_view, std::string_view>{".gamma", ".weight"}, {".beta", ".bias"}}) {
    if (name.ends_with(old_end)) return std::string(name.substr(0, name.size() - old_end.size())).append(new_end);
  }
  return std::string(name);
}

/// What names of one layer of weights share: "pooler.dense" of "pooler.dense.weight".
std::string_view module_of(std::string_view name) { return name.substr(0, name.rfind('.')); }

bool is_integer(SafetensorsType type) {
  using enum SafetensorsType;
  return type == u8 || type == i8 || type == i16 || type == u16 || type == i32 || type == u32 || type == i64 || type == u64;
}

bool is_other_head(std::string_view canonical) {
  return canonical.starts_with(kPretraining) || canonical.starts_with("qa_outputs.") || canonical.starts_with(kClassifier);
}

/// 7 of "encoder.layer.7.output.dense.weight", -1 of other names.
std::int64_t layer_of(std::string_view canonical) {
  constexpr std::string_view kLayers = "encoder.layer.";
  if (!canonical.starts_with(kLayers)) return -1;
  std::int64_t layer = -1;
  std::from_chars(canonical.data() + kLayers.size(), canonical.data() + canonical.size(), layer);
  return layer;
}

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// The file's tensors by canonical name.
std::map<std::string, const TensorEntry*, std::less<>> by_canonical_name(const SafetensorsFile& file) {
  std::map<std::string, const TensorEntry*, std::less<>> result;
  for (const TensorEntry& entry : file.tensors()) {
    const auto [at, fresh] = result.emplace(canonical_name(entry.name), &entry);
    if (!fresh) {
      throw FormatError(file.path(), "tensor " + entry.name,
                        fmt::format("is the same tensor as {} under another name", at->second->name));
    }
  }
  return result;
}

/// Why `entry` can't serve as `expected`; empty where it can.
std::string misfit(const TensorEntry& entry, const ExpectedTensor& expected) {
  if (entry.shape != expected.shape) {
    return fmt::format("{} is {}, expected {}", entry.name, shape_text(entry.shape), shape_text(expected.shape));
  }
  if (!converts_to_f32(entry.type))
    return fmt::format("{} is of type {}, expected F32, F16, BF16 or F64", entry.name, name_of(entry.type));
  return {};
}

/// As many problems as a line has room for.
std::string mismatch_message(const std::filesystem::path& weights, std::span<const std::string> problems) {
  constexpr std::size_t kLongestPath = 80;
  constexpr std::size_t kLongestProblem = 100;
  constexpr std::size_t kRest = 45;  // bytes of what may follow the list
  std::string message =
      fmt::format("{}: {} tensor{} not fit config.json: {}", shortened(weights.string(), kLongestPath), problems.size(),
                  problems.size() == 1 ? " does" : "s do", shortened(problems.front(), kLongestProblem));
  for (std::size_t i = 1; i < problems.size(); ++i) {
    const bool last = i + 1 == problems.size();
    if (message.size() + 2 + problems[i].size() + (last ? 0 : kRest) > kLongestMessage)
      return message + fmt::format("; and {} more, which `lathe inspect` lists", problems.size() - i);
    message.append("; ").append(problems[i]);
  }
  return message;
}

}  // namespace

WeightsMismatchError::WeightsMismatchError(const std::filesystem::path& weights, std::vector<std::string> problems)
    : MismatchError(mismatch_message(weights, problems)), problems_(std::move(problems)) {}

std::vector<ExpectedTensor> bert_tensors(const BertConfig& config, std::int64_t classes, Presence head) {
  const std::int64_t c = config.hidden_size;
  const std::int64_t f = config.intermediate_size;
  std::vector<ExpectedTensor> result;
  const auto add = [&](std::string name, std::vector<std::int64_t> shape, Presence presence = Presence::required) {
    result.push_back({std::move(name), std::move(shape), presence});
  };
  const auto add_linear = [&](const std::string& name, std::int64_t out, std::int64_t in,
                              Presence presence = Presence::required) {
    add(name + ".weight", {out, in}, presence);
    add(name + ".bias", {out}, presence);
  };
  const auto add_norm = [&](const std::string& name) {
    add(name + ".weight", {c});
    add(name + ".bias", {c});
  };
  add("embeddings.word_embeddings.weight", {config.vocabulary_size, c});
  add("embeddings.position_embeddings.weight", {config.max_positions, c});
  add("embeddings.token_type_embeddings.weight", {config.token_types, c});
  add_norm("embeddings.LayerNorm");
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string layer = fmt::format("encoder.layer.{}.", i);
    add_linear(layer + "attention.self.query", c, c);
    add_linear(layer + "attention.self.key", c, c);
    add_linear(layer + "attention.self.value", c, c);
    add_linear(layer + "attention.output.dense", c, c);
    add_norm(layer + "attention.output.LayerNorm");
    add_linear(layer + "intermediate.dense", f, c);
    add_linear(layer + "output.dense", c, f);
    add_norm(layer + "output.LayerNorm");
  }
  const bool pooler_required = classes > 0 && head == Presence::required;
  add_linear("pooler.dense", c, c, pooler_required ? Presence::required : Presence::optional);
  if (classes > 0) add_linear("classifier", classes, c, head);
  return result;
}

std::vector<ExpectedTensor> masked_lm_tensors(const BertConfig& config) {
  std::vector<ExpectedTensor> result = bert_tensors(config, 0);
  std::erase_if(result, [](const ExpectedTensor& tensor) { return tensor.name.starts_with("pooler."); });
  const std::int64_t c = config.hidden_size;
  const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
    result.push_back({std::string("cls.predictions.") + name, std::move(shape), Presence::optional});
  };
  add("transform.dense.weight", {c, c});
  add("transform.dense.bias", {c});
  add("transform.LayerNorm.weight", {c});
  add("transform.LayerNorm.bias", {c});
  add("bias", {config.vocabulary_size});
  return result;
}

BertMatch match_bert_tensors(const SafetensorsFile& file, std::span<const ExpectedTensor> expected) {
  BertMatch match = compare_bert_tensors(file, expected);
  std::vector<std::string> problems = match.misfits;
  for (const std::string& name : match.missing) problems.push_back(name + " is missing");
  if (!problems.empty()) throw WeightsMismatchError(file.path(), std::move(problems));
  return match;
}

BertMatch compare_bert_tensors(const SafetensorsFile& file, std::span<const ExpectedTensor> expected) {
  auto entries = by_canonical_name(file);
  const auto entry_of = [&](const ExpectedTensor& tensor) -> const TensorEntry* {
    const auto at = entries.find(tensor.name);
    return at == entries.end() ? nullptr : at->second;
  };

  // A module of which one tensor starts anew starts anew as a whole: half of a head is worth nothing.
  std::set<std::string_view> anew;
  BertMatch match;
  std::int64_t layers = 0;
  for (const ExpectedTensor& tensor : expected) {
    layers = std::max(layers, layer_of(tensor.name) + 1);
    const TensorEntry* entry = entry_of(tensor);
    if (entry == nullptr) {
      if (tensor.presence == Presence::required) match.missing.push_back(tensor.name);
      if (tensor.presence != Presence::required) anew.insert(module_of(tensor.name));
    } else if (std::string problem = misfit(*entry, tensor); !problem.empty()) {
      if (tensor.presence == Presence::replaceable) {
        anew.insert(module_of(tensor.name));
      } else {
        match.misfits.push_back(std::move(problem));
      }
    }
  }

  for (const ExpectedTensor& tensor : expected) {
    const TensorEntry* entry = entry_of(tensor);
    if (!anew.contains(module_of(tensor.name)) || tensor.presence == Presence::required) {
      if (entry != nullptr) match.found.push_back({tensor.name, entry});
    } else if (entry == nullptr) {
      match.absent.push_back(tensor.name);
    } else {
      match.replaced.push_back(fmt::format("{} {}", tensor.name, shape_text(entry->shape)));
    }
    entries.erase(tensor.name);
  }
  for (const auto& [name, entry] : entries) {
    if (name == "embeddings.position_ids" && is_integer(entry->type)) continue;
    if (layer_of(name) >= layers) {
      match.misfits.push_back(fmt::format("{} is of a layer beyond the {} expected", entry->name, layers));
    } else {
      (is_other_head(name) ? match.other_heads : match.unused).push_back(entry->name);
    }
  }
  return match;
}

std::string published_bert_name(std::string_view canonical) {
  const bool of_a_head = canonical.starts_with(kClassifier) || canonical.starts_with(kPretraining);
  return of_a_head ? std::string(canonical) : std::string(kPrefix).append(canonical);
}

void check_vocabulary(std::int64_t rows, std::int64_t tokens, const std::filesystem::path& config,
                      const std::filesystem::path& tokenizer) {
  constexpr std::int64_t kFinestPadding = 8;
  constexpr std::int64_t kCoarsestPadding = 128;
  const bool padded = rows > tokens && rows - tokens < kCoarsestPadding && rows % kFinestPadding == 0;
  if (rows == tokens || padded) return;
  throw MismatchError(
      fmt::format("{}: has {} tokens, but {} has vocab_size {}: take the tokenizer that the model was trained with",
                  shortened(tokenizer.string(), 90), tokens, config.filename().string(), rows));
}

}  // namespace lathe
