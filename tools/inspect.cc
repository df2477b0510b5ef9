#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lathe/checkpoint/inspection.h"
#include "lathe/checkpoint/model_cache.h"
#include "lathe/checkpoint/model_folder.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/number_text.h"
#include "tools/commands.h"
#include "tools/line_output.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;

/// All that is known of a model, or of a file of weights alone.
struct Inspection {
  SafetensorsFile file;
  std::vector<std::optional<NonFiniteCount>> non_finite = {};  // by tensor
  std::int64_t parameters = 0;
  std::optional<BertConfig> config = std::nullopt;
  std::optional<WeightsFit> fit = std::nullopt;
  std::optional<std::int64_t> tokens = std::nullopt;  // of the tokenizer
  std::vector<std::string> findings = {};             // what is wrong
};

/// Does what may fail without making the rest worthless: what it throws becomes a finding.
template <class Action>
void attempt(std::vector<std::string>& findings, const Action& action) {
  try {
    action();
  } catch (const UserError& failure) {
    findings.emplace_back(failure.what());
  }
}

void find_non_finite(Inspection& inspection) {
  const auto tensors = inspection.file.tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& count = inspection.non_finite[i];
    if (!count || count->total() == 0) continue;
    inspection.findings.push_back(fmt::format("{} has values that are not finite: {} NaN, {} infinite, of {}", tensors[i].name,
                                              grouped(count->nan), grouped(count->infinite), grouped(tensors[i].elements())));
  }
}

void compare_with_configuration(Inspection& inspection, const ModelFolder& model) {
  std::vector<std::string>& findings = inspection.findings;
  attempt(findings, [&] { inspection.config = BertConfig::load(model.config); });
  if (inspection.config) {
    attempt(findings, [&] { inspection.fit = compare_weights(inspection.file, *inspection.config); });
  }
  if (inspection.fit) {
    for (const std::string& name : inspection.fit->match.missing)
      findings.push_back(fmt::format("{} is expected by config.json and missing", name));
    const std::vector<std::string>& misfits = inspection.fit->match.misfits;
    findings.insert(findings.end(), misfits.begin(), misfits.end());
  }
  attempt(findings, [&] {
    inspection.tokens = WordPieceTokenizer::load(model.folder).vocabulary_size();
    if (inspection.config) check_vocabulary(inspection.config->vocabulary_size, *inspection.tokens, model.config, model.folder);
  });
}

Inspection inspect(const std::filesystem::path& path, int threads) {
  std::error_code ignored;
  const bool is_model = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path weights = is_model ? ModelFolder::open(path).weights : path;
  Inspection inspection{.file = SafetensorsFile::open(weights)};
  inspection.non_finite = count_non_finite(inspection.file, threads);
  for (const auto& module : parameters_by_module(inspection.file.tensors())) inspection.parameters += module.second.elements;
  find_non_finite(inspection);
  if (is_model) compare_with_configuration(inspection, ModelFolder::open(path));
  return inspection;
}

/// Names of the file's tensors that the model has no place for.
std::vector<std::string> unused_tensors(const BertMatch& match) {
  std::vector<std::string> names = match.other_heads;
  names.insert(names.end(), match.unused.begin(), match.unused.end());
  return names;
}

Json to_json(const TensorTotals& totals) {
  return {{"tensors", totals.tensors}, {"elements", totals.elements}, {"bytes", totals.bytes}};
}

Json configuration_json(const Inspection& inspection) {
  const BertConfig& config = *inspection.config;
  Json json = {{"vocab_size", config.vocabulary_size},
               {"hidden_size", config.hidden_size},
               {"num_hidden_layers", config.layers},
               {"num_attention_heads", config.heads},
               {"intermediate_size", config.intermediate_size},
               {"max_position_embeddings", config.max_positions},
               {"architectures", config.architectures},
               {"labels", config.labels}};
  if (!inspection.fit) return json;
  const BertMatch& match = inspection.fit->match;
  json["expected_classes"] = inspection.fit->classes;
  json["missing"] = match.missing;
  json["misfits"] = match.misfits;
  json["absent_optional"] = match.absent;
  json["unused"] = unused_tensors(match);
  return json;
}

std::string json_report(const Inspection& inspection) {
  const auto tensors = inspection.file.tensors();
  Json json = {{"file", inspection.file.path().string()},
               {"metadata", inspection.file.metadata()},
               {"parameters", inspection.parameters},
               {"types", Json::object()},
               {"modules", Json::object()},
               {"tensors", Json::array()}};
  for (const auto& [type, totals] : totals_by_type(tensors)) json["types"][std::string(name_of(type))] = to_json(totals);
  for (const auto& [group, totals] : parameters_by_module(tensors)) json["modules"][group] = to_json(totals);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    Json tensor = {{"name", tensors[i].name},
                   {"type", name_of(tensors[i].type)},
                   {"shape", tensors[i].shape},
                   {"bytes", tensors[i].bytes},
                   {"nan", nullptr},
                   {"infinite", nullptr}};
    if (const auto& count = inspection.non_finite[i]) {
      tensor["nan"] = count->nan;
      tensor["infinite"] = count->infinite;
    }
    json["tensors"].push_back(std::move(tensor));
  }
  if (inspection.config) json["configuration"] = configuration_json(inspection);
  if (inspection.tokens) json["tokenizer"] = {{"tokens", *inspection.tokens}};
  json["findings"] = inspection.findings;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string shape_text(const TensorEntry& entry) { return fmt::format("[{}]", fmt::join(entry.shape, ", ")); }

void append_tensors(const Inspection& inspection, std::string& out) {
  const auto tensors = inspection.file.tensors();
  std::size_t name_width = 6;
  std::size_t shape_width = 5;
  for (const TensorEntry& entry : tensors) {
    name_width = std::max(name_width, entry.name.size());
    shape_width = std::max(shape_width, shape_text(entry).size());
  }
  const auto to = std::back_inserter(out);
  fmt::format_to(to, "{:<{}}  {:<7}  {:<{}}  {:>9}  {}\n", "tensor", name_width, "type", "shape", shape_width, "MiB",
                 "not finite");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry& entry = tensors[i];
    const auto& count = inspection.non_finite[i];
    const std::string values = !count ? "not looked at"
                               : count->total() == 0
                                   ? "-"
                                   : fmt::format("{} NaN, {} infinite", grouped(count->nan), grouped(count->infinite));
    fmt::format_to(to, "{:<{}}  {:<7}  {:<{}}  {:>9.3f}  {}\n", printable(entry.name), name_width, name_of(entry.type),
                   shape_text(entry), shape_width, mebibytes(entry.bytes), values);
  }
}

void append_model(const Inspection& inspection, std::string& out) {
  const auto to = std::back_inserter(out);
  if (inspection.config) {
    const BertConfig& config = *inspection.config;
    fmt::format_to(to, "configuration: {} layers, hidden size {}, {} heads, feed-forward {}, {} positions, {} tokens\n",
                   config.layers, config.hidden_size, config.heads, config.intermediate_size, config.max_positions,
                   grouped(config.vocabulary_size));
    if (!config.architectures.empty())
      fmt::format_to(to, "architecture: {}\n", printable(fmt::format("{}", fmt::join(config.architectures, ", "))));
    if (!config.labels.empty()) fmt::format_to(to, "labels: {}\n", printable(fmt::format("{}", fmt::join(config.labels, ", "))));
  }
  if (inspection.tokens) fmt::format_to(to, "tokenizer: {} tokens\n", grouped(*inspection.tokens));
  if (!inspection.fit) return;
  const BertMatch& match = inspection.fit->match;
  if (!match.absent.empty()) fmt::format_to(to, "would start anew: {}\n", fmt::join(match.absent, ", "));
  if (const auto unused = unused_tensors(match); !unused.empty())
    fmt::format_to(to, "not used by Lathe: {}\n", printable(fmt::format("{}", fmt::join(unused, ", "))));
}

std::string text_report(const Inspection& inspection) {
  const auto tensors = inspection.file.tensors();
  std::string out;
  const auto to = std::back_inserter(out);
  append_tensors(inspection, out);
  fmt::format_to(to, "\n{:<24}  {:>15}\n", "module", "parameters");
  for (const auto& [group, totals] : parameters_by_module(tensors)) {
    fmt::format_to(to, "{:<24}  {:>15}  {:>7}\n", printable(group), grouped(totals.elements),
                   percent(totals.elements, inspection.parameters));
  }
  fmt::format_to(to, "{:<24}  {:>15}\n\n", "all", grouped(inspection.parameters));
  std::uint64_t bytes = 0;
  std::vector<std::string> types;
  for (const auto& [type, totals] : totals_by_type(tensors)) {
    bytes += totals.bytes;
    types.push_back(
        fmt::format("{} of {} ({:.1f} MiB)", counted(totals.tensors, "tensor"), name_of(type), mebibytes(totals.bytes)));
  }
  fmt::format_to(to, "file: {}, {:.1f} MiB: {}\n", printable(inspection.file.path().string()), mebibytes(bytes),
                 types.empty() ? "no tensors" : fmt::format("{}", fmt::join(types, ", ")));
  for (const auto& [key, value] : inspection.file.metadata())
    fmt::format_to(to, "metadata: {} = {}\n", printable(key), printable(value));
  append_model(inspection, out);
  if (inspection.findings.empty()) out.append("findings: none\n");
  for (const std::string& finding : inspection.findings) fmt::format_to(to, "finding: {}\n", printable(finding));
  return out;
}

}  // namespace

int inspect_command(const InspectOptions& options) {
  const Inspection inspection =
      inspect(find_model(options.path, hub_cache_folder()), options.threads ? *options.threads : default_threads().threads);
  LineOutput output;
  output.write(options.json ? json_report(inspection) : text_report(inspection));
  return 0;
}

}  // namespace lathe
