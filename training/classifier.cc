#include "lathe/training/classifier.h"

#include <fmt/format.h>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/model_folder.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/error.h"

namespace lathe {

Classifier::Classifier(BertConfig config, WordPieceTokenizer tokenizer, LabelSet labels, const DeviceRef& device, ArenaUse use,
                       DType dtype)
    : config_(std::move(config)),
      tokenizer_(std::move(tokenizer)),
      labels_(std::move(labels)),
      model_(parameters_, bert_settings(config_), labels_.size(), config_.classifier_dropout.value_or(config_.hidden_dropout)),
      arena_(device, dtype, parameters_, use) {}

std::unique_ptr<Classifier> Classifier::load(const std::filesystem::path& folder, const DeviceRef& device, LabelSet labels,
                                             Head head, std::uint32_t seed, ArenaUse use, DType dtype) {
  const ModelFolder files = ModelFolder::open(folder);
  BertConfig config = BertConfig::load(files.config);
  WordPieceTokenizer tokenizer = WordPieceTokenizer::load(folder);
  check_vocabulary(config.vocabulary_size, tokenizer.vocabulary_size(), files.config, tokenizer.files().front());
  std::unique_ptr<Classifier> classifier(
      new Classifier(std::move(config), std::move(tokenizer), std::move(labels), device, use, dtype));
  classifier->read_weights(folder, head, seed);
  return classifier;
}

std::unique_ptr<Classifier> Classifier::create(BertConfig config, WordPieceTokenizer tokenizer, LabelSet labels,
                                               const DeviceRef& device, std::uint32_t seed, DType dtype) {
  check_vocabulary(config.vocabulary_size, tokenizer.vocabulary_size(), "config.json", tokenizer.files().front());
  std::unique_ptr<Classifier> classifier(
      new Classifier(std::move(config), std::move(tokenizer), std::move(labels), device, ArenaUse::training, dtype));
  for (const Parameter& parameter : classifier->parameters_.all())
    ParameterArena::initialise(parameter, seed, classifier->config_.initializer_range);
  return classifier;
}

void Classifier::read_weights(const std::filesystem::path& folder, Head head, std::uint32_t seed) {
  const SafetensorsFile file = SafetensorsFile::open(ModelFolder::open(folder).weights);
  const auto expected = bert_tensors(config_, head == Head::renewed ? 0 : labels_.size(),
                                     head == Head::required ? Presence::required : Presence::optional);
  report_ = read_parameters(parameters_, file, match_bert_tensors(file, expected), seed, config_.initializer_range);
}

void Classifier::reload(const std::filesystem::path& folder) { read_weights(folder, Head::required, 0); }

void Classifier::save_description(const std::filesystem::path& folder) const {
  save_tokenizer(tokenizer_, folder);
  BertConfig config = config_;
  config.set_sequence_classification(labels_.names());
  config.save(folder / "config.json");
}

void Classifier::save_weights(const std::filesystem::path& folder, const std::function<void()>& written) const {
  save_parameters(parameters_, folder, written);
}

LabelSet labels_of_model(const std::filesystem::path& folder) {
  const ModelFolder files = ModelFolder::open(folder);
  const BertConfig config = BertConfig::load(files.config);
  const SafetensorsFile weights = SafetensorsFile::open(files.weights);
  const TensorEntry* head = weights.find("classifier.weight");
  if (head == nullptr || head->shape.size() != 2) return {};
  if (!config.labels.empty()) return LabelSet(config.labels);
  // Hugging Face writes no names where they are its default ones: the head tells how many there are.
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < head->shape[0]; ++i) names.push_back(fmt::format("LABEL_{}", i));
  return LabelSet(std::move(names));
}

}  // namespace lathe
