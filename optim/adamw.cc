#include "lathe/optim/adamw.h"

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

#include "lathe/runtime/error.h"

namespace lathe {
namespace {

/// What the host sets of an OptimizerStep: its front.
constexpr std::size_t kSetByHost = offsetof(OptimizerStep, norm);

/// A copy of `values` on the device, which their type describes as words of 32 bits.
template <class T>
Tensor words_of(const DeviceRef& device, std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(std::int32_t) == 0);
  const std::span<const std::byte> bytes = std::as_bytes(values);
  Tensor words = Tensor::empty(device, DType::i32, Shape{static_cast<std::int64_t>(bytes.size() / sizeof(std::int32_t))});
  device->upload(reinterpret_cast<std::byte*>(words.data<std::int32_t>()), bytes);
  return words;
}

const Tensor& trained(const Tensor& master) {
  if (!master) throw LogicError("an optimizer was given an arena without gradients");
  return master;
}

}  // namespace

AdamWOptimizer::AdamWOptimizer(const ParameterArena& arena, const AdamWSettings& settings, Replay replay)
    : arena_(arena),
      settings_(settings),
      next_{.max_norm = static_cast<float>(settings.max_norm)},
      m_(Tensor::zeros(arena.device(), trained(arena.master()).dtype(), arena.master().shape())),
      v_(Tensor::zeros(arena.device(), arena.master().dtype(), arena.master().shape())),
      block_sums_(Tensor::empty(arena.device(), arena.master().dtype(), Shape{static_cast<std::int64_t>(arena.blocks().size())})),
      table_(words_of(arena.device(), arena.blocks())),
      state_(words_of(arena.device(), std::span<const OptimizerStep>(&next_, 1))),
      replay_(arena.device()->kind() == DeviceKind::cuda ? replay : Replay::off) {
  const std::array<AdamWGroup, 2> groups = {
      AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = static_cast<float>(settings.weight_decay)},
      AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = 0.0F}};
  groups_ = words_of<AdamWGroup>(arena.device(), groups);
}

void AdamWOptimizer::step(double learning_rate) {
  next_.learning_rate = static_cast<float>(learning_rate);
  ++next_.step;
  arena_.device()->upload(reinterpret_cast<std::byte*>(state_.data<std::int32_t>()),
                          std::as_bytes(std::span(&next_, 1)).first(kSetByHost));
  if (replay_ == Replay::off) return update();
  if (!graph_) graph_ = Graph::capture(arena_.device(), [this] { update(); });
  graph_->replay();
}

void AdamWOptimizer::update() const {
  auto* const state = reinterpret_cast<OptimizerStep*>(state_.data<std::int32_t>());
  const auto blocks = static_cast<std::int64_t>(arena_.blocks().size());
  on(arena_.values(), [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    Bf16* working = nullptr;
    if constexpr (std::is_same_v<T, Bf16>) working = arena_.values().data<Bf16>();
    squared_norms(stream, SquaredNorms<A>{
                              .block_sums = block_sums_.data<A>(), .gradients = arena_.gradients().data<A>(), .blocks = blocks});
    clip_scale(stream, ClipScale<A>{.step = state, .block_sums = block_sums_.data<A>(), .blocks = blocks});
    adamw(stream, AdamW<A>{.weights = arena_.master().data<A>(),
                           .m = m_.data<A>(),
                           .v = v_.data<A>(),
                           .working = working,
                           .gradients = arena_.gradients().data<A>(),
                           .table = reinterpret_cast<const ArenaBlock*>(table_.data<std::int32_t>()),
                           .groups = reinterpret_cast<const AdamWGroup*>(groups_.data<std::int32_t>()),
                           .step = state,
                           .beta1 = settings_.beta1,
                           .beta2 = settings_.beta2,
                           .epsilon = settings_.epsilon,
                           .correction = settings_.correction,
                           .blocks = blocks});
  });
}

OptimizerStep AdamWOptimizer::last() const {
  OptimizerStep step;
  arena_.device()->download(std::as_writable_bytes(std::span(&step, 1)),
                            reinterpret_cast<const std::byte*>(state_.data<std::int32_t>()));
  return step;
}

}  // namespace lathe
