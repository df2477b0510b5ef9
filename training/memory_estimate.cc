#include "lathe/training/memory_estimate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
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
/// Steps of pre-training whose masks are drawn before they come.
constexpr std::int64_t kDrawnSteps = 256;

constexpr RandomKey kAnyKey{.seed = 0, .step = 0};

/// The sizes that a batch's tensors depend on, but for labelled rows, before it is packed. Batches of equal ones share a bucket or nearly.
struct Sizes {
  std::int64_t tokens = 0, sequences = 0, longest = 0;
  auto operator<=>(const Sizes&) const = default;  // NOLINT(modernize-use-nullptr): as in Bucket
};
Sizes sizes_of(const TokenizedSamples& samples, std::span<const std::int32_t> members) {
  Sizes sizes{.tokens = bucket_size(tokens_of(samples, members)), .sequences = bucket_size(std::ssize(members)), .longest = 0};
  for (const std::int32_t member : members) sizes.longest = std::max(sizes.longest, bucket_size(samples.length(member)));
  return sizes;
}

/// Whether a step's micro-batches have sizes that none had before.
class NewSizes {
 public:
  NewSizes(const TokenizedSamples& samples, std::int64_t micro_batch_tokens) : samples_(samples), budget_(micro_batch_tokens) {}
  bool in(std::span<const std::int32_t> members) {
    bool any = false;
    for_each_part(samples_, members, budget_, [&](std::span<const std::int32_t> part, std::int32_t first) {
      any = seen_.emplace(sizes_of(samples_, part), first == 0).second || any;
    });
    return any;
  }

 private:
  const TokenizedSamples& samples_;
  std::int64_t budget_;
  std::set<std::pair<Sizes, bool>> seen_;  // and whether the micro-batch is a step's first
};

/// A run of a network on a device of which only the sizes are real.
template <class Network>
class SizedRun {
 public:
  template <class... Arguments>
  SizedRun(const DeviceRef& real, DType dtype, const TrainingSettings& settings, const Place& place, LossSettings loss_settings,
           const Arguments&... arguments)
      : device_(Device::rehearsal(real)),
        loss_(std::move(loss_settings)),
        network_(parameters_, arguments...),
        arena_(device_, dtype, parameters_),
        weights_(device_->memory().now),
        optimizer_(arena_, settings.optimizer, settings.replay, optimizer_ranks(settings, place)),
        state_(device_->memory().now - weights_),
        step_(
            arena_,
            [this, recompute = settings.recompute](Tape& tape, const Batch& batch) { return loss(tape, batch, recompute); },
            settings.replay) {}

  /// Gradients of a step, but for micro-batches of sizes that were there before.
  void train(const StepBatches& batches) {
    for (std::size_t i = 0; i < batches.count; ++i) {
      const auto& [packed, bucket] = batches.micro_batches[i];
      const Use first = i == 0 ? Use::write : Use::add;
      if (!seen_.emplace(bucket, first).second) continue;
      tokens_ = std::max(tokens_, bucket.tokens);
      step_.run(packed, bucket, {.random_key = &kAnyKey, .loss_denominator = 1.0}, first);
    }
  }

  void evaluate(PackedBatch packed) {
    round_up(packed);
    const StepMemory memory(device_);
    Tape tape(device_, Recording::off);
    loss(tape, upload(device_, arena_.values().dtype(), packed, {}), Recompute::none);
  }

  MemoryEstimate estimate() const {
    // A master that the optimizer has let go was among the weights.
    const std::int64_t gone = arena_.master() ? 0 : arena_.gradients().bytes();
    return {.weights = weights_ - gone,
            .optimizer = state_ + gone,
            .step = device_->memory().peak - weights_ - state_,
            .tokens = tokens_};
  }

 private:
  Tensor loss(Tape& tape, const Batch& batch, Recompute recompute) const {
    return cross_entropy_loss(tape, network_.forward(tape, batch, recompute), batch, loss_);
  }

  DeviceRef device_;
  LossSettings loss_;
  ParameterSet parameters_;
  Network network_;
  ParameterArena arena_;
  std::int64_t weights_;
  AdamWOptimizer optimizer_;
  std::int64_t state_;  // what the optimizer added
  TrainingStep step_;
  std::set<std::pair<Bucket, Use>> seen_;
  std::int64_t tokens_ = 0;
};

/// The samples of the batch with the most tokens, of batches that `next` makes: it puts the next one into the list, or leaves it empty.
std::vector<std::int32_t> largest_of(const TokenizedSamples& samples,
                                     const std::function<void(std::vector<std::int32_t>&)>& next) {
  std::vector<std::int32_t> largest;
  std::vector<std::int32_t> members;
  std::int64_t most = -1;
  for (next(members); !members.empty(); next(members)) {
    const std::int64_t tokens = tokens_of(samples, members);
    if (tokens > most) largest = members;
    most = std::max(most, tokens);
    members.clear();
  }
  return largest;
}

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::int64_t longest_of(const TokenizedSamples& samples) {
  std::int64_t longest = 1;
  for (std::int64_t i = 0; i < samples.count(); ++i) longest = std::max(longest, samples.length(i));
  return longest;
}

/// Settings that would do with `free` bytes, as options.
template <class Settings, class Estimate>
std::vector<std::string> what_fits(const MemoryEstimate& estimate, std::int64_t free, std::int64_t longest,
                                   const Settings& settings, int ranks, const Estimate& estimate_of) {
  const auto fits = [&](const Settings& other) { return estimate_of(other).total() <= free; };
  const auto with_parts = [&](Settings other) -> std::optional<std::int64_t> {
    for (auto tokens = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(estimate.tokens - 1)));;) {
      other.micro_batch_tokens = tokens;
      if (fits(other)) return tokens;
      if (tokens <= longest) return std::nullopt;
      tokens = std::max(tokens / 2, longest);
    }
  };
  std::vector<std::string> ways;
  Settings again = settings;
  again.recompute = Recompute::blocks;
  if (settings.recompute == Recompute::none && fits(again)) ways.emplace_back("--recompute blocks");
  Settings sharded = settings;
  sharded.shard_optimizer = ShardOptimizer::yes;
  if (settings.shard_optimizer == ShardOptimizer::no && ranks > 1 && fits(sharded)) ways.emplace_back("--shard-optimizer");
  if (const auto tokens = with_parts(settings)) ways.push_back(fmt::format("--micro-batch-tokens {}", *tokens));
  if (!ways.empty() || settings.recompute == Recompute::blocks) return ways;
  if (const auto tokens = with_parts(again)) ways.push_back(fmt::format("--recompute blocks --micro-batch-tokens {}", *tokens));
  return ways;
}

/// `batch_option` is what makes batches, also those that are evaluated, smaller.
[[noreturn]] void refuse(const MemoryEstimate& estimate, std::int64_t free, std::span<const std::string> ways,
                         const char* batch_option) {
  throw OutOfMemoryError(
      fmt::format(
          "no memory for this run: it needs {:.1f} MiB ({:.1f} weights and gradients, {:.1f} AdamW's moments, {:.1f} a step "
          "of up to {} tokens) and {:.1f} are free; {}",
          mebibytes(estimate.total()), mebibytes(estimate.weights), mebibytes(estimate.optimizer), mebibytes(estimate.step),
          estimate.tokens, mebibytes(free),
          ways.empty() ? fmt::format("use a smaller {}, --max-length or model", batch_option)
                       : fmt::format("{} fits", fmt::join(ways, " or "))),
      estimate.total(), free);
}

}  // namespace

std::int64_t memory_for_run(const Device& device) { return device.memory().now + device.available_memory(); }

MemoryEstimate estimate_memory(const Classifier& classifier, const LabelledSamples& train, const LabelledSamples* dev,
                               const FinetuneSettings& settings, const Place& place) {
  const BertConfig& config = classifier.config();
  SizedRun<BertClassifier> run(classifier.device(), classifier.dtype(), settings, place, {}, bert_settings(config),
                               classifier.model().classes(), config.classifier_dropout.value_or(config.hidden_dropout));
  const auto samples = static_cast<std::int32_t>(train.samples.count());
  SampleOrder order(samples, settings.batch_size, settings.seed);
  NewSizes sizes(train.samples, settings.micro_batch_tokens);
  StepBatches batches;
  for (std::int64_t step = 0; step < std::min(finetune_steps(settings, samples).total, kForeseenSteps); ++step) {
    const RankPart mine = rank_part(train.samples, order.batch(step), place.rank, place.size);
    if (!sizes.in(mine.members)) continue;
    pack_step(train, mine.members, settings, batches);
    run.train(batches);
  }
  if (dev != nullptr) {
    std::int64_t first = 0;
    const auto largest = largest_of(dev->samples, [&](std::vector<std::int32_t>& members) {
      members.resize(static_cast<std::size_t>(std::min<std::int64_t>(settings.batch_size, dev->samples.count() - first)));
      std::iota(members.begin(), members.end(), static_cast<std::int32_t>(first));
      first += std::ssize(members);
    });
    PackedBatch packed;
    pack_sequences(dev->samples, largest, dev->labels, 0, packed);
    if (!largest.empty()) run.evaluate(std::move(packed));
  }
  return run.estimate();
}

MemoryEstimate estimate_memory(const MaskedLm& model, const TokenizedSamples& train, const TokenizedSamples* dev,
                               const PretrainSettings& settings, const Place& place) {
  SizedRun<BertMaskedLm> run(model.device(), model.dtype(), settings, place, model.model().loss_settings(),
                             bert_settings(model.config()));
  TokenBatches order(train, settings.batch_tokens, settings.seed);
  NewSizes sizes(train, settings.micro_batch_tokens);
  StepBatches batches;
  const std::int64_t steps = std::min(pretrain_steps(settings, train).total, kForeseenSteps);
  for (std::int64_t step = 0; step < steps; ++step) {
    const RankPart mine = rank_part(train, order.batch(step), place.rank, place.size);
    if (!sizes.in(mine.members) && step >= kDrawnSteps) continue;
    pack_part(model, train, mine, settings, step, WithoutChoice::least_draw, batches);
    run.train(batches);
  }
  if (dev != nullptr) {
    const Masking masking(model.tokenizer(), settings.mlm_probability);
    std::int64_t first = 0;
    std::int64_t first_of_largest = 0;
    const auto largest = largest_of(*dev, [&](std::vector<std::int32_t>& members) {
      for (std::int64_t tokens = 0; first < dev->count(); ++first) {
        tokens += dev->length(first);
        if (!members.empty() && tokens > settings.batch_tokens) break;
        members.push_back(static_cast<std::int32_t>(first));
      }
    });
    if (!largest.empty()) first_of_largest = largest.front();
    PackedBatch packed;
    pack_masked(*dev, largest, masking, {.seed = settings.seed, .step = kEvaluationMasks},
                static_cast<std::int32_t>(first_of_largest), WithoutChoice::least_draw, packed);
    if (!largest.empty()) run.evaluate(std::move(packed));
  }
  return run.estimate();
}

void expect_memory(const MemoryEstimate& estimate, const Classifier& classifier, const LabelledSamples& train,
                   const LabelledSamples* dev, const FinetuneSettings& settings, const Place& place) {
  const std::int64_t free = memory_for_run(*classifier.device());
  if (estimate.total() <= free) return;
  const auto ways =
      what_fits(estimate, free, longest_of(train.samples), settings, place.size,
                [&](const FinetuneSettings& other) { return estimate_memory(classifier, train, dev, other, place); });
  refuse(estimate, free, ways, "--batch-size");
}

void expect_memory(const MemoryEstimate& estimate, const MaskedLm& model, const TokenizedSamples& train,
                   const TokenizedSamples* dev, const PretrainSettings& settings, const Place& place) {
  const std::int64_t free = memory_for_run(*model.device());
  if (estimate.total() <= free) return;
  const auto ways = what_fits(estimate, free, longest_of(train), settings, place.size,
                              [&](const PretrainSettings& other) { return estimate_memory(model, train, dev, other, place); });
  refuse(estimate, free, ways, "--batch-tokens");
}

}  // namespace lathe
