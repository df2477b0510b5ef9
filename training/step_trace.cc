#include "lathe/training/step_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kComparisons = 9;
constexpr std::size_t kMostEvaluations = 64;

enum class Name : std::int32_t { step, data, capture, upload, compute, communication, optimizer, bucket, evaluation };
enum class Stream : std::int32_t { host, device, communication };

constexpr std::array kNames = {"step",
                               "data",
                               "capture",
                               "upload",
                               "forward and backward",
                               "sum of gradients",
                               "optimizer",
                               "bucket",
                               "evaluation and saving"};

Name name_of(StepPhase phase) {
  switch (phase) {
    case StepPhase::packed:
      return Name::data;
    case StepPhase::captured:
      return Name::capture;
    case StepPhase::uploaded:
      return Name::upload;
    case StepPhase::computed:
      return Name::compute;
    case StepPhase::summed:
      return Name::communication;
    case StepPhase::updated:
      break;
  }
  return Name::optimizer;
}

double seconds_of(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

/// Names the kernel that runs here since its start, whose processes have one clock; empty where it has no name.
std::string running_kernel() {
  std::string name;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), name);
  return name;
}

bool is_emulated(const DeviceRef& device) {
  return device->kind() == DeviceKind::cuda && cuda_backend() == CudaBackend::emulated;
}

}  // namespace

/// What lasts in a stream of a rank, as ranks send it.
struct StepTrace::Span {
  Name name;
  Stream stream;
  std::int64_t step;  ///< from 1; 0 for none
  std::int64_t number, bytes;
  double begin, end;  ///< seconds
};

StepTrace::StepTrace(DeviceRef device, Communicator* communicator, std::int64_t steps)
    : device_(std::move(device)), communicator_(communicator), steps_(steps), anchor_(device_) {}
StepTrace::~StepTrace() = default;

ClockOffset clock_offset(std::span<const double> of_rank_0, std::span<const double> own) {
  std::vector<double> distances;
  for (std::size_t i = 0; i < own.size(); ++i) distances.push_back(of_rank_0[i] - own[i]);
  std::ranges::sort(distances);
  const std::size_t last = distances.size() - 1;
  return {.seconds = distances[last / 2], .spread = distances[last - last / 4] - distances[last / 4]};
}

StepTrace::Alignment StepTrace::align() const {
  Clock::time_point at = Clock::now();
  if (communicator_ == nullptr) return {.at = at, .offset = {}};
  std::array<double, kComparisons> left{};
  for (double& time : left) {
    communicator_->barrier();
    at = Clock::now();
    time = seconds_of(at);
  }
  const std::string kernel = running_kernel();
  const auto kernels = communicator_->gather(kernel);
  const auto all = communicator_->gather({reinterpret_cast<const char*>(left.data()), sizeof(left)});
  if (!kernel.empty() && kernel == kernels.front()) return {.at = at, .offset = {}};
  std::array<double, kComparisons> of_rank_0{};
  std::memcpy(of_rank_0.data(), all.front().data(), sizeof(of_rank_0));
  return {.at = at, .offset = clock_offset(of_rank_0, left)};
}

void StepTrace::begin(std::int64_t step) {
  step_.reset();
  if (step < 1 || step > steps_) return;
  if (!first_) {
    device_->synchronize();
    anchor_.record();
    anchor_.wait();
    anchored_ = Clock::now();
    first_ = align();
  }
  step_ = step + 1;
  mark(std::nullopt);
}

void StepTrace::mark(std::optional<StepPhase> phase) {
  Mark& mark = marks_.emplace_back(Mark{.step = *step_, .phase = phase, .host = Clock::now(), .device = std::nullopt});
  if (device_->kind() == DeviceKind::cuda) mark.device.emplace(device_).record();
}

void StepTrace::reached(StepPhase phase) {
  if (!step_) return;
  mark(phase);
  if (phase == StepPhase::updated) step_.reset();
}

void StepTrace::reached(std::size_t bucket, std::int64_t bytes, BucketMoment moment) {
  if (!step_) return;
  if (moment == BucketMoment::begun) {
    buckets_.push_back(
        {.step = *step_, .number = bucket, .bytes = bytes, .begun = TimedEvent(device_), .ended = TimedEvent(device_)});
    communicator_->mark(buckets_.back().begun);
    return;
  }
  const auto known =
      std::find_if(buckets_.rbegin(), buckets_.rend(), [&](const Bucket& begun) { return begun.number == bucket; });
  communicator_->mark(known->ended);
}

void StepTrace::evaluated(Clock::time_point since) {
  if (first_ && evaluations_.size() < kMostEvaluations) evaluations_.push_back({.begin = since, .end = Clock::now()});
}

std::vector<StepTrace::Span> StepTrace::spans() const {
  std::vector<Span> spans;
  const auto on_device = [&](const TimedEvent& event) { return seconds_of(anchored_) + event.seconds_since(anchor_); };
  std::size_t begin = 0;
  for (std::size_t i = 0; i < marks_.size(); ++i) {
    const Mark& mark = marks_[i];
    if (!mark.phase) {
      begin = i;
      continue;
    }
    const auto add = [&](Name name, const Mark& from) {
      Span span{.name = name,
                .stream = Stream::host,
                .step = mark.step,
                .number = 0,
                .bytes = 0,
                .begin = seconds_of(from.host),
                .end = seconds_of(mark.host)};
      spans.push_back(span);
      if (!mark.device) return;
      span.stream = Stream::device;
      span.begin = on_device(*from.device);
      span.end = on_device(*mark.device);
      spans.push_back(span);
    };
    add(name_of(*mark.phase), marks_[i - 1]);
    if (mark.phase == StepPhase::updated) add(Name::step, marks_[begin]);
  }
  for (const Bucket& bucket : buckets_) {
    spans.push_back({.name = Name::bucket,
                     .stream = Stream::communication,
                     .step = bucket.step,
                     .number = static_cast<std::int64_t>(bucket.number),
                     .bytes = bucket.bytes,
                     .begin = on_device(bucket.begun),
                     .end = on_device(bucket.ended)});
  }
  for (const Evaluation& evaluation : evaluations_) {
    spans.push_back({.name = Name::evaluation,
                     .stream = Stream::host,
                     .step = 0,
                     .number = 0,
                     .bytes = 0,
                     .begin = seconds_of(evaluation.begin),
                     .end = seconds_of(evaluation.end)});
  }
  return spans;
}

std::string StepTrace::finish() {
  std::vector<Span> mine;
  double spread = 0.0;
  if (first_) {
    device_->synchronize();
    if (communicator_ != nullptr) communicator_->wait();
    mine = spans();
    const Alignment last = align();
    const double apart = std::chrono::duration<double>(last.at - first_->at).count();
    const auto aligned = [&](double time) {
      const double share = apart > 0.0 ? (time - seconds_of(first_->at)) / apart : 0.0;
      return time + first_->offset.seconds + share * (last.offset.seconds - first_->offset.seconds);
    };
    for (Span& span : mine) {
      span.begin = aligned(span.begin);
      span.end = aligned(span.end);
    }
    spread = std::max(first_->offset.spread, last.offset.spread);
  }
  if (communicator_ == nullptr) return chrome_trace({mine}, {""}, 0.0);

  // One rank's after the other's, so that no rank but the first ever holds more than two.
  const auto facts = communicator_->gather(fmt::format("{} {} {}", mine.size(), spread, communicator_->place().host));
  std::vector<std::vector<Span>> ranks(facts.size());
  std::vector<std::string> hosts;
  for (int rank = 0; rank < communicator_->size(); ++rank) {
    const std::string_view text = facts[static_cast<std::size_t>(rank)];
    const std::size_t first = text.find(' ');
    const std::size_t second = text.find(' ', first + 1);
    spread = std::max(spread, std::stod(std::string(text.substr(first + 1, second - first - 1))));
    hosts.emplace_back(text.substr(second + 1));
    std::vector<Span>& spans = ranks[static_cast<std::size_t>(rank)];
    if (rank == communicator_->rank()) spans = mine;
    spans.resize(std::stoul(std::string(text.substr(0, first))));
    communicator_->broadcast(std::as_writable_bytes(std::span(spans)), rank);
    if (communicator_->rank() != 0) spans = {};
  }
  return communicator_->rank() == 0 ? chrome_trace(ranks, hosts, spread) : "";
}

std::string StepTrace::chrome_trace(const std::vector<std::vector<Span>>& ranks, const std::vector<std::string>& hosts,
                                    double spread) const {
  const bool emulated = is_emulated(device_);
  double beginning = 0.0;
  for (bool any = false; const auto& spans : ranks) {
    for (const Span& span : spans) beginning = std::exchange(any, true) ? std::min(beginning, span.begin) : span.begin;
  }
  // Whole nanoseconds before they become microseconds, so that what nests still does.
  const auto microseconds = [&](double time) { return std::llround((time - beginning) * 1e9); };
  Json events = Json::array();
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto name = [&](const char* what, std::optional<Stream> stream, const Json& arguments) {
      Json event = {{"name", what}, {"ph", "M"}, {"pid", rank}};
      if (stream) event["tid"] = static_cast<int>(*stream);
      event["args"] = arguments;
      events.push_back(event);
    };
    name("process_name", std::nullopt,
         {{"name", fmt::format("rank {}{}", rank, hosts[rank].empty() ? "" : fmt::format(" (host {})", hosts[rank]))}});
    name("process_sort_index", std::nullopt, {{"sort_index", rank}});
    const std::string suffix = emulated ? " (emulated)" : "";
    name("thread_name", Stream::host, {{"name", "host"}});
    if (device_->kind() == DeviceKind::cuda) name("thread_name", Stream::device, {{"name", "device" + suffix}});
    if (communicator_ != nullptr) name("thread_name", Stream::communication, {{"name", "communication" + suffix}});
    for (const Span& span : ranks[rank]) {
      const std::int64_t begin = microseconds(span.begin);
      const std::int64_t end = microseconds(span.end);
      const std::string label = kNames[static_cast<std::size_t>(span.name)];
      Json event = {{"name", span.name == Name::bucket ? fmt::format("{} {}", label, span.number)
                             : span.name == Name::step ? fmt::format("{} {}", label, span.step)
                                                       : label},
                    {"cat", label},
                    {"ph", "X"},
                    {"ts", static_cast<double>(begin) / 1e3},
                    {"dur", static_cast<double>(end - begin) / 1e3},
                    {"pid", rank},
                    {"tid", static_cast<int>(span.stream)}};
      if (span.step > 0) event["args"]["step"] = span.step;
      if (span.name == Name::bucket) {
        event["args"]["bucket"] = span.number;
        event["args"]["bytes"] = span.bytes;
      }
      events.push_back(std::move(event));
    }
  }
  // One event a line, as people look at it.
  std::string text = R"({"displayTimeUnit":"ms","otherData":)";
  text += Json{{"ranks", ranks.size()},
               {"device", device_->name()},
               {"emulated", emulated},
               {"clocks",
                "rank 0's; those of other machines compared with it by barriers, at the first recorded step and at the end"},
               {"clocks_apart_us", spread * 1e6}}
              .dump(-1, ' ', false, Json::error_handler_t::replace);
  text += ",\"traceEvents\":[\n";
  for (std::size_t i = 0; i < events.size(); ++i)
    text += events[i].dump(-1, ' ', false, Json::error_handler_t::replace) + (i + 1 < events.size() ? ",\n" : "\n");
  return text + "]}\n";
}

}  // namespace lathe
