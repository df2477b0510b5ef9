#include "tools/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <vector>

#include "lathe/training/evaluation.h"
#include "lathe/training/results.h"

namespace lathe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::int64_t tokens_of(const TokenizedSamples& samples) { return static_cast<std::int64_t>(samples.ids.size()); }

/// Times steps until there are enough. The first is left out where others follow: it touches its memory for the first time.
template <class Observer>
class StepTimer final : public Observer {
 public:
  explicit StepTimer(DeviceRef device) : device_(std::move(device)) {}
  void stepped(std::int64_t step, std::int64_t, std::int64_t tokens) override {
    device_->synchronize();  // a GPU has been told of the step, and has yet to do it
    const Clock::time_point now = Clock::now();
    if (step == 1) {
      first_tokens_ = tokens;
      first_seconds_ = std::chrono::duration<double>(now - begin_).count();
      begin_ = now;
    } else {
      ++steps_;
      tokens_ += tokens;
      seconds_ = std::chrono::duration<double>(now - begin_).count();
    }
    if (seconds_ >= kEnough || first_seconds_ + seconds_ >= kMost) stop_ = 1;
  }
  const std::atomic<int>* stop() const { return &stop_; }
  std::int64_t steps() const { return std::max<std::int64_t>(steps_, 1); }
  double tokens_per_second() const {
    return steps_ > 0 ? static_cast<double>(tokens_) / seconds_ : static_cast<double>(first_tokens_) / first_seconds_;
  }

 private:
  static constexpr double kEnough = 1.5;  // seconds of steps after the first
  static constexpr double kMost = 3.0;    // seconds of all steps
  DeviceRef device_;
  std::atomic<int> stop_ = 0;
  Clock::time_point begin_ = Clock::now();
  std::int64_t first_tokens_ = 0, tokens_ = 0, steps_ = 0;
  double first_seconds_ = 0.0, seconds_ = 0.0;
};

/// Seconds that evaluating all of `dev` takes, from its first batches.
double evaluation_seconds(const Classifier& classifier, const LabelledSamples& dev, std::int32_t batch_size,
                          Communicator* communicator) {
  constexpr std::int64_t kBatches = 4;
  std::vector<std::int64_t> members(static_cast<std::size_t>(std::min(dev.samples.count(), kBatches * batch_size)));
  std::iota(members.begin(), members.end(), 0);
  const LabelledSamples part = select(dev, members);
  const Clock::time_point begin = Clock::now();
  evaluate_until(nullptr, classifier, part.samples, part.labels, batch_size, communicator);
  return seconds_since(begin) * static_cast<double>(tokens_of(dev.samples)) /
         static_cast<double>(std::max<std::int64_t>(1, tokens_of(part.samples)));
}

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::ceil(seconds));
  if (whole >= 3600) return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
  return whole >= 60 ? fmt::format("{} min {} s", whole / 60, whole % 60) : fmt::format("{} s", whole);
}

double gigabytes(std::int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

/// What a model that takes `steps` has cost after a step of its largest batch.
template <class Model>
RunEstimate after_largest_step(const Model& model, const TrainingSteps& steps, std::int64_t tokens) {
  RunEstimate estimate{.parameters = model.parameter_count(), .steps = steps, .largest_batch_tokens = tokens};
  const ParameterArena& arena = model.arena();
  estimate.on_gpu = model.device()->kind() == DeviceKind::cuda;
  estimate.arena_bytes = arena.gradients().bytes() + 3 * arena.master().bytes();  // the master and two moments
  if (arena.values().dtype() == DType::bf16) estimate.arena_bytes += arena.values().bytes();
  estimate.activation_bytes = model.device()->memory().peak - estimate.arena_bytes;
  return estimate;
}

/// Adds what real steps of `train` have shown.
template <class Observer>
void add_time(RunEstimate& estimate, const StepTimer<Observer>& timer, const TokenizedSamples& train, double evaluation_seconds) {
  estimate.measured_steps = timer.steps();
  estimate.tokens_per_second = timer.tokens_per_second();
  const double step_tokens = static_cast<double>(tokens_of(train)) / static_cast<double>(estimate.steps.per_epoch);
  estimate.step_seconds = step_tokens / estimate.tokens_per_second;
  const std::int64_t evaluations = (estimate.steps.total + estimate.steps.per_epoch - 1) / estimate.steps.per_epoch;
  estimate.evaluation_seconds = evaluation_seconds;
  estimate.seconds = static_cast<double>(estimate.steps.total) * estimate.step_seconds +
                     static_cast<double>(evaluations) * estimate.evaluation_seconds;
  estimate.process_bytes = peak_memory_bytes();
}

}  // namespace

RunEstimate estimate_run(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                         const FinetuneSettings& settings, Communicator* communicator) {
  FinetuneSettings still = settings;
  still.learning_rate = 0.0;
  FinetuneSettings once = still;
  once.max_steps = 1;
  const LabelledSamples largest = select(train, largest_batch(train, settings));
  FinetuneObserver nobody;
  finetune(classifier, largest, nullptr, once, nobody, nullptr, communicator);
  RunEstimate estimate =
      after_largest_step(classifier, finetune_steps(settings, train.samples.count()), tokens_of(largest.samples));

  StepTimer<FinetuneObserver> timer(classifier.device());
  finetune(classifier, train, nullptr, still, timer, timer.stop(), communicator);
  add_time(estimate, timer, train.samples,
           dev == nullptr ? 0.0 : evaluation_seconds(classifier, *dev, settings.batch_size, communicator));
  return estimate;
}

RunEstimate estimate_run(MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                         const PretrainSettings& settings, Communicator* communicator) {
  PretrainSettings still = settings;
  still.learning_rate = 0.0;
  rehearse(model, train, settings, communicator == nullptr ? Place() : communicator->place());
  RunEstimate estimate = after_largest_step(model, pretrain_steps(settings, train), largest_batch_tokens(train, settings));

  StepTimer<PretrainObserver> timer(model.device());
  pretrain(model, train, nullptr, still, timer, timer.stop(), communicator);
  double evaluation = 0.0;
  if (dev != nullptr) {
    constexpr std::int64_t kSequences = 64;
    TokenizedSamples part = *dev;
    part.offsets = part.offsets.first(static_cast<std::size_t>(std::min(dev->count(), kSequences)) + 1);
    part.ids = part.ids.first(static_cast<std::size_t>(part.offsets.back()));
    part.types = part.types.first(std::min(part.types.size(), part.ids.size()));
    const Clock::time_point begin = Clock::now();
    evaluate_masked_lm(model, part, settings, nullptr, communicator);
    evaluation = seconds_since(begin) * static_cast<double>(tokens_of(*dev)) / static_cast<double>(tokens_of(part));
  }
  add_time(estimate, timer, train, evaluation);
  return estimate;
}

std::string format_estimate(const RunEstimate& estimate, std::string_view batch) {
  const std::int64_t tensors = estimate.arena_bytes + estimate.activation_bytes;
  const std::int64_t rest = std::max<std::int64_t>(0, estimate.process_bytes - (estimate.on_gpu ? 0 : tensors));
  const std::string parts =
      fmt::format("{:.2f} weights, gradients and AdamW's moments, {:.2f} a step of the largest batch ({} tokens)",
                  gigabytes(estimate.arena_bytes), gigabytes(estimate.activation_bytes), estimate.largest_batch_tokens);
  std::string text = fmt::format("parameters  {}\n", estimate.parameters);
  text +=
      estimate.on_gpu
          ? fmt::format("memory      {:.2f} GB of the GPU's at most, measured: {}; {:.2f} GB of the host's, data and program\n",
                        gigabytes(tensors), parts, gigabytes(rest))
          : fmt::format("memory      {:.2f} GB at most, measured: {}, {:.2f} data and program\n",
                        gigabytes(estimate.process_bytes), parts, gigabytes(rest));
  text += fmt::format("steps       {} of {}, {} an epoch, {} of warm-up\n", estimate.steps.total, batch, estimate.steps.per_epoch,
                      estimate.steps.warmup);
  text += fmt::format("time        about {}: {:.3g} s a step, by {} real step{} ({:.0f} tokens/s){}\n",
                      duration(estimate.seconds), estimate.step_seconds, estimate.measured_steps,
                      estimate.measured_steps == 1 ? "" : "s", estimate.tokens_per_second,
                      estimate.evaluation_seconds > 0.0
                          ? fmt::format(", and {:.2g} s an evaluation, by its first batches", estimate.evaluation_seconds)
                          : "");
  return text + "written     nothing (--dry-run)\n";
}

}  // namespace lathe
