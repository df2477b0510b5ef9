#include "lathe/training/training_loop.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "lathe/optim/schedule.h"
#include "lathe/runtime/error.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/step_trace.h"

namespace lathe {
namespace {

/// Wall time that can be paused.
class Stopwatch {
 public:
  void pause() { lap_ += since_resumed(); }
  void resume() { resumed_ = Clock::now(); }
  /// Seconds that it has run since the last lap, or the start.
  double lap() {
    const double seconds = lap_ + since_resumed();
    lap_ = 0.0;
    resume();
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  double since_resumed() const { return std::chrono::duration<double>(Clock::now() - resumed_).count(); }
  Clock::time_point resumed_ = Clock::now();
  double lap_ = 0.0;
};

/// Steps after which a GPU is asked whether all was a number: to ask is to wait for it.
constexpr std::int64_t kCheckSteps = 64;

/// The state of a run, step by step.
class Run {
 public:
  Run(TrainingTask& task, ParameterArena& arena, const TrainingSettings& settings, const TrainingSteps& steps,
      TrainingObserver& observer, Communicator* communicator)
      : task_(task),
        arena_(arena),
        settings_(settings),
        steps_(steps),
        observer_(observer),
        communicator_(communicator),
        schedule_{.peak = settings.learning_rate, .warmup_steps = steps.warmup, .total_steps = steps.total},
        optimizer_(arena, settings.optimizer, settings.replay,
                   optimizer_ranks(settings, communicator == nullptr ? Place() : communicator->place(), communicator)),
        gradient_sum_(communicator, arena, settings.gradient_bucket_bytes, settings.shard_optimizer),
        step_(
            arena, [&task](Tape& tape, const Batch& batch) { return task.loss(tape, batch); }, settings.replay),
        times_(arena.device()),
        check_steps_(arena.device()->kind() == DeviceKind::cpu ? 1 : kCheckSteps) {
    gradient_sum_.follow(step_);
    step_.tell([this](StepPhase phase) { reach(phase); });
    if (settings.profile_steps == 0) return;
    trace_.emplace(arena.device(), communicator, settings.profile_steps);
    gradient_sum_.tell([this](std::size_t bucket, BucketMoment moment) {
      trace_->reached(bucket, gradient_sum_.buckets()[bucket].bytes(), moment);
    });
  }

  TrainingResult train(const std::atomic<int>* stop) {
    TrainingResult result;
    result.total_steps = steps_.total;
    task_.prepare(batches_);
    if (settings_.tune_products) tune_products();
    clock_.resume();
    for (std::int64_t step = 0; step < steps_.total; ++step) {
      train_step(step);
      result.steps = step + 1;
      result.interrupted = told_to_stop(stop, step);
      const bool last = step + 1 == steps_.total || result.interrupted;
      if (last || step == 0 || (step + 1) % settings_.log_steps == 0) log(step);
      const bool epoch_ends = last || task_.ends_epoch(step + 1);
      if (!result.interrupted && epoch_ends) {
        numbers(step);  // what is evaluated or kept has seen no step that failed
        check_same_weights(communicator_, arena_, fmt::format("after step {}", step + 1));
        clock_.pause();
        const auto since = std::chrono::steady_clock::now();
        optimizer_.gather_master();
        result.interrupted = !task_.finish_epoch(step + 1);
        optimizer_.release_master();
        if (trace_) trace_->evaluated(since);
        clock_.resume();
      }
      if (result.interrupted) break;
    }
    result.epochs = task_.epochs_at(result.steps);
    result.tokens = tokens_;
    result.seconds = seconds_;
    result.skipped_steps = optimizer_.last().skips;
    result.parts = parts_;
    if (trace_) {
      const std::string trace = trace_->finish();
      if (!trace.empty()) observer_.traced(trace);
    }
    optimizer_.gather_master();
    return result;
  }

 private:
  void reach(StepPhase phase) {
    if (communicator_ != nullptr) communicator_->working("computing");
    times_.reached(phase);
    if (trace_) trace_->reached(phase);
    observer_.reached(phase);
  }

  /// Rank 0 times them, and all compute by what it found.
  void tune_products() {
    Device& device = *arena_.device();
    const bool first = communicator_ == nullptr || communicator_->rank() == 0;
    if (first) device.tune_products();
    std::string table = first ? device.product_table() : "";
    if (communicator_ != nullptr) table = communicator_->gather(table).front();
    if (!first) device.use_product_table(table);
    observer_.tuned(table);
  }

  void train_step(std::int64_t step) {
    if (communicator_ != nullptr) communicator_->working("computing", step + 1);
    if (trace_) trace_->begin(step);
    times_.begin();
    task_.pack(step, batches_);
    reach(StepPhase::packed);
    const RandomKey key{.seed = settings_.seed, .step = static_cast<std::uint32_t>(step)};
    const auto compute = [&] { compute_gradients(step_, batches_, key); };
    if (communicator_ != nullptr && arena_.device()->kind() != DeviceKind::cpu) {
      communicator_->at_device(compute);  // the host runs ahead, until it has to wait for the sums of an earlier step
    } else {
      compute();
    }
    if (batches_.count == 0) reach(StepPhase::computed);  // zeros
    gradient_sum_.run();
    reach(StepPhase::summed);
    learning_rate_ = schedule_.rate(step);
    optimizer_.step(learning_rate_);
    reach(StepPhase::updated);
    tokens_ += batches_.tokens;
    unlogged_tokens_ += batches_.tokens;
    if ((step + 1) % check_steps_ == 0) numbers(step);
    observer_.stepped(step + 1, steps_.total, batches_.tokens);
  }

  /// Whether any rank was told to stop, which ranks ask each other at the steps at which numbers are looked at.
  bool told_to_stop(const std::atomic<int>* stop, std::int64_t step) {
    if (communicator_ == nullptr) return is_stopped(stop);
    if ((step + 1) % check_steps_ != 0 && (step + 1) % settings_.log_steps != 0) return false;
    std::array<double, 1> told = {is_stopped(stop) ? 1.0 : 0.0};
    sum_over_ranks(communicator_, told);
    return told[0] > 0.0;
  }

  struct Numbers {
    double loss, norm;
  };
  /// What `step`, the last, came to. Ends the run where a step so far came to what is no number: the optimizer left the weights alone in
  /// such a step and told its number, so that this may be found out some steps later. Waits for the device.
  Numbers numbers(std::int64_t step) const {
    const double loss = global_loss();
    const OptimizerStep last = optimizer_.last();
    if (std::isfinite(loss) && last.skips == 0) return {.loss = loss, .norm = last.norm};
    const std::int64_t first = last.skips > 0 ? last.first_skip : step + 1;
    if (first == step + 1) {
      throw NonFiniteError(
          fmt::format("step {}: the loss is {} and the gradients' norm {}: not numbers to go on with; use a smaller --lr or look "
                      "for faults in the data",
                      first, loss, last.norm));
    }
    throw NonFiniteError(
        fmt::format("step {}: the gradients' norm is not a number to go on with, found out after step {}; use a smaller --lr or "
                    "look for faults in the data",
                    first, step + 1));
  }

  double global_loss() const {
    // Where another rank is gone, a GPU would wait for its sums without an end: this asks whether they still come.
    if (communicator_ != nullptr) communicator_->wait();
    std::array<double, 1> loss = {step_.loss()};
    sum_over_ranks(communicator_, loss);
    return loss[0];
  }

  void log(std::int64_t step) {
    // Before the clock is read: on a GPU the steps so far have then been done, and not only begun.
    const auto [loss, norm] = numbers(step);
    const double elapsed = clock_.lap();
    seconds_ += elapsed;
    const StepSeconds parts = times_.take(communicator_, elapsed);
    parts_ += parts;
    observer_.logged({.step = step + 1,
                      .epoch = task_.epochs_at(step + 1),
                      .loss = loss,
                      .learning_rate = learning_rate_,
                      .gradient_norm = norm,
                      .tokens = unlogged_tokens_,
                      .tokens_per_second = elapsed > 0.0 ? static_cast<double>(unlogged_tokens_) / elapsed : 0.0,
                      .seconds = parts});
    unlogged_tokens_ = 0;
  }

  TrainingTask& task_;
  ParameterArena& arena_;
  const TrainingSettings& settings_;
  TrainingSteps steps_;
  TrainingObserver& observer_;
  Communicator* communicator_;
  LinearSchedule schedule_;
  AdamWOptimizer optimizer_;
  GradientSum gradient_sum_;
  TrainingStep step_;
  StepTimes times_;
  std::optional<StepTrace> trace_;
  StepBatches batches_;
  std::int64_t check_steps_;  // from one look at whether all was a number to the next
  Stopwatch clock_;
  double seconds_ = 0.0;
  StepSeconds parts_;
  double learning_rate_ = 0.0;
  std::int64_t tokens_ = 0;
  std::int64_t unlogged_tokens_ = 0;
};

}  // namespace

TrainingSteps training_steps(const TrainingSettings& settings, std::int64_t per_epoch, double total) {
  // Far more than anybody waits for; a random key counts steps in 32 bits.
  constexpr double kMost = 1e9;
  if (!(total <= kMost))
    throw UsageError(fmt::format("{:.4g} steps are asked for, and a run has at most {:.4g}; train for less", total, kMost));
  TrainingSteps steps{.per_epoch = per_epoch, .total = static_cast<std::int64_t>(total)};
  steps.warmup = settings.warmup_share
                     ? static_cast<std::int64_t>(std::ceil(*settings.warmup_share * static_cast<double>(steps.total)))
                     : settings.warmup_steps;
  return steps;
}

void compute_gradients(TrainingStep& step, const StepBatches& batches, const RandomKey& key) {
  const BatchScalars scalars{.random_key = &key, .loss_denominator = static_cast<double>(batches.rows)};
  if (batches.count == 0) step.clear();
  for (std::size_t i = 0; i < batches.count; ++i) {
    const auto& [packed, bucket] = batches.micro_batches[i];
    step.run(packed, bucket, scalars, i == 0 ? Use::write : Use::add);
  }
}

OptimizerRanks optimizer_ranks(const TrainingSettings& settings, const Place& place, Communicator* communicator) {
  return {.communicator = communicator,
          .rank = place.rank,
          .size = place.size,
          .shard = settings.shard_optimizer,
          .bucket_bytes = settings.gradient_bucket_bytes};
}

TrainingResult train(TrainingTask& task, ParameterArena& arena, const TrainingSettings& settings, const TrainingSteps& steps,
                     TrainingObserver& observer, const std::atomic<int>* stop, Communicator* communicator) {
  check_same_weights(communicator, arena, "before the first step");
  return Run(task, arena, settings, steps, observer, communicator).train(stop);
}

}  // namespace lathe
