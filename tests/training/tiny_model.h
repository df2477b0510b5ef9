#pragma once
// A published model in small: a folder with config.json, vocab.txt and model.safetensors of random weights, as a test needs it.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/safetensors_writer.h"
#include "lathe/runtime/random.h"

namespace lathe {

inline std::vector<std::string> tiny_vocabulary() {
  return {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a",  "film", "good", "bad",  "great",
          "dull",  "very",  "not",   "##ly",  ".",      "it", "is",   "warm", "cold", "and"};
}

/// Writes the folder; `layers` and `hidden` decide how large the model is.
inline void write_tiny_model(const std::filesystem::path& folder, int layers = 2, int hidden = 32, int heads = 4) {
  std::filesystem::create_directories(folder);
  std::ofstream vocabulary(folder / "vocab.txt", std::ios::binary);
  for (const std::string& token : tiny_vocabulary()) vocabulary << token << '\n';
  vocabulary.close();
  std::ofstream(folder / "config.json")
      << R"({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": )" << tiny_vocabulary().size()
      << R"(, "hidden_size": )" << hidden << R"(, "num_hidden_layers": )" << layers << R"(, "num_attention_heads": )" << heads
      << R"(, "intermediate_size": )" << 2 * hidden
      << R"(, "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,)"
      << R"( "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "pad_token_id": 0})";
  const BertConfig config = BertConfig::load(folder / "config.json");
  std::vector<std::vector<float>> values;
  std::vector<TensorView> views;
  for (const ExpectedTensor& tensor : bert_tensors(config, 0)) {
    std::int64_t size = 1;
    for (const std::int64_t d : tensor.shape) size *= d;
    const RandomNumbers random(11, RandomUse::initial_weights, stream_of(tensor.name));
    std::vector<float>& v = values.emplace_back(static_cast<std::size_t>(size));
    const bool norm = tensor.name.ends_with("LayerNorm.weight");
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = norm ? 1.0F : static_cast<float>(0.05 * random.normal(i));
    views.push_back({.name = tensor.name, .type = SafetensorsType::f32, .shape = tensor.shape, .data = {}});
  }
  for (std::size_t i = 0; i < views.size(); ++i) views[i].data = std::as_bytes(std::span(values[i]));
  write_safetensors(folder / "model.safetensors", views);
}

/// Sentences whose label a small model can learn: "good", "great" and "warm" are positive, "bad", "dull" and "cold" negative.
inline void write_tiny_data(const std::filesystem::path& path, int rows, std::uint32_t seed) {
  const std::vector<std::string> positive = {"good", "great", "warm"};
  const std::vector<std::string> negative = {"bad", "dull", "cold"};
  const std::vector<std::string> filler = {"a", "film", "it", "is", "and", "very", "."};
  const RandomNumbers random(seed, RandomUse::split, 0);
  std::ofstream file(path, std::ios::binary);
  file << "text\tlabel\n";
  std::uint64_t draw = 0;
  const auto pick = [&](const std::vector<std::string>& list) { return list[random.bits(draw++) % list.size()]; };
  for (int i = 0; i < rows; ++i) {
    const bool label = random.bits(draw++) % 2 == 1;
    const auto before = random.bits(draw++) % 5;
    const auto after = random.bits(draw++) % 5;
    for (std::uint64_t w = 0; w < before; ++w) file << pick(filler) << ' ';
    file << pick(label ? positive : negative);
    for (std::uint64_t w = 0; w < after; ++w) file << ' ' << pick(filler);
    file << '\t' << (label ? "positive" : "negative") << '\n';
  }
}

}  // namespace lathe
