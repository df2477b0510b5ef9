#pragma once
// A masked language model as it lies in a folder: configuration, weights and tokenizer, and the way there and back.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "lathe/checkpoint/config.h"
#include "lathe/layers/bert.h"
#include "lathe/runtime/parameters.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/model_weights.h"

namespace [[gnu::visibility("default")]] lathe {

/// A model with its parameters on a device, which computes in fp32 or, on a GPU, bf16. Stays where it was made: parameters are referred to.
class MaskedLm {
 public:
  /// A new model of these sizes, all weights drawn from `seed`. `config.vocabulary_size` must be the tokenizer's or that padded; throws
  /// MismatchError otherwise.
  static std::unique_ptr<MaskedLm> create(BertConfig config, WordPieceTokenizer tokenizer, const DeviceRef& device,
                                          std::uint32_t seed, DType dtype = DType::f32);
  /// Reads the configuration, the tokenizer and the weights of `folder`. A head that the file lacks is drawn from `seed`; `dropout`, where
  /// given, takes the place of the configuration's rates. Throws FileError,
  /// FormatError and MismatchError, also for a model whose decoder is not its word embeddings.
  static std::unique_ptr<MaskedLm> load(const std::filesystem::path& folder, const DeviceRef& device, std::uint32_t seed,
                                        std::optional<double> dropout = std::nullopt, ArenaUse use = ArenaUse::training,
                                        DType dtype = DType::f32);

  /// Writes config.json and the tokenizer's files into `folder`, which exists.
  void save_description(const std::filesystem::path& folder) const;
  /// Writes model.safetensors into `folder`, atomically: what Hugging Face's BertForMaskedLM has, without the tied decoder. `written`, where
  /// given, is called after each tensor.
  void save_weights(const std::filesystem::path& folder, const std::function<void()>& written = {}) const;

  const DeviceRef& device() const { return arena_.device(); }
  DType dtype() const { return arena_.values().dtype(); }
  const BertMaskedLm& model() const { return model_; }
  const ParameterArena& arena() const { return arena_; }
  ParameterArena& arena() { return arena_; }
  const ParameterSet& parameters() const { return parameters_; }
  const WordPieceTokenizer& tokenizer() const { return tokenizer_; }
  const BertConfig& config() const { return config_; }
  const LoadReport& report() const { return report_; }
  std::int64_t parameter_count() const { return parameters_.size(); }

 private:
  MaskedLm(BertConfig config, WordPieceTokenizer tokenizer, const DeviceRef& device, ArenaUse use, DType dtype);

  BertConfig config_;
  WordPieceTokenizer tokenizer_;
  ParameterSet parameters_;
  BertMaskedLm model_;
  ParameterArena arena_;
  LoadReport report_;
};

}  // namespace lathe
