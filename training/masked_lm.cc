#include "lathe/training/masked_lm.h"

#include <fmt/format.h>

#include <algorithm>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/model_folder.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/runtime/error.h"

namespace lathe {

MaskedLm::MaskedLm(BertConfig config, WordPieceTokenizer tokenizer, const DeviceRef& device, ArenaUse use, DType dtype)
    : config_(std::move(config)),
      tokenizer_(std::move(tokenizer)),
      model_(parameters_, bert_settings(config_)),
      arena_(device, dtype, parameters_, use) {}

std::unique_ptr<MaskedLm> MaskedLm::create(BertConfig config, WordPieceTokenizer tokenizer, const DeviceRef& device,
                                           std::uint32_t seed, DType dtype) {
  check_vocabulary(config.vocabulary_size, tokenizer.vocabulary_size(), "config.json", tokenizer.files().front());
  std::unique_ptr<MaskedLm> model(new MaskedLm(std::move(config), std::move(tokenizer), device, ArenaUse::training, dtype));
  for (const Parameter& parameter : model->parameters_.all())
    ParameterArena::initialise(parameter, seed, model->config_.initializer_range);
  return model;
}

std::unique_ptr<MaskedLm> MaskedLm::load(const std::filesystem::path& folder, const DeviceRef& device, std::uint32_t seed,
                                         std::optional<double> dropout, ArenaUse use, DType dtype) {
  const ModelFolder files = ModelFolder::open(folder);
  BertConfig config = BertConfig::load(files.config);
  if (!config.tied_words)
    throw MismatchError(fmt::format(
        "{}: tie_word_embeddings is false; Lathe's head for masked words decodes by the word embeddings", files.config.string()));
  config.hidden_dropout = dropout.value_or(config.hidden_dropout);
  config.attention_dropout = dropout.value_or(config.attention_dropout);
  WordPieceTokenizer tokenizer = WordPieceTokenizer::load(folder);
  check_vocabulary(config.vocabulary_size, tokenizer.vocabulary_size(), files.config, tokenizer.files().front());
  std::unique_ptr<MaskedLm> model(new MaskedLm(std::move(config), std::move(tokenizer), device, use, dtype));
  const SafetensorsFile weights = SafetensorsFile::open(files.weights);
  const auto expected = masked_lm_tensors(model->config_);
  model->report_ =
      read_parameters(model->parameters_, weights, match_bert_tensors(weights, expected), seed, model->config_.initializer_range);
  // The decoder is the word embeddings, whether or not a file has it once more.
  std::erase_if(model->report_.unused, [](const std::string& name) { return name.starts_with("cls.predictions.decoder."); });
  return model;
}

void MaskedLm::save_description(const std::filesystem::path& folder) const {
  save_tokenizer(tokenizer_, folder);
  BertConfig config = config_;
  config.set_masked_lm();
  config.save(folder / "config.json");
}

void MaskedLm::save_weights(const std::filesystem::path& folder, const std::function<void()>& written) const {
  save_parameters(parameters_, folder, written);
}

}  // namespace lathe
