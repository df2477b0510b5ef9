#include "lathe/training/training_loop.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "lathe/optim/schedule.h"
#include "lathe/runtime/error.h"

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

/// The state of a run, step by step.
class Run {
 public:
  Run(TrainingTask& task, const ParameterArena& arena, const TrainingSettings& settings, const TrainingSteps& steps,
      TrainingObserver& observer)
      : task_(task),
        settings_(settings),
        steps_(steps),
        observer_(observer),
        schedule_{.peak = settings.learning_rate, .warmup_steps = steps.warmup, .total_steps = steps.total},
        optimizer_(arena, settings.optimizer),
        tape_(arena.device()) {
    arena.watch(tape_, Use::write);
  }

  TrainingResult train(const std::atomic<int>* stop) {
    TrainingResult result;
    result.total_steps = steps_.total;
    clock_.resume();
    for (std::int64_t step = 0; step < steps_.total; ++step) {
      train_step(step);
      result.steps = step + 1;
      result.interrupted = is_stopped(stop);
      const bool last = step + 1 == steps_.total || result.interrupted;
      if (last || step == 0 || (step + 1) % settings_.log_steps == 0) log(step);
      const bool epoch_ends = last || task_.ends_epoch(step + 1);
      if (!result.interrupted && epoch_ends) {
        clock_.pause();
        result.interrupted = !task_.finish_epoch(step + 1);
        clock_.resume();
      }
      if (result.interrupted) break;
    }
    result.epochs = task_.epochs_at(result.steps);
    result.tokens = tokens_;
    result.seconds = seconds_;
    result.skipped_steps = optimizer_.last().skips;
    return result;
  }

 private:
  void train_step(std::int64_t step) {
    const auto [loss, tokens] = task_.forward(tape_, step);
    tape_.backward(loss);
    learning_rate_ = schedule_.rate(step);
    optimizer_.step(learning_rate_);
    loss_ = *loss.data<float>();
    tokens_ += tokens;
    unlogged_tokens_ += tokens;
    if (!std::isfinite(loss_) || optimizer_.last().skip != 0) {
      throw NonFiniteError(
          fmt::format("step {}: the loss is {} and the gradients' norm {}: not numbers to go on with; use a smaller --lr or look "
                      "for faults in the data",
                      step + 1, loss_, optimizer_.last().norm));
    }
    observer_.stepped(step + 1, steps_.total, tokens);
  }

  void log(std::int64_t step) {
    const double elapsed = clock_.lap();
    seconds_ += elapsed;
    observer_.logged({.step = step + 1,
                      .epoch = task_.epochs_at(step + 1),
                      .loss = loss_,
                      .learning_rate = learning_rate_,
                      .gradient_norm = optimizer_.last().norm,
                      .tokens = unlogged_tokens_,
                      .tokens_per_second = elapsed > 0.0 ? static_cast<double>(unlogged_tokens_) / elapsed : 0.0});
    unlogged_tokens_ = 0;
  }

  TrainingTask& task_;
  const TrainingSettings& settings_;
  TrainingSteps steps_;
  TrainingObserver& observer_;
  LinearSchedule schedule_;
  AdamWOptimizer optimizer_;
  Tape tape_;
  Stopwatch clock_;
  double seconds_ = 0.0;
  double loss_ = 0.0;
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

TrainingResult train(TrainingTask& task, const ParameterArena& arena, const TrainingSettings& settings,
                     const TrainingSteps& steps, TrainingObserver& observer, const std::atomic<int>* stop) {
  return Run(task, arena, settings, steps, observer).train(stop);
}

}  // namespace lathe
