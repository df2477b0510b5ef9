#include "benchmarks/operands.h"
#include "lathe/kernels/optimizer.h"

namespace lathe::bench {
namespace {

// Arenas hold fp32, whatever the model computes in; with bf16 AdamW writes the working copy as well. clip_scale() is for a few numbers, and
// not measured.

std::int64_t blocks_of(const Sizes& s) { return (s.tokens * s.channels + kArenaBlock - 1) / kArenaBlock; }

template <class Stream>
Case norms(const Sizes& s) {
  const std::int64_t blocks = blocks_of(s);
  return {.family = "optimizer",
          .kernel = "squared_norms",
          .dtype = "f32",
          .shape = {{"N", blocks * kArenaBlock}},
          .operands = {per_row<float>("block_sums", Access::write, blocks),
                       matrix<float>("gradients", Access::read, blocks, kArenaBlock)},
          .operations = 2 * blocks * kArenaBlock,
          .bind = [blocks](Device& device, const Addresses& at) -> Call {
            const SquaredNorms<float> args{
                .block_sums = at.get<float>("block_sums"), .gradients = at.get<float>("gradients"), .blocks = blocks};
            return [stream = stream_of<Stream>(device), args] { squared_norms(stream, args); };
          }};
}

enum class Working : std::uint8_t { none, bf16 };

template <class Stream>
Case update(const Sizes& s, Working working) {
  const std::int64_t blocks = blocks_of(s);
  const bool copies = working == Working::bf16;
  Case made{.family = "optimizer",
            .kernel = "adamw",
            .dtype = copies ? "bf16" : "f32",
            .shape = {{"N", blocks * kArenaBlock}},
            .operands = {matrix<float>("weights", Access::update, blocks, kArenaBlock),
                         matrix<float>("m", Access::update, blocks, kArenaBlock),
                         filled(matrix<float>("v", Access::update, blocks, kArenaBlock), noise<float>(Sign::positive)),
                         matrix<float>("gradients", Access::read, blocks, kArenaBlock),
                         array("table", Extent::per_row, std::vector<ArenaBlock>(static_cast<std::size_t>(blocks))),
                         array("groups", Extent::vector,
                               std::vector<AdamWGroup>{{.learning_rate_factor = 1.0F, .weight_decay = 0.01F}}),
                         array("step", Extent::vector, std::vector<OptimizerStep>{{.learning_rate = 1e-5F, .updates = 1000}})},
            // The scale 1, m 3, v 4, corrections 2, root, epsilon, quotient, rate, decay, two differences 7.
            .operations = 17 * blocks * kArenaBlock,
            .bind = {}};
  if (copies) made.operands.push_back(matrix<Bf16>("working", Access::write, blocks, kArenaBlock));
  made.bind = [blocks, copies](Device& device, const Addresses& at) -> Call {
    const AdamW<float> args{.weights = at.get<float>("weights"),
                            .m = at.get<float>("m"),
                            .v = at.get<float>("v"),
                            .working = copies ? at.get<Bf16>("working") : nullptr,
                            .gradients = at.get<float>("gradients"),
                            .table = at.get<ArenaBlock>("table"),
                            .groups = at.get<AdamWGroup>("groups"),
                            .step = at.get<OptimizerStep>("step"),
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .epsilon = 1e-8,
                            .correction = BiasCorrection::corrected,
                            .blocks = blocks};
    return [stream = stream_of<Stream>(device), args] { adamw(stream, args); };
  };
  return made;
}

}  // namespace

std::vector<Case> optimizer_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    if constexpr (std::is_same_v<T, float>) {
      list.push_back(norms<Stream>(sizes));
      list.push_back(update<Stream>(sizes, Working::none));
      list.push_back(update<Stream>(sizes, Working::bf16));
    }
  });
}

}  // namespace lathe::bench
