#include "lathe/training/finetune.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "lathe/optim/schedule.h"
#include "lathe/runtime/error.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/loader.h"
#include "lathe/training/upload.h"

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
  Run(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev, const FinetuneSettings& settings,
      FinetuneObserver& observer)
      : classifier_(classifier),
        train_(train),
        dev_(dev),
        settings_(settings),
        observer_(observer),
        steps_(finetune_steps(settings, train.samples.count())),
        order_(static_cast<std::int32_t>(train.samples.count()), settings.batch_size, settings.seed),
        schedule_{.peak = settings.learning_rate, .warmup_steps = steps_.warmup, .total_steps = steps_.total},
        optimizer_(classifier.arena(), settings.optimizer),
        tape_(classifier.device()) {
    // So that no later batch needs more memory of the system.
    reserve(packed_, largest_batch(), static_cast<std::size_t>(settings.batch_size));
    prepare_products();
    classifier_.arena().watch(tape_, Use::write);
  }

  FinetuneResult train(const std::atomic<int>* stop) {
    FinetuneResult result;
    result.total_steps = steps_.total;
    clock_.resume();
    for (std::int64_t step = 0; step < steps_.total; ++step) {
      train_step(step);
      result.steps = step + 1;
      result.interrupted = stop != nullptr && stop->load(std::memory_order_relaxed) != 0;
      const bool last = step + 1 == steps_.total || result.interrupted;
      if (last || step == 0 || (step + 1) % settings_.log_steps == 0) log(step);
      if (result.interrupted) break;
      if (last || (step + 1) % steps_.per_epoch == 0) finish_epoch(step + 1, result.best);
    }
    result.epochs = epochs_at(result.steps);
    result.tokens = tokens_;
    result.seconds = seconds_;
    result.skipped_steps = optimizer_.last().skips;
    return result;
  }

 private:
  double epochs_at(std::int64_t step) const { return static_cast<double>(step) / static_cast<double>(steps_.per_epoch); }

  /// Tokens of the batch_size longest samples: no batch has more.
  std::size_t largest_batch() const {
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < train_.samples.count(); ++i) lengths.push_back(train_.samples.length(i));
    const auto count = std::min(static_cast<std::size_t>(settings_.batch_size), lengths.size());
    std::partial_sort(lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(count), lengths.end(), std::greater<>());
    std::size_t tokens = 0;
    for (std::size_t i = 0; i < count; ++i) tokens += static_cast<std::size_t>(lengths[i]);
    return tokens;
  }

  /// What depends on a batch's size is prepared now, for the few sizes that batches are rounded up to.
  void prepare_products() {
    std::set<std::pair<std::int64_t, std::int64_t>> sizes;
    for (std::int64_t step = 0; step < steps_.total; ++step) {
      const auto members = order_.batch(step);
      std::int64_t tokens = 0;
      for (const std::int32_t member : members) tokens += train_.samples.length(member);
      sizes.emplace(token_bucket(tokens), static_cast<std::int64_t>(members.size()));
    }
    for (const auto& [tokens, rows] : sizes) classifier_.model().prepare(tokens, rows);
  }

  void train_step(std::int64_t step) {
    const auto members = order_.batch(step);
    pack_sequences(train_.samples, members, train_.labels, packed_);
    const auto tokens = static_cast<std::int64_t>(packed_.token.size());
    round_up_tokens(packed_);
    const RandomKey key{.seed = settings_.seed, .step = static_cast<std::uint32_t>(step)};
    const Batch batch = upload(classifier_.device(), DType::f32, packed_,
                               {.random_key = &key, .loss_denominator = static_cast<double>(members.size())});
    const Tensor loss = cross_entropy_loss(tape_, classifier_.model().forward(tape_, batch), batch, {});
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
                      .epoch = epochs_at(step + 1),
                      .loss = loss_,
                      .learning_rate = learning_rate_,
                      .gradient_norm = optimizer_.last().norm,
                      .tokens = unlogged_tokens_,
                      .tokens_per_second = elapsed > 0.0 ? static_cast<double>(unlogged_tokens_) / elapsed : 0.0});
    unlogged_tokens_ = 0;
  }

  /// Evaluates and keeps the model where it is the best; without a dev split keeps it as it is. Takes no time of training.
  void finish_epoch(std::int64_t step, std::optional<EvaluationLog>& best) {
    clock_.pause();
    if (dev_ != nullptr) {
      EvaluationLog log{.step = step,
                        .epoch = epochs_at(step),
                        .metrics = evaluate(classifier_, dev_->samples, dev_->labels, settings_.batch_size),
                        .best = false};
      const auto better = [](const ClassificationMetrics& a, const ClassificationMetrics& b) {
        return a.accuracy != b.accuracy ? a.accuracy > b.accuracy : a.loss < b.loss;
      };
      log.best = !best || better(log.metrics, best->metrics);
      if (log.best) {
        observer_.save(classifier_);
        best = log;
      }
      observer_.evaluated(log);
    } else {
      observer_.save(classifier_);
    }
    clock_.resume();
  }

  Classifier& classifier_;
  const LabelledSamples& train_;
  const LabelledSamples* dev_;
  const FinetuneSettings& settings_;
  FinetuneObserver& observer_;
  FinetuneSteps steps_;
  SampleOrder order_;
  LinearSchedule schedule_;
  AdamWOptimizer optimizer_;
  Tape tape_;
  PackedBatch packed_;
  Stopwatch clock_;
  double seconds_ = 0.0;
  double loss_ = 0.0;
  double learning_rate_ = 0.0;
  std::int64_t tokens_ = 0;
  std::int64_t unlogged_tokens_ = 0;
};

}  // namespace

LabelledSamples select(const LabelledSamples& all, std::span<const std::int64_t> members) {
  LabelledSamples part;
  for (const std::int64_t i : members) {
    const auto begin = all.samples.offsets[static_cast<std::size_t>(i)];
    const auto end = all.samples.offsets[static_cast<std::size_t>(i) + 1];
    part.samples.ids.insert(part.samples.ids.end(), all.samples.ids.begin() + begin, all.samples.ids.begin() + end);
    part.samples.types.insert(part.samples.types.end(), all.samples.types.begin() + begin, all.samples.types.begin() + end);
    part.samples.offsets.push_back(static_cast<std::int64_t>(part.samples.ids.size()));
    part.labels.push_back(all.labels[static_cast<std::size_t>(i)]);
  }
  return part;
}

FinetuneSteps finetune_steps(const FinetuneSettings& settings, std::int64_t samples) {
  FinetuneSteps steps;
  steps.per_epoch = (samples + settings.batch_size - 1) / settings.batch_size;
  steps.total = settings.max_steps > 0
                    ? settings.max_steps
                    : static_cast<std::int64_t>(std::ceil(settings.epochs * static_cast<double>(steps.per_epoch)));
  steps.warmup = settings.warmup_share
                     ? static_cast<std::int64_t>(std::ceil(*settings.warmup_share * static_cast<double>(steps.total)))
                     : settings.warmup_steps;
  return steps;
}

FinetuneResult finetune(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                        const FinetuneSettings& settings, FinetuneObserver& observer, const std::atomic<int>* stop) {
  return Run(classifier, train, dev, settings, observer).train(stop);
}

}  // namespace lathe
