// What a researcher who embeds Lathe does: an operator of her own, a model, a loop, a score; and bad input, caught by type.
#include <lathe/checkpoint/safetensors.h>
#include <lathe/layers/functions.h>
#include <lathe/optim/adamw.h>
#include <lathe/runtime/error.h>
#include <lathe/training/metrics.h>
#include <lathe/training/upload.h>
#include <lathe/version.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

namespace {

/// y = x * x, element by element.
lathe::Tensor square(lathe::Tape& tape, const lathe::Tensor& x) {
  auto y = lathe::Tensor::like(x);
  for (std::int64_t i = 0; i < x.size(); ++i) y.data<float>()[i] = x.data<float>()[i] * x.data<float>()[i];
  tape.record({.name = "square", .inputs = {x}, .outputs = {y}, .saved = {x}}, [](const lathe::Backward& b) {
    for (std::int64_t i = 0; i < b.saved(0).size(); ++i) {
      const float d_x = 2.0F * b.saved(0).data<float>()[i] * b.d_output<float>(0)[i];
      if (b.use(0) == lathe::Use::write) b.d_input<float>(0)[i] = d_x;
      if (b.use(0) == lathe::Use::add) b.d_input<float>(0)[i] += d_x;
    }
  });
  return y;
}

/// Learns which of two numbers is the larger in magnitude.
bool learns() {
  const auto device = lathe::Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 26});
  const std::vector<float> samples = {-3, 1, 0.5, 2, 2, 1, -1, 3, 4, -2, 1, -4};
  const std::vector<std::int32_t> classes = {0, 1, 0, 1, 0, 1};
  const auto x = lathe::Tensor::from<float>(device, samples, {6, 2});

  lathe::ParameterSet parameters;
  auto& weight = parameters.add({.name = "weight", .shape = {2, 2}, .file_names = {}});
  lathe::ParameterArena arena(device, lathe::DType::f32, parameters);
  lathe::ParameterArena::initialise(weight, 1, 0.1);
  lathe::AdamWOptimizer optimizer(arena, {.weight_decay = 0.0});

  // Samples of one token each, all labelled.
  const lathe::TokenizedSamples tokens =
      lathe::SampleLists{.ids = std::vector<std::int32_t>(6), .types = {}, .offsets = {0, 1, 2, 3, 4, 5, 6}};
  lathe::PackedBatch packed;
  lathe::pack_sequences(tokens, std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}, classes, 0, packed);
  const auto batch = lathe::upload(device, lathe::DType::f32, packed, {.loss_denominator = 6.0});

  lathe::Tape tape(device);
  std::vector<float> scores(12);
  for (int step = 0; step < 100; ++step) {
    arena.watch(tape, lathe::Use::write);
    const auto logits = lathe::linear(tape, square(tape, x), weight.value, {});
    logits.copy_to<float>(scores);
    tape.backward(lathe::cross_entropy_loss(tape, logits, batch, {}));
    optimizer.step(0.1);
    tape.clear();
  }
  return lathe::classification_metrics(scores, classes, 2, 0.0).accuracy == 1.0;
}

/// A file that is no safetensors file is told by the type of what is thrown, across the library's border.
bool catches_by_type() {
  const std::filesystem::path path = "broken.safetensors";
  std::ofstream(path) << "8 bytes and some more";
  try {
    lathe::SafetensorsFile::open(path);
  } catch (const lathe::FormatError& error) {
    std::printf("caught: %s\n", error.what());
    return error.path() == path && error.exit_status() == 2;
  }
  return false;
}

}  // namespace

int main() {
  std::printf("lathe %.*s\n", static_cast<int>(lathe::kVersion.size()), lathe::kVersion.data());
  if (!learns()) return 1;
  return catches_by_type() ? 0 : 2;
}
