// Writes what scripts/golden_pretrain.py trains on: Lathe's initial weights, the batches of each step with their masks, the dev split with its masks
// as one batch, and the training sequences by themselves.
//   pretrain_golden_inputs DATA FOLDER
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "lathe/checkpoint/safetensors_writer.h"
#include "lathe/text/masking.h"
#include "lathe/training/loader.h"
#include "tests/training/pretrain_golden.h"

namespace {

namespace fs = std::filesystem;
using List = std::vector<std::int32_t>;

/// Batches end to end, and where each begins in every list.
struct Batches {
  List token, sequence_end, row_token, label;
  List first_token{0}, first_sequence{0}, first_row{0};

  void add(const lathe::PackedBatch& packed) {
    token.insert(token.end(), packed.token.begin(), packed.token.end());
    sequence_end.insert(sequence_end.end(), packed.cu_seqlens.begin() + 1, packed.cu_seqlens.end());
    row_token.insert(row_token.end(), packed.row_token.begin(), packed.row_token.end());
    label.insert(label.end(), packed.label.begin(), packed.label.end());
    first_token.push_back(static_cast<std::int32_t>(token.size()));
    first_sequence.push_back(static_cast<std::int32_t>(sequence_end.size()));
    first_row.push_back(static_cast<std::int32_t>(row_token.size()));
  }
  void write(const fs::path& path) const {
    std::vector<lathe::TensorView> tensors;
    const auto view = [&](const char* name, const List& list) {
      tensors.push_back({.name = name,
                         .type = lathe::SafetensorsType::i32,
                         .shape = {static_cast<std::int64_t>(list.size())},
                         .data = std::as_bytes(std::span(list))});
    };
    view("token", token), view("sequence_end", sequence_end), view("row_token", row_token), view("label", label);
    view("first_token", first_token), view("first_sequence", first_sequence), view("first_row", first_row);
    lathe::write_safetensors(path, tensors);
  }
};

/// The samples by themselves, unmasked, for PyTorch to batch and mask as it will.
void write_samples(const lathe::TokenizedSamples& samples, const fs::path& path) {
  List offsets(samples.offsets.begin(), samples.offsets.end());
  const std::vector<lathe::TensorView> tensors = {{.name = "ids",
                                                   .type = lathe::SafetensorsType::i32,
                                                   .shape = {static_cast<std::int64_t>(samples.ids.size())},
                                                   .data = std::as_bytes(std::span(samples.ids))},
                                                  {.name = "offsets",
                                                   .type = lathe::SafetensorsType::i32,
                                                   .shape = {static_cast<std::int64_t>(offsets.size())},
                                                   .data = std::as_bytes(std::span(offsets))}};
  lathe::write_safetensors(path, tensors);
}

void write_inputs(const fs::path& data, const fs::path& folder) {
  fs::create_directories(folder / "model");
  const lathe::GoldenPretraining golden(data, folder, 0.0, 42);
  const auto model = golden.model(1);
  model->save_description(folder / "model");
  model->save_weights(folder / "model");
  write_samples(golden.train, folder / "train.safetensors");

  const lathe::Masking masking(golden.tokenizer, golden.settings.mlm_probability);
  lathe::TokenBatches order(golden.train, golden.settings.batch_tokens, golden.settings.seed);
  lathe::PackedBatch packed;
  Batches train;
  for (std::int64_t step = 0; step < lathe::GoldenPretraining::kSteps; ++step) {
    lathe::pack_masked(golden.train, order.batch(step), masking,
                       {.seed = golden.settings.seed, .step = static_cast<std::uint32_t>(step)}, 0, packed);
    train.add(packed);
  }
  train.write(folder / "batches.safetensors");

  List members(static_cast<std::size_t>(golden.dev.count()));
  std::iota(members.begin(), members.end(), 0);
  lathe::pack_masked(golden.dev, members, masking, {.seed = lathe::golden_dev_settings().seed, .step = lathe::kEvaluationMasks},
                     0, packed);
  Batches dev;
  dev.add(packed);
  dev.write(folder / "dev.safetensors");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: pretrain_golden_inputs DATA FOLDER\n");
    return 2;
  }
  write_inputs(argv[1], argv[2]);
  return 0;
}
