#pragma once
// What PyTorch and Lathe train for their losses to be compared: scripts/golden_pretrain.py tells how.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lathe/text/documents.h"
#include "lathe/training/pretrain.h"

namespace lathe {

/// Articles of the Wikipedia sample as plain text: markup lines and the empty lines inside of articles are dropped, an empty line ends an article.
inline std::vector<std::filesystem::path> prepare_wikipedia(const std::filesystem::path& sample,
                                                            const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const char* name : {"wiki_00", "wiki_01", "wiki_02", "wiki_03"}) {
    std::ifstream in(sample / name, std::ios::binary);
    if (!in) throw std::runtime_error((sample / name).string() + " can't be read");
    std::ofstream out(files.emplace_back(folder / (std::string(name) + ".txt")), std::ios::binary);
    for (std::string line; std::getline(in, line);) {
      if (line == "</doc>") out << '\n';
      if (!line.empty() && line != "</doc>" && !line.starts_with("<doc ")) out << line << '\n';
    }
  }
  return files;
}

/// A BERT of 4 layers and 128 channels over 300 steps of 2,048 tokens, on the Wikipedia sample with BERT's uncased vocabulary.
struct GoldenPretraining {
  static constexpr std::int64_t kSteps = 300;

  /// `data` holds wiki-sample and vocab.
  GoldenPretraining(const std::filesystem::path& data, const std::filesystem::path& scratch, double dropout, std::uint32_t seed)
      : tokenizer(WordPieceTokenizer::load(data / "vocab" / "bert-base-uncased")) {
    config.vocabulary_size = tokenizer.vocabulary_size();
    config.layers = 4;
    config.hidden_size = 128;
    config.heads = 4;
    config.intermediate_size = 512;
    config.max_positions = kLength;
    config.hidden_dropout = config.attention_dropout = dropout;
    settings.max_steps = kSteps;
    settings.batch_tokens = 2048;
    settings.learning_rate = 1e-3;
    settings.warmup_share = 0.1;
    settings.seed = seed;
    settings.log_steps = 1;
    const DocumentSequences all = make_sequences(tokenizer, read_documents(prepare_wikipedia(data / "wiki-sample", scratch)),
                                                 {.max_length = kLength, .threads = 2});
    // The same documents for every seed.
    const HeldOut parts = hold_out(all.documents(), 0.05, 0);
    train = sequences_of(all, parts.train);
    dev = sequences_of(all, parts.dev);
  }

  std::unique_ptr<MaskedLm> model(int threads) const {
    return MaskedLm::create(config, tokenizer,
                            Device::cpu({.threads = threads, .target = {}, .reserved_bytes = std::int64_t{1} << 30}),
                            settings.seed);
  }

  static constexpr std::int64_t kLength = 128;
  WordPieceTokenizer tokenizer;
  BertConfig config;
  PretrainSettings settings;
  TokenizedSamples train, dev;
};

/// The settings under which `dev` is measured, whatever seed trains: its masks are those that PyTorch's model is asked for.
inline PretrainSettings golden_dev_settings() {
  PretrainSettings settings;
  settings.batch_tokens = 2048;
  settings.seed = 42;
  return settings;
}

}  // namespace lathe
