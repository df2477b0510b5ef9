#include "benchmarks/step.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "benchmarks/timeline.h"
#include "lathe/text/bert_normalizer.h"
#include "lathe/training/finetune.h"
#include "lathe/training/loader.h"
#include "lathe/training/pretrain.h"

namespace lathe::bench {
namespace {

constexpr std::uint32_t kSeed = 42;
constexpr std::int64_t kPositions = 512;
constexpr std::int64_t kLeastSteps = 3;
// Where BERT's vocabulary has its special tokens.
constexpr std::int32_t kClassifierToken = 101;
constexpr std::int32_t kSeparatorToken = 102;
constexpr std::int32_t kFirstWord = 104;

/// A vocabulary of so many made-up words, as BERT's has its special tokens, in a file that is in no folder.
class Vocabulary {
 public:
  explicit Vocabulary(std::int64_t size) : file_(::memfd_create("vocab.txt", MFD_CLOEXEC)) {
    std::string lines;
    for (std::int64_t id = 0; id < size; ++id) lines += token(id) + "\n";
    for (std::string_view rest = lines; file_ >= 0 && !rest.empty();) {
      const ssize_t written = ::write(file_, rest.data(), rest.size());
      if (written <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  ~Vocabulary() { ::close(file_); }
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = delete;
  Vocabulary& operator=(Vocabulary&&) = delete;

  WordPieceTokenizer tokenizer() const { return WordPieceTokenizer::from_vocabulary(fmt::format("/proc/self/fd/{}", file_), {}); }

 private:
  static std::string token(std::int64_t id) {
    switch (id) {
      case 0:
        return "[PAD]";
      case 100:
        return "[UNK]";
      case kClassifierToken:
        return "[CLS]";
      case kSeparatorToken:
        return "[SEP]";
      case 103:
        return "[MASK]";
      default:
        return fmt::format("word{}", id);
    }
  }
  int file_;
};

/// Sequences of these lengths: [CLS], words as often as natural ones are (the logarithm of a Zipfian rank is about uniform), [SEP].
TokenizedSamples make_samples(std::span<const std::int64_t> lengths, std::int64_t vocabulary) {
  SampleLists samples;
  std::uint32_t state = 1;
  const auto words = static_cast<double>(vocabulary - kFirstWord);
  for (const std::int64_t length : lengths) {
    samples.ids.push_back(kClassifierToken);
    for (std::int64_t i = 0; i < length - 2; ++i) {
      state = state * 1664525U + 1013904223U;
      const double share = static_cast<double>(state >> 8U) / static_cast<double>(1U << 24U);
      samples.ids.push_back(kFirstWord + static_cast<std::int32_t>(std::pow(words, share)) - 1);
    }
    samples.ids.push_back(kSeparatorToken);
    samples.offsets.push_back(std::ssize(samples.ids));
  }
  samples.types.assign(samples.ids.size(), 0);
  return samples;
}

BertConfig config_of(const StepRequest& request) {
  BertConfig config;
  config.vocabulary_size = request.model.vocabulary;
  config.layers = request.model.layers;
  config.hidden_size = request.model.hidden_size;
  config.heads = request.model.heads;
  config.intermediate_size = 4 * request.model.hidden_size;
  config.max_positions = kPositions;
  config.hidden_dropout = request.dropout;
  config.attention_dropout = request.dropout;
  return config;
}

template <class Settings>
Settings settings_of(const StepRequest& request) {
  Settings settings;
  settings.max_steps = request.warmup + request.steps;
  settings.seed = kSeed;
  settings.log_steps = settings.max_steps;  // to log is to wait for the device
  settings.replay = request.replay;
  return settings;
}

/// Marks the phases of a run's steps, and ends it when its time is over.
template <class Observer>
class Marks final : public Observer {
 public:
  Marks(const DeviceRef& device, const StepRequest& request, const std::atomic<int>* stop)
      : request_(request), outer_stop_(stop), timeline_(device) {}

  void reached(StepPhase phase) override {
    timeline_.mark();
    phases_.push_back(phase);
  }
  void stepped(std::int64_t step, std::int64_t, std::int64_t) override {
    const auto now = Clock::now();
    if (step == request_.warmup) begin_ = now;
    const bool late =
        step >= request_.warmup + kLeastSteps && std::chrono::duration<double>(now - begin_).count() > request_.seconds;
    if (late || is_stopped(outer_stop_)) stop_ = 1;
  }
  const std::atomic<int>* stop() const { return &stop_; }

  /// Times of the steps after the warm-up.
  std::vector<MeasuredStep> steps() const {
    const std::vector<double> device = timeline_.seconds();
    const std::vector<double> host = timeline_.host_seconds();
    std::vector<MeasuredStep> steps;
    MeasuredStep step;
    for (std::size_t i = 1; i < phases_.size(); ++i) {
      const double seconds = device[i] - device[i - 1];
      step.seconds += seconds;
      switch (phases_[i]) {
        case StepPhase::packed:
          step.data += seconds;
          step.packing += host[i] - host[i - 1];
          break;
        case StepPhase::captured:
          step.capture += seconds;
          ++step.captures;
          break;
        case StepPhase::uploaded:
          step.upload += seconds;
          break;
        case StepPhase::computed:
        case StepPhase::summed:  // at once, by a run alone
          step.compute += seconds;
          break;
        case StepPhase::updated:
          step.update += seconds;
          steps.push_back(std::exchange(step, {}));
          break;
      }
    }
    steps.erase(steps.begin(), steps.begin() + std::min<std::ptrdiff_t>(request_.warmup, std::ssize(steps)));
    return steps;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const StepRequest& request_;
  const std::atomic<int>* outer_stop_;
  std::atomic<int> stop_ = 0;
  Timeline timeline_;
  std::vector<StepPhase> phases_;
  Clock::time_point begin_ = Clock::now();
};

/// What is to be said of a step's batch: `members` of `samples`, of which `rows` have labels, in a batch of so many tokens.
void describe(const StepRequest& request, const TokenizedSamples& samples, std::span<const std::int32_t> members,
              std::int64_t rows, std::int64_t bucket_tokens, MeasuredStep& step) {
  std::vector<std::int64_t> lengths;
  for (const std::int32_t member : members) lengths.push_back(samples.length(member));
  step.sequences = std::ssize(lengths);
  for (const std::int64_t length : lengths) step.tokens += length;
  step.rows = rows;
  step.bucket_tokens = bucket_tokens;
  step.operations = step_operations(request.model, request.task, lengths, rows);
}

StepMeasurement measure_mlm(const DeviceRef& device, const StepRequest& request, const std::atomic<int>* stop) {
  // A little more than is trained on: the last batch of an epoch is a rest.
  constexpr double kMore = 1.1;
  const std::int64_t total = request.warmup + request.steps + 2;
  const auto count = static_cast<std::int64_t>(kMore * static_cast<double>(total * request.tokens) / request.lengths.mean()) + 1;
  const TokenizedSamples samples = make_samples(request.lengths.draw(count), request.model.vocabulary);
  auto settings = settings_of<PretrainSettings>(request);
  settings.batch_tokens = request.tokens;
  const Vocabulary vocabulary(request.model.vocabulary);
  const auto model = MaskedLm::create(config_of(request), vocabulary.tokenizer(), device, kSeed, request.dtype);
  Marks<PretrainObserver> marks(device, request, stop);
  pretrain(*model, samples, nullptr, settings, marks, marks.stop());

  StepMeasurement measured{.steps = marks.steps(),
                           .warmup = request.warmup,
                           .parameters = model->parameter_count(),
                           .peak_bytes = device->memory().peak};
  TokenBatches order(samples, settings.batch_tokens, settings.seed);
  StepBatches batches;
  for (std::int64_t i = 0; MeasuredStep & step : measured.steps) {
    const std::int64_t number = request.warmup + i++;
    const auto members = order.batch(number);
    pack_step(*model, samples, members, settings, number, batches);
    describe(request, samples, members, batches.rows, batches.micro_batches.front().bucket.tokens, step);
  }
  return measured;
}

StepMeasurement measure_classification(const DeviceRef& device, const StepRequest& request, const std::atomic<int>* stop) {
  auto settings = settings_of<FinetuneSettings>(request);
  settings.batch_size =
      std::max(1, static_cast<std::int32_t>(std::lround(static_cast<double>(request.tokens) / request.lengths.mean())));
  LabelledSamples data;
  data.samples = make_samples(request.lengths.draw(settings.max_steps * settings.batch_size), request.model.vocabulary);
  for (std::int64_t i = 0; i < data.samples.count(); ++i) data.labels.push_back(static_cast<std::int32_t>(i % 2));
  const Vocabulary vocabulary(request.model.vocabulary);
  const auto classifier =
      Classifier::create(config_of(request), vocabulary.tokenizer(), LabelSet({"no", "yes"}), device, kSeed, request.dtype);
  Marks<FinetuneObserver> marks(device, request, stop);
  finetune(*classifier, data, nullptr, settings, marks, marks.stop());

  StepMeasurement measured{.steps = marks.steps(),
                           .warmup = request.warmup,
                           .parameters = classifier->parameter_count(),
                           .peak_bytes = device->memory().peak};
  SampleOrder order(static_cast<std::int32_t>(data.samples.count()), settings.batch_size, settings.seed);
  PackedBatch packed;
  for (std::int64_t i = 0; MeasuredStep & step : measured.steps) {
    const auto members = order.batch(request.warmup + i++);
    pack_sequences(data.samples, members, data.labels, 0, packed);
    describe(request, data.samples, members, std::ssize(members), round_up(packed).tokens, step);
  }
  return measured;
}

}  // namespace

StepMeasurement measure_step(const DeviceRef& device, const StepRequest& request, const std::atomic<int>* stop) {
  StepMeasurement measured =
      request.task == StepTask::mlm ? measure_mlm(device, request, stop) : measure_classification(device, request, stop);
  if (device->kind() == DeviceKind::cuda && cuda_backend() == CudaBackend::emulated) {
    for (MeasuredStep& step : measured.steps)
      step.seconds = step.data = step.capture = step.upload = step.compute = step.update = step.packing = 0.0;
  }
  return measured;
}

}  // namespace lathe::bench
