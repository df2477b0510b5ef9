#pragma once
// A classifier as it lies in a folder: configuration, weights, tokenizer and labels, and the way there and back.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lathe/checkpoint/config.h"
#include "lathe/layers/bert.h"
#include "lathe/runtime/parameters.h"
#include "lathe/text/labels.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/model_weights.h"

namespace [[gnu::visibility("default")]] lathe {

/// A model with its parameters on a device. Stays where it was made: parameters are referred to.
class Classifier {
 public:
  /// What becomes of the classification head that a folder's weights have: it must be there (to evaluate), it is kept where it is there,
  /// or a new one takes its place (for other labels).
  enum class Head : std::uint8_t { required, kept, renewed };

  /// Reads the configuration, the tokenizer and the weights of `folder` into a model with a head for `labels`. What the file lacks and may
  /// lack is drawn from `seed`. With ArenaUse::inference the model can't be trained. It computes in `dtype`, fp32 or on a GPU bf16. Throws FileError, FormatError and MismatchError.
  static std::unique_ptr<Classifier> load(const std::filesystem::path& folder, const DeviceRef& device, LabelSet labels,
                                          Head head, std::uint32_t seed, ArenaUse use = ArenaUse::training,
                                          DType dtype = DType::f32);

  /// A new model of these sizes with a head for `labels`, all weights drawn from `seed`. Throws MismatchError where `config.vocabulary_size` is
  /// neither the tokenizer's nor that padded.
  static std::unique_ptr<Classifier> create(BertConfig config, WordPieceTokenizer tokenizer, LabelSet labels,
                                            const DeviceRef& device, std::uint32_t seed, DType dtype = DType::f32);

  /// Reads the weights again, from a folder that save() wrote.
  void reload(const std::filesystem::path& folder);
  /// Writes config.json and the tokenizer's files into `folder`, which exists.
  void save_description(const std::filesystem::path& folder) const;
  /// Writes model.safetensors into `folder`, atomically. `written`, where given, is called after each tensor.
  void save_weights(const std::filesystem::path& folder, const std::function<void()>& written = {}) const;

  const DeviceRef& device() const { return arena_.device(); }
  DType dtype() const { return arena_.values().dtype(); }
  const BertClassifier& model() const { return model_; }
  const ParameterArena& arena() const { return arena_; }
  ParameterArena& arena() { return arena_; }
  const ParameterSet& parameters() const { return parameters_; }
  const WordPieceTokenizer& tokenizer() const { return tokenizer_; }
  const LabelSet& labels() const { return labels_; }
  const BertConfig& config() const { return config_; }
  const LoadReport& report() const { return report_; }
  std::int64_t parameter_count() const { return parameters_.size(); }

 private:
  Classifier(BertConfig config, WordPieceTokenizer tokenizer, LabelSet labels, const DeviceRef& device, ArenaUse use,
             DType dtype);
  void read_weights(const std::filesystem::path& folder, Head head, std::uint32_t seed);

  BertConfig config_;
  WordPieceTokenizer tokenizer_;
  LabelSet labels_;
  ParameterSet parameters_;
  BertClassifier model_;
  ParameterArena arena_;
  LoadReport report_;
};

/// The labels of the classification head that a folder's weights have: those that the configuration names, else LABEL_0, LABEL_1, ...;
/// empty where there is no such head.
LabelSet labels_of_model(const std::filesystem::path& folder);

}  // namespace lathe
