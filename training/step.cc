#include "lathe/training/step.h"

#include <array>
#include <utility>

#include "lathe/kernels/reduce.h"
#include "lathe/runtime/error.h"

namespace lathe {
namespace {

DType accumulator_of(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

}  // namespace

TrainingStep::TrainingStep(const ParameterArena& arena, Loss loss, Replay replay)
    : arena_(arena),
      compute_loss_(std::move(loss)),
      replay_(arena.device()->kind() == DeviceKind::cuda ? replay : Replay::off),
      write_(arena.device()),
      add_(arena.device()),
      loss_(Tensor::zeros(arena.device(), accumulator_of(arena.values().dtype()), Shape{})) {
  if (!arena.gradients()) throw LogicError("a training step needs an arena with gradients");
  arena.watch(write_, Use::write);
  arena.watch(add_, Use::add);
}

TrainingStep::~TrainingStep() = default;

void TrainingStep::mark(GradientBuckets& buckets) {
  if (!captured_.empty()) throw LogicError("moments in graphs are asked for, and there are graphs without them already");
  buckets_ = &buckets;
  for (Tape* tape : {&write_, &add_}) tape->tell([&buckets](const Tensor& gradient) { buckets.ready(gradient); });
}

void TrainingStep::compute(const Batch& batch, Use first) {
  if (buckets_ != nullptr) buckets_->begin();
  Tape& tape = first == Use::write ? write_ : add_;
  const Tensor loss = compute_loss_(tape, batch);
  tape.backward(loss);
  on(loss, [&]<class T>(auto stream) {
    if (first == Use::write) {
      loss_.device()->copy(reinterpret_cast<std::byte*>(loss_.data<T>()), reinterpret_cast<const std::byte*>(loss.data<T>()),
                           loss_.bytes());
    } else {
      add(stream, Add<T>{.y = loss_.data<T>(), .a = loss_.data<T>(), .b = loss.data<T>(), .count = 1});
    }
  });
}

void TrainingStep::run(const PackedBatch& packed, const Bucket& bucket, const BatchScalars& scalars, Use first) {
  const DeviceRef& device = arena_.device();
  if (replay_ == Replay::off) {
    const StepMemory memory(device);
    const Batch batch = upload(device, arena_.values().dtype(), packed, scalars);
    reach(StepPhase::uploaded);
    compute(batch, first);
    reach(StepPhase::computed);
    return;
  }
  const Key key{.bucket = bucket, .first = first};
  auto known = captured_.find(key);
  if (known == captured_.end()) {
    BatchMemory place(device, arena_.values().dtype(), packed, scalars);
    Graph graph = Graph::capture(device, [&] {
      const StepMemory memory(device);
      compute(place.batch(), first);
    });
    known = captured_.emplace(key, Captured{std::move(place), std::move(graph)}).first;
    reach(StepPhase::captured);
  }
  known->second.memory.fill(packed, scalars);
  reach(StepPhase::uploaded);
  known->second.graph.replay();
  reach(StepPhase::computed);
}

void TrainingStep::clear() {
  arena_.gradients().fill_zero();
  loss_.fill_zero();
  if (buckets_ != nullptr) buckets_->all_ready();
}

double TrainingStep::loss() const {
  if (loss_.dtype() == DType::f64) {
    std::array<double, 1> value{};
    loss_.copy_to<double>(value);
    return value[0];
  }
  std::array<float, 1> value{};
  loss_.copy_to<float>(value);
  return value[0];
}

#ifdef LATHE_EMULATED
void TrainingStep::expect_replay_is_current(const Bucket& bucket, Use first) {
  const Captured& captured = captured_.at({.bucket = bucket, .first = first});
  captured.graph.expect_same_as(Graph::capture(arena_.device(), [&] {
    const StepMemory memory(arena_.device());
    compute(captured.memory.batch(), first);
  }));
}
#endif

}  // namespace lathe
