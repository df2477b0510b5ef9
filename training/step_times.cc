#include "lathe/training/step_times.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace lathe {
namespace {

/// The events of a step of a few micro-batches, so that no step allocates room for them.
constexpr std::size_t kUsualEvents = 32;

}  // namespace

StepSeconds& StepSeconds::operator+=(const StepSeconds& more) noexcept {
  data += more.data;
  compute += more.compute;
  communication += more.communication;
  optimizer += more.optimizer;
  other += more.other;
  waiting += more.waiting;
  ranks = more.ranks;
  return *this;
}

StepTimes::StepTimes(DeviceRef device) : device_(std::move(device)) {
  for (Step& step : steps_) {
    step.events.reserve(kUsualEvents);
    step.phases.reserve(kUsualEvents);
  }
}

void StepTimes::mark(Step& step) {
  if (step.used == step.events.size()) step.events.emplace_back(device_);
  step.events[step.used++].record();
}

void StepTimes::begin() {
  step_ = (step_ + 1) % kSteps;
  read(steps_[step_]);
  steps_[step_].phases.clear();
  mark(steps_[step_]);
}

void StepTimes::reached(StepPhase phase) {
  steps_[step_].phases.push_back(phase);
  mark(steps_[step_]);
}

void StepTimes::read(Step& step) {
  if (step.used == 0) return;
  double& work = sum_.work[static_cast<std::size_t>(sum_.steps++) % RankSteps::kCompared];
  work = std::numeric_limits<double>::quiet_NaN();
  if (step.events[step.used - 1].passed()) {
    double until_gradients = 0.0;
    for (std::size_t i = 0; i < step.phases.size(); ++i) {
      const double seconds = step.events[i + 1].seconds_since(step.events[i]);
      switch (step.phases[i]) {
        case StepPhase::packed:
        case StepPhase::uploaded:
          sum_.seconds.data += seconds;
          until_gradients += seconds;
          break;
        case StepPhase::captured:
        case StepPhase::computed:
          sum_.seconds.compute += seconds;
          until_gradients += seconds;
          break;
        case StepPhase::summed:
          sum_.seconds.communication += seconds;
          break;
        case StepPhase::updated:
          sum_.seconds.optimizer += seconds;
          break;
      }
    }
    work = until_gradients;
    ++measured_;
  }
  step.used = 0;
}

StepSeconds mean_over_ranks(std::span<const RankSteps> ranks) {
  const auto count = static_cast<double>(ranks.size());
  StepSeconds mean;
  for (const RankSteps& rank : ranks) mean += rank.seconds;
  for (double* part : {&mean.data, &mean.compute, &mean.communication, &mean.optimizer, &mean.other}) *part /= count;
  mean.ranks = static_cast<int>(ranks.size());
  mean.waiting = 0.0;
  const auto steps = static_cast<std::size_t>(ranks.front().steps);
  const std::size_t last = std::min(steps, RankSteps::kCompared);
  std::size_t compared = 0;
  for (std::size_t i = 0; i < last; ++i) {
    double most = 0.0;
    double sum = 0.0;
    for (const RankSteps& rank : ranks) {
      most = std::max(most, rank.work[i]);
      sum += rank.work[i];
    }
    if (std::isnan(sum)) continue;
    mean.waiting += most - sum / count;
    ++compared;
  }
  if (compared > 0) mean.waiting *= static_cast<double>(steps) / static_cast<double>(compared);
  return mean;
}

StepSeconds StepTimes::take(Communicator* communicator, double elapsed) {
  for (std::size_t i = 1; i <= kSteps; ++i) read(steps_[(step_ + i) % kSteps]);
  StepSeconds& seconds = sum_.seconds;
  // A step that its GPU had not done when its events were needed again stands for as much as the others.
  const double each = measured_ > 0 ? static_cast<double>(sum_.steps) / static_cast<double>(measured_) : 0.0;
  for (double* part : {&seconds.data, &seconds.compute, &seconds.communication, &seconds.optimizer}) *part *= each;
  seconds.other = std::max(0.0, elapsed - seconds.total());
  const RankSteps mine = std::exchange(sum_, {});
  measured_ = 0;
  if (communicator == nullptr) return mine.seconds;
  const auto bytes = communicator->gather({reinterpret_cast<const char*>(&mine), sizeof(mine)});
  std::vector<RankSteps> ranks(bytes.size());
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) std::memcpy(&ranks[rank], bytes[rank].data(), sizeof(RankSteps));
  return mean_over_ranks(ranks);
}

}  // namespace lathe
