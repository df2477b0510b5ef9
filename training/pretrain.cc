#include "lathe/training/pretrain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/text/masking.h"
#include "lathe/training/data_parallel.h"
#include "lathe/training/loader.h"
#include "lathe/training/upload.h"

namespace lathe {
namespace {

/// Steps whose batches are looked at before they come.
constexpr std::int64_t kForeseenSteps = 100'000;

Tensor loss_of(Tape& tape, const MaskedLm& model, const Batch& batch, Recompute recompute) {
  return cross_entropy_loss(tape, model.model().forward(tape, batch, recompute), batch, model.model().loss_settings());
}

/// How many labelled rows a batch of so many tokens has, but for a chance of one in 10^8: the mean and six deviations to either side.
struct RowRange {
  std::int64_t least = 0;
  std::int64_t most = 0;
};
RowRange rows_of(std::int64_t tokens, std::int64_t sequences, double probability) {
  constexpr double kDeviations = 6.0;
  const auto all = static_cast<double>(tokens);
  const double reach = kDeviations * std::sqrt(all * probability * (1.0 - probability));
  const double least = probability * static_cast<double>(tokens - 2 * sequences) - reach;
  return {.least = std::max<std::int64_t>(1, static_cast<std::int64_t>(least)),
          .most = std::min(tokens, static_cast<std::int64_t>(std::ceil(probability * all + reach)))};
}

/// The most samples that a batch can hold.
std::size_t most_sequences(const TokenizedSamples& samples, std::int64_t budget) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(samples.count()));
  for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = samples.length(static_cast<std::int64_t>(i));
  std::ranges::sort(lengths);
  std::size_t count = 0;
  for (std::int64_t tokens = 0; count < lengths.size() && tokens + lengths[count] <= budget; ++count) tokens += lengths[count];
  return count;
}

void check_budget(const TokenizedSamples& samples, const PretrainSettings& settings) {
  for (std::int64_t i = 0; i < samples.count(); ++i) {
    if (samples.length(i) <= settings.batch_tokens) continue;
    throw UsageError(
        fmt::format("batches of {} tokens have no room for a sequence of {}; take larger ones (--batch-tokens) or cut "
                    "the sequences shorter (--max-length)",
                    settings.batch_tokens, samples.length(i)));
  }
}

/// The first epoch's batch with the most tokens.
std::vector<std::int32_t> largest_batch(const TokenizedSamples& train, const PretrainSettings& settings) {
  TokenBatches batches(train, settings.batch_tokens, settings.seed);
  const std::int64_t steps = std::min(batches.first_epoch_steps(), kForeseenSteps);
  std::vector<std::int32_t> largest;
  std::int64_t most = -1;
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto members = batches.batch(step);
    const std::int64_t tokens = tokens_of(train, members);
    if (tokens <= most) continue;
    most = tokens;
    largest.assign(members.begin(), members.end());
  }
  return largest;
}

/// Batches, loss and evaluation of a run.
class Run final : public TrainingTask {
 public:
  Run(MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev, const PretrainSettings& settings,
      PretrainObserver& observer, const std::atomic<int>* stop, Communicator* communicator)
      : model_(model),
        train_(train),
        dev_(dev),
        settings_(settings),
        observer_(observer),
        stop_(stop),
        communicator_(communicator),
        steps_(pretrain_steps(settings, train)),
        batches_(train, settings.batch_tokens, settings.seed) {}

  PretrainResult train() {
    PretrainResult result;
    static_cast<TrainingResult&>(result) =
        lathe::train(*this, model_.arena(), settings_, steps_, observer_, stop_, communicator_);
    // What was learnt until then is worth keeping: an epoch may take days.
    if (result.interrupted && result.steps > saved_) observer_.save(model_);
    result.dev = evaluation_;
    return result;
  }

  void prepare(StepBatches& batches) override {
    if (settings_.micro_batch_tokens == 0) {
      reserve(batches.add().packed, static_cast<std::size_t>(settings_.batch_tokens),
              most_sequences(train_, settings_.batch_tokens),
              static_cast<std::size_t>(rows_of(settings_.batch_tokens, 0, settings_.mlm_probability).most));
    }
    prepare_products();
  }
  void pack(std::int64_t step, StepBatches& batches) override {
    pack_step(model_, train_, batches_.batch(step), settings_, step, batches, communicator_);
  }
  Tensor loss(Tape& tape, const Batch& batch) override { return loss_of(tape, model_, batch, settings_.recompute); }

  double epochs_at(std::int64_t steps) const override { return batches_.epochs_at(steps); }
  bool ends_epoch(std::int64_t steps) const override { return batches_.ends_epoch(steps); }

  bool finish_epoch(std::int64_t steps) override {
    if (dev_ != nullptr && !evaluate_dev(steps)) return false;
    observer_.save(model_);
    saved_ = steps;
    return true;
  }

 private:
  /// What depends on a batch's size is prepared now, for the sizes that most batches are rounded up to. Others, such as those of the last batches
  /// of epochs, are prepared when they come.
  void prepare_products() {
    struct Size {
      std::int64_t steps = 0;
      RowRange rows;
    };
    std::map<std::int64_t, Size> sizes;  // by tokens
    std::int64_t batches = 0;
    for (std::int64_t step = 0; step < std::min(steps_.total, kForeseenSteps); ++step) {
      const auto members = batches_.batch(step);
      const auto see = [&](std::span<const std::int32_t> part, std::int32_t) {
        const std::int64_t tokens = tokens_of(train_, part);
        const RowRange rows = rows_of(tokens, std::ssize(part), settings_.mlm_probability);
        Size& size = sizes[bucket_size(tokens)];
        size.rows.least = size.steps == 0 ? rows.least : std::min(size.rows.least, rows.least);
        size.rows.most = std::max(size.rows.most, rows.most);
        ++size.steps;
        ++batches;
      };
      for_each_prepared_rank(communicator_, settings_.tune_products, [&](int rank, int size) {
        for_each_part(train_, rank_part(train_, members, rank, size).members, settings_.micro_batch_tokens, see);
      });
    }
    constexpr std::int64_t kSeldom = 50;  // one batch in so many
    for (const auto& [tokens, size] : sizes) {
      if (size.steps * kSeldom < batches) continue;
      for (std::int64_t rows = bucket_size(size.rows.least); rows <= bucket_size(size.rows.most); rows = bucket_size(rows + 1))
        model_.model().prepare(tokens, rows);
    }
  }

  bool evaluate_dev(std::int64_t step) {
    const auto score = evaluate_masked_lm(model_, *dev_, settings_, stop_, communicator_);
    if (!score) return false;
    // Weights that the last step broke show here first.
    if (!std::isfinite(score->loss)) {
      throw NonFiniteError(
          fmt::format("after step {}: the dev loss is {}: the model is not kept; use a smaller --lr or look for "
                      "faults in the data",
                      step, score->loss));
    }
    evaluation_ = MaskedLmEvaluation{.step = step, .epoch = epochs_at(step), .score = *score};
    observer_.evaluated(*evaluation_);
    return true;
  }

  MaskedLm& model_;
  const TokenizedSamples& train_;
  const TokenizedSamples* dev_;
  const PretrainSettings& settings_;
  PretrainObserver& observer_;
  const std::atomic<int>* stop_;
  Communicator* communicator_;
  TrainingSteps steps_;
  TokenBatches batches_;
  std::optional<MaskedLmEvaluation> evaluation_;
  std::int64_t saved_ = 0;  // the step after which the model was saved
};

}  // namespace

double MaskedLmScore::perplexity() const { return std::exp(loss); }

void pack_part(const MaskedLm& model, const TokenizedSamples& train, const RankPart& mine, const PretrainSettings& settings,
               std::int64_t step, WithoutChoice without, StepBatches& batches) {
  const Masking masking(model.tokenizer(), settings.mlm_probability);
  const RandomKey key{.seed = settings.seed, .step = static_cast<std::uint32_t>(step)};
  batches.count = 0;
  batches.rows = 0;
  for_each_part(train, mine.members, settings.micro_batch_tokens, [&](std::span<const std::int32_t> part, std::int32_t first) {
    auto& [packed, bucket] = batches.add();
    pack_masked(train, part, masking, key, mine.first + first, without, packed);
    batches.rows += std::ssize(packed.row_token);
    bucket = round_up(packed);
  });
}

void pack_step(const MaskedLm& model, const TokenizedSamples& train, std::span<const std::int32_t> members,
               const PretrainSettings& settings, std::int64_t step, StepBatches& batches, Communicator* communicator) {
  const auto pack = [&](const RankPart& mine, WithoutChoice without) {
    pack_part(model, train, mine, settings, step, without, batches);
    std::array<double, 1> rows = {static_cast<double>(batches.rows)};
    sum_over_ranks(communicator, rows);
    batches.rows = static_cast<std::int64_t>(rows[0]);
  };
  batches.tokens = tokens_of(train, members);
  pack(rank_part(train, members, communicator), WithoutChoice::no_rows);
  if (batches.rows > 0) return;
  // Rank 0 alone looks for the token with the least draw, among all, so that it is the one that a run alone would take.
  const bool mine = communicator == nullptr || communicator->rank() == 0;
  pack({.members = mine ? members : members.first(0)}, WithoutChoice::least_draw);
}

std::optional<MaskedLmScore> evaluate_masked_lm(const MaskedLm& model, const TokenizedSamples& samples,
                                                const PretrainSettings& settings, const std::atomic<int>* stop,
                                                Communicator* communicator) {
  const Masking masking(model.tokenizer(), settings.mlm_probability);
  const std::int64_t ranks = communicator == nullptr ? 1 : communicator->size();
  const std::int64_t rank = communicator == nullptr ? 0 : communicator->rank();
  double loss_sum = 0.0;
  std::int64_t masked = 0;
  bool stopped = false;
  std::int64_t batch_number = 0;
  PackedBatch packed;
  std::vector<std::int32_t> members;
  for (std::int64_t first = 0; first < samples.count();) {
    members.clear();
    std::int64_t tokens = 0;
    std::int64_t next = first;
    for (; next < samples.count() && (members.empty() || tokens + samples.length(next) <= settings.batch_tokens); ++next) {
      members.push_back(static_cast<std::int32_t>(next));
      tokens += samples.length(next);
    }
    const auto number = static_cast<std::int32_t>(first);
    first = next;
    if (batch_number++ % ranks != rank) continue;
    stopped = is_stopped(stop);
    if (stopped) break;
    if (communicator != nullptr) communicator->working("evaluating");
    pack_masked(samples, members, masking, {.seed = settings.seed, .step = kEvaluationMasks}, number, WithoutChoice::least_draw,
                packed);
    const std::int64_t rows = std::ssize(packed.row_token);
    round_up(packed);
    const StepMemory memory(model.device());
    Tape tape(model.device(), Recording::off);
    const Batch batch = upload(model.device(), model.dtype(), packed, {.loss_denominator = static_cast<double>(rows)});
    std::array<float, 1> loss{};
    loss_of(tape, model, batch, Recompute::none).copy_to<float>(loss);
    loss_sum += static_cast<double>(loss[0]) * static_cast<double>(rows);
    masked += rows;
  }
  std::array<double, 3> sums = {loss_sum, static_cast<double>(masked), stopped ? 1.0 : 0.0};
  sum_over_ranks(communicator, sums);
  if (sums[2] > 0.0) return std::nullopt;
  return MaskedLmScore{.loss = sums[1] > 0.0 ? sums[0] / sums[1] : 0.0, .tokens = static_cast<std::int64_t>(sums[1])};
}

TrainingSteps pretrain_steps(const PretrainSettings& settings, const TokenizedSamples& samples) {
  check_budget(samples, settings);
  TokenBatches batches(samples, settings.batch_tokens, settings.seed);
  constexpr double kMost = 1e9;
  const double total =
      settings.max_steps > 0 ? static_cast<double>(settings.max_steps) : batches.steps_of(settings.epochs, kMost);
  return training_steps(settings, batches.first_epoch_steps(), total);
}

std::int64_t largest_batch_tokens(const TokenizedSamples& train, const PretrainSettings& settings) {
  return tokens_of(train, largest_batch(train, settings));
}

void rehearse(MaskedLm& model, const TokenizedSamples& train, const PretrainSettings& settings, const Place& place) {
  check_budget(train, settings);
  const OptimizerRanks ranks = optimizer_ranks(settings, place);
  if (ranks.parts_master(model.arena())) return;
  const std::int64_t owned = elements_of(ranks.owned(model.arena()));
  constexpr double kMebibyte = 1 << 20;
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < train.count(); ++i) longest = std::max(longest, train.length(i));
  std::string message;
  std::int64_t requested = 0;
  std::int64_t available = 0;
  for (std::int64_t budget = settings.batch_tokens; budget >= longest; budget /= 2) {
    PretrainSettings smaller = settings;
    smaller.batch_tokens = budget;
    const std::vector<std::int32_t> members = largest_batch(train, smaller);
    try {
      const Tensor moments = Tensor::zeros(model.device(), model.arena().gradients().dtype(), Shape{2 * owned});
      TrainingStep step(
          model.arena(), [&](Tape& tape, const Batch& batch) { return loss_of(tape, model, batch, settings.recompute); },
          Replay::off);
      StepBatches batches;
      const RankPart mine = rank_part(train, members, place.rank, place.size);
      pack_part(model, train, mine, smaller, 0, WithoutChoice::least_draw, batches);
      compute_gradients(step, batches, {.seed = settings.seed, .step = 0});
    } catch (const OutOfMemoryError& failure) {
      if (message.empty()) {
        requested = failure.requested();
        available = failure.available();
        message = fmt::format("no memory for a step of {} tokens: {:.1f} MiB more were needed and {:.1f} MiB are free",
                              tokens_of(train, members), static_cast<double>(requested) / kMebibyte,
                              static_cast<double>(available) / kMebibyte);
      }
      continue;
    }
    if (message.empty()) return;
    throw OutOfMemoryError(fmt::format("{}; --batch-tokens {} fits", message, budget), requested, available);
  }
  throw OutOfMemoryError(fmt::format("{}; not even one sequence fits: use a smaller --max-length or model", message), requested,
                         available);
}

PretrainResult pretrain(MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                        const PretrainSettings& settings, PretrainObserver& observer, const std::atomic<int>* stop,
                        Communicator* communicator) {
  return Run(model, train, dev, settings, observer, stop, communicator).train();
}

}  // namespace lathe
