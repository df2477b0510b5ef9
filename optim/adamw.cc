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

const ParameterArena& trained(const ParameterArena& arena) {
  if (!arena.gradients() || !arena.master())
    throw LogicError("an optimizer was given an arena without gradients or without a master");
  return arena;
}

/// Where a tensor's elements are, from element `first` on.
std::byte* bytes_of(const Tensor& tensor, std::int64_t first = 0) {
  if (tensor.dtype() == DType::f64) return reinterpret_cast<std::byte*>(tensor.data<double>() + first);
  return reinterpret_cast<std::byte*>(tensor.data<float>() + first);
}

/// Calls f(piece of the arena, where its state begins) for each piece.
template <class F>
void for_each_piece(std::span<const Share> pieces, const F& f) {
  std::int64_t at = 0;
  for (const Share& piece : pieces) {
    f(piece, at);
    at += piece.count;
  }
}

}  // namespace

AdamWOptimizer::AdamWOptimizer(ParameterArena& arena, const AdamWSettings& settings, Replay replay, OptimizerRanks ranks)
    : arena_(arena),
      settings_(settings),
      ranks_(ranks),
      parts_master_(ranks.parts_master(trained(arena))),
      next_{.max_norm = static_cast<float>(settings.max_norm)},
      replay_(trained(arena).device()->kind() == DeviceKind::cuda ? replay : Replay::off) {
  const DeviceRef& device = arena.device();
  const DType full = arena.gradients().dtype();
  if (ranks.sharded()) buckets_ = ranks.buckets(arena);
  owned_ = ranks.owned(arena);
  const Shape part{elements_of(owned_)};
  arena.own_master();
  if (parts_master_) {
    // By way of the gradients' memory, so that the whole master and a part of it needn't both have a place.
    device->copy(bytes_of(arena.gradients()), bytes_of(arena.master()), arena.master().bytes());
    arena.release_master();
    weights_ = Tensor::empty(device, full, part);
    for_each_piece(owned_, [&](const Share& piece, std::int64_t at) {
      device->copy(bytes_of(weights_, at), bytes_of(arena.gradients(), piece.begin), piece.count * size_of(full));
    });
  }
  m_ = Tensor::zeros(device, full, part);
  v_ = Tensor::zeros(device, full, part);
  block_sums_ = Tensor::empty(device, full, Shape{static_cast<std::int64_t>(arena.blocks().size())});
  table_ = words_of(device, arena.blocks());
  const std::array<AdamWGroup, 2> groups = {
      AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = static_cast<float>(settings.weight_decay)},
      AdamWGroup{.learning_rate_factor = 1.0F, .weight_decay = 0.0F}};
  groups_ = words_of<AdamWGroup>(device, groups);
  state_ = Tensor::empty(device, DType::f32, Shape{sizeof(OptimizerStep) / sizeof(float)});
  device->upload(bytes_of(state_), std::as_bytes(std::span(&next_, 1)));
}

void AdamWOptimizer::step(double learning_rate) {
  next_.learning_rate = static_cast<float>(learning_rate);
  ++next_.step;
  arena_.device()->upload(bytes_of(state_), std::as_bytes(std::span(&next_, 1)).first(kSetByHost));
  if (ranks_.size == 1) {
    return run(first_, [this] {
      norms();
      clip();
      update();
    });
  }
  // What ranks do together isn't captured, and stands between what is.
  if (ranks_.sharded()) {
    run(first_, [this] { norms(); });
    // The others' blocks are zero, which rounds nothing, in whatever order they are added.
    together([this](Communicator& ranks) { ranks.all_reduce_sum(block_sums_); });
    clip();
  } else {
    run(first_, [this] {
      norms();
      clip();
    });
  }
  together([this](Communicator& ranks) { ranks.all_gather(state_, state_.size()); });  // one block, which is rank 0's
  run(second_, [this] { update(); });
  if (!ranks_.sharded()) return;
  together([this](Communicator& ranks) {
    for (const Share& bucket : buckets_) ranks.all_gather(arena_.values().view(bucket.begin, Shape{bucket.count}), kArenaBlock);
  });
}

void AdamWOptimizer::run(std::optional<Graph>& graph, const std::function<void()>& work) {
  if (replay_ == Replay::off) return work();
  if (!graph) graph = Graph::capture(arena_.device(), work);
  graph->replay();
}

void AdamWOptimizer::together(const std::function<void(Communicator&)>& collectives) const {
  if (ranks_.communicator == nullptr) throw LogicError("an optimizer's step of several ranks, without a communicator");
  ranks_.communicator->follow_device();
  collectives(*ranks_.communicator);
  ranks_.communicator->lead_device();
}

OptimizerStep* AdamWOptimizer::state() const { return reinterpret_cast<OptimizerStep*>(state_.data<float>()); }

void AdamWOptimizer::norms() const {
  if (ranks_.sharded()) block_sums_.fill_zero();
  on(arena_.values(), [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    for (const Share& piece : owned_) {
      squared_norms(stream, SquaredNorms<A>{.block_sums = block_sums_.data<A>() + piece.begin / kArenaBlock,
                                            .gradients = arena_.gradients().data<A>() + piece.begin,
                                            .blocks = piece.count / kArenaBlock});
    }
  });
}

void AdamWOptimizer::clip() const {
  on(arena_.values(), [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    clip_scale(stream, ClipScale<A>{.step = state(), .block_sums = block_sums_.data<A>(), .blocks = block_sums_.size()});
  });
}

void AdamWOptimizer::update() const {
  on(arena_.values(), [&]<class T>(auto stream) {
    using A = Accumulator<T>;
    Bf16* working = nullptr;
    if constexpr (std::is_same_v<T, Bf16>) working = arena_.values().data<Bf16>();
    const auto* const table = reinterpret_cast<const ArenaBlock*>(table_.data<std::int32_t>());
    for_each_piece(owned_, [&](const Share& piece, std::int64_t at) {
      adamw(stream, AdamW<A>{.weights = parts_master_ ? weights_.data<A>() + at : arena_.master().data<A>() + piece.begin,
                             .m = m_.data<A>() + at,
                             .v = v_.data<A>() + at,
                             .working = working == nullptr ? nullptr : working + piece.begin,
                             .gradients = arena_.gradients().data<A>() + piece.begin,
                             .table = table + piece.begin / kArenaBlock,
                             .groups = reinterpret_cast<const AdamWGroup*>(groups_.data<std::int32_t>()),
                             .step = state(),
                             .beta1 = settings_.beta1,
                             .beta2 = settings_.beta2,
                             .epsilon = settings_.epsilon,
                             .correction = settings_.correction,
                             .blocks = piece.count / kArenaBlock});
    });
  });
}

void AdamWOptimizer::gather_master() {
  if (!parts_master_) return;
  const Tensor& whole = arena_.gradients();
  for_each_piece(owned_, [&](const Share& piece, std::int64_t at) {
    arena_.device()->copy(bytes_of(whole, piece.begin), bytes_of(weights_, at), piece.count * size_of(whole.dtype()));
  });
  together([&](Communicator& ranks) {
    for (const Share& bucket : buckets_) ranks.all_gather(whole.view(bucket.begin, Shape{bucket.count}), kArenaBlock);
  });
  // Ranks go on to work of their own, a file or a part of an evaluation, in which none should still need another.
  ranks_.communicator->wait();
  arena_.lend_gradients();
}

void AdamWOptimizer::release_master() {
  if (parts_master_) arena_.release_master();
}

OptimizerStep AdamWOptimizer::last() const {
  OptimizerStep step;
  arena_.device()->download(std::as_writable_bytes(std::span(&step, 1)), bytes_of(state_));
  return step;
}

}  // namespace lathe
