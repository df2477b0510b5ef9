#include "lathe/training/finetune.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/loader.h"
#include "lathe/training/upload.h"

namespace lathe {
namespace {

/// The `count` longest samples: no batch of as many has more tokens.
std::vector<std::int32_t> longest_samples(const TokenizedSamples& samples, std::int32_t count) {
  std::vector<std::int32_t> members(static_cast<std::size_t>(samples.count()));
  std::iota(members.begin(), members.end(), 0);
  const auto most = std::min(static_cast<std::size_t>(count), members.size());
  std::ranges::partial_sort(members, members.begin() + static_cast<std::ptrdiff_t>(most), std::greater<>(),
                            [&](std::int32_t member) { return samples.length(member); });
  members.resize(most);
  return members;
}

/// Steps whose batches are looked at before they come.
constexpr std::int64_t kForeseenSteps = 100'000;

Tensor loss_of(Tape& tape, const Classifier& classifier, const Batch& batch, Recompute recompute) {
  return cross_entropy_loss(tape, classifier.model().forward(tape, batch, recompute), batch, {});
}

/// Forward and backward of `members`, which leaves the gradients behind.
void rehearse_batch(Classifier& classifier, const LabelledSamples& train, std::span<const std::int32_t> members,
                    const FinetuneSettings& settings, const Place& place) {
  TrainingStep step(
      classifier.arena(), [&](Tape& tape, const Batch& batch) { return loss_of(tape, classifier, batch, settings.recompute); },
      Replay::off);
  StepBatches batches;
  pack_step(train, rank_part(train.samples, members, place.rank, place.size).members, settings, batches);
  compute_gradients(step, batches, {.seed = settings.seed, .step = 0});
}

/// Batches, loss and evaluation of a run.
class Run final : public TrainingTask {
 public:
  Run(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev, const FinetuneSettings& settings,
      FinetuneObserver& observer, const std::atomic<int>* stop, Communicator* communicator)
      : classifier_(classifier),
        train_(train),
        dev_(dev),
        settings_(settings),
        observer_(observer),
        stop_(stop),
        communicator_(communicator),
        steps_(finetune_steps(settings, train.samples.count())),
        order_(static_cast<std::int32_t>(train.samples.count()), settings.batch_size, settings.seed) {}

  FinetuneResult train() {
    FinetuneResult result;
    static_cast<TrainingResult&>(result) =
        lathe::train(*this, classifier_.arena(), settings_, steps_, observer_, stop_, communicator_);
    result.best = best_;
    return result;
  }

  void prepare(StepBatches& batches) override {
    if (settings_.micro_batch_tokens == 0) {
      const auto tokens = tokens_of(train_.samples, longest_samples(train_.samples, settings_.batch_size));
      const auto most = static_cast<std::size_t>(settings_.batch_size);
      reserve(batches.add().packed, static_cast<std::size_t>(tokens), most, most);
    }
    prepare_products();
  }

  void pack(std::int64_t step, StepBatches& batches) override {
    pack_step(train_, order_.batch(step), settings_, batches, communicator_);
  }
  Tensor loss(Tape& tape, const Batch& batch) override { return loss_of(tape, classifier_, batch, settings_.recompute); }

  double epochs_at(std::int64_t steps) const override {
    return static_cast<double>(steps) / static_cast<double>(steps_.per_epoch);
  }
  bool ends_epoch(std::int64_t steps) const override { return steps % steps_.per_epoch == 0; }

  /// Evaluates and keeps the model where it is the best; without a dev split keeps it as it is.
  bool finish_epoch(std::int64_t steps) override {
    if (dev_ != nullptr) return evaluate_dev(steps);
    observer_.save(classifier_);
    return true;
  }

 private:
  /// What depends on a batch's size is prepared now, for the few sizes that batches are rounded up to. One that comes only after very
  /// many steps is prepared when it comes.
  void prepare_products() {
    std::set<std::pair<std::int64_t, std::int64_t>> sizes;
    for (std::int64_t step = 0; step < std::min(steps_.total, kForeseenSteps); ++step) {
      const auto members = order_.batch(step);
      for_each_prepared_rank(communicator_, settings_.tune_products, [&](int rank, int size) {
        for_each_part(train_.samples, rank_part(train_.samples, members, rank, size).members, settings_.micro_batch_tokens,
                      [&](std::span<const std::int32_t> part, std::int32_t) {
                        sizes.emplace(bucket_size(tokens_of(train_.samples, part)), bucket_size(std::ssize(part)));
                      });
      });
    }
    for (const auto& [tokens, rows] : sizes) classifier_.model().prepare(tokens, rows);
  }

  bool evaluate_dev(std::int64_t step) {
    const auto metrics = evaluate_until(stop_, classifier_, dev_->samples, dev_->labels, settings_.batch_size, communicator_);
    if (!metrics) return false;
    // Weights that the last step broke show here first.
    if (!std::isfinite(metrics->loss)) {
      throw NonFiniteError(
          fmt::format("after step {}: the dev loss is {}: the model is not kept; use a smaller --lr or look for "
                      "faults in the data",
                      step, metrics->loss));
    }
    EvaluationLog log{.step = step, .epoch = epochs_at(step), .metrics = *metrics, .best = false};
    const auto better = [](const ClassificationMetrics& a, const ClassificationMetrics& b) {
      return a.accuracy != b.accuracy ? a.accuracy > b.accuracy : a.loss < b.loss;
    };
    log.best = !best_ || better(log.metrics, best_->metrics);
    if (log.best) {
      observer_.save(classifier_);
      best_ = log;
    }
    observer_.evaluated(log);
    return true;
  }

  Classifier& classifier_;
  const LabelledSamples& train_;
  const LabelledSamples* dev_;
  const FinetuneSettings& settings_;
  FinetuneObserver& observer_;
  const std::atomic<int>* stop_;
  Communicator* communicator_;
  TrainingSteps steps_;
  SampleOrder order_;
  std::optional<EvaluationLog> best_;
};

}  // namespace

std::vector<std::int64_t> largest_batch(const LabelledSamples& train, const FinetuneSettings& settings) {
  SampleOrder order(static_cast<std::int32_t>(train.samples.count()), settings.batch_size, settings.seed);
  const std::int64_t steps = std::min(finetune_steps(settings, train.samples.count()).total, kForeseenSteps);
  std::vector<std::int64_t> largest;
  std::int64_t most = -1;
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto members = order.batch(step);
    const std::int64_t tokens = tokens_of(train.samples, members);
    if (tokens <= most) continue;
    most = tokens;
    largest.assign(members.begin(), members.end());
  }
  return largest;
}

void rehearse(Classifier& classifier, const LabelledSamples& train, const FinetuneSettings& settings, const Place& place) {
  const OptimizerRanks ranks = optimizer_ranks(settings, place);
  if (ranks.parts_master(classifier.arena())) return;
  const std::int64_t owned = elements_of(ranks.owned(classifier.arena()));
  constexpr double kMebibyte = 1 << 20;
  std::string message;
  std::int64_t requested = 0;
  std::int64_t available = 0;
  for (std::int32_t size = settings.batch_size; size > 0; size /= 2) {
    FinetuneSettings smaller = settings;
    smaller.batch_size = size;
    const std::vector<std::int64_t> batch = largest_batch(train, smaller);
    const std::vector<std::int32_t> members(batch.begin(), batch.end());
    try {
      const Tensor moments = Tensor::zeros(classifier.device(), classifier.arena().gradients().dtype(), Shape{2 * owned});
      rehearse_batch(classifier, train, members, settings, place);
    } catch (const OutOfMemoryError& failure) {
      if (message.empty()) {
        requested = failure.requested();
        available = failure.available();
        message =
            fmt::format("no memory for a step of {} texts with {} tokens: {:.1f} MiB more were needed and {:.1f} MiB are free",
                        members.size(), tokens_of(train.samples, members), static_cast<double>(requested) / kMebibyte,
                        static_cast<double>(available) / kMebibyte);
      }
      continue;
    }
    if (message.empty()) return;
    throw OutOfMemoryError(fmt::format("{}; --batch-size {} fits", message, size), requested, available);
  }
  throw OutOfMemoryError(fmt::format("{}; not even one text fits: use a smaller --max-length or model", message), requested,
                         available);
}

LabelledSamples select(const LabelledSamples& all, std::span<const std::int64_t> members) {
  LabelledSamples part{.samples = select(all.samples, members), .labels = {}};
  part.labels.reserve(members.size());
  for (const std::int64_t i : members) part.labels.push_back(all.labels[static_cast<std::size_t>(i)]);
  return part;
}

void pack_step(const LabelledSamples& train, std::span<const std::int32_t> members, const FinetuneSettings& settings,
               StepBatches& batches, const Communicator* communicator) {
  batches.count = 0;
  batches.tokens = tokens_of(train.samples, members);
  batches.rows = std::ssize(members);
  const RankPart mine = rank_part(train.samples, members, communicator);
  for_each_part(train.samples, mine.members, settings.micro_batch_tokens,
                [&](std::span<const std::int32_t> part, std::int32_t first) {
                  auto& [packed, bucket] = batches.add();
                  pack_sequences(train.samples, part, train.labels, mine.first + first, packed);
                  bucket = round_up(packed);
                });
}

TrainingSteps finetune_steps(const FinetuneSettings& settings, std::int64_t samples) {
  const std::int64_t per_epoch = (samples + settings.batch_size - 1) / settings.batch_size;
  const double total = settings.max_steps > 0 ? static_cast<double>(settings.max_steps)
                                              : std::ceil(settings.epochs * static_cast<double>(per_epoch));
  return training_steps(settings, per_epoch, total);
}

FinetuneResult finetune(Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                        const FinetuneSettings& settings, FinetuneObserver& observer, const std::atomic<int>* stop,
                        Communicator* communicator) {
  return Run(classifier, train, dev, settings, observer, stop, communicator).train();
}

}  // namespace lathe
