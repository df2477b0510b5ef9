#include "lathe/optim/adamw.h"

namespace lathe {

AdamWOptimizer::AdamWOptimizer(const ParameterArena& arena, const AdamWSettings& settings)
    : arena_(arena),
      settings_(settings),
      groups_{AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = static_cast<float>(settings.weight_decay)},
              AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = 0.0F}},
      m_(Tensor::zeros(arena.device(), arena.values().dtype(), arena.values().shape())),
      v_(Tensor::zeros(arena.device(), arena.values().dtype(), arena.values().shape())),
      block_sums_(
          Tensor::empty(arena.device(), arena.values().dtype(), Shape{static_cast<std::int64_t>(arena.blocks().size())})) {
  static_assert(sizeof(OptimizerStep) % sizeof(std::int32_t) == 0);
  state_ =
      Tensor::empty(arena.device(), DType::i32, Shape{static_cast<std::int64_t>(sizeof(OptimizerStep) / sizeof(std::int32_t))});
  *reinterpret_cast<OptimizerStep*>(state_.data<std::int32_t>()) =
      OptimizerStep{.max_norm = static_cast<float>(settings.max_norm)};
}

void AdamWOptimizer::step(double learning_rate) {
  auto* state = reinterpret_cast<OptimizerStep*>(state_.data<std::int32_t>());
  state->learning_rate = static_cast<float>(learning_rate);
  ++state->step;
  const auto blocks = static_cast<std::int64_t>(arena_.blocks().size());
  on_cpu(arena_.values(), [&]<class T>(CpuStream stream) {
    squared_norms(stream, SquaredNorms<T>{
                              .block_sums = block_sums_.data<T>(), .gradients = arena_.gradients().data<T>(), .blocks = blocks});
    clip_scale(stream, ClipScale<T>{.step = state, .block_sums = block_sums_.data<T>(), .blocks = blocks});
    adamw(stream, AdamW<T>{.weights = arena_.values().data<T>(),
                           .m = m_.data<T>(),
                           .v = v_.data<T>(),
                           .gradients = arena_.gradients().data<T>(),
                           .table = arena_.blocks().data(),
                           .groups = groups_.data(),
                           .step = state,
                           .beta1 = settings_.beta1,
                           .beta2 = settings_.beta2,
                           .epsilon = settings_.epsilon,
                           .correction = settings_.correction,
                           .blocks = blocks});
  });
}

OptimizerStep AdamWOptimizer::last() const { return *reinterpret_cast<const OptimizerStep*>(state_.data<std::int32_t>()); }

}  // namespace lathe
