// What --profile leaves, of a run alone and of ranks; in the emulation of a device with its streams.
#include "lathe/training/step_trace.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "lathe/runtime/mpi_communicator.h"
#include "lathe/runtime/nccl_communicator.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"
#include "tests/runtime/communicator_case.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"

namespace lathe {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

constexpr int kHost = 0;
constexpr int kDevice = 1;
constexpr int kCommunication = 2;

/// An X event.
struct Span {
  std::string name;
  double begin, end;  // microseconds
  Json args;
};
/// By rank and stream, in the order of their beginnings, the longer first.
using Spans = std::map<std::pair<int, int>, std::vector<Span>>;

Spans spans_of(const Json& trace) {
  Spans spans;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts");
    spans[{event.at("pid"), event.at("tid")}].push_back({.name = event.at("name"),
                                                         .begin = begin,
                                                         .end = begin + event.at("dur").get<double>(),
                                                         .args = event.value("args", Json::object())});
  }
  for (auto& [stream, list] : spans) {
    std::ranges::stable_sort(
        list, [](const Span& a, const Span& b) { return std::tuple(a.begin, -a.end) < std::tuple(b.begin, -b.end); });
  }
  return spans;
}

/// Sums of microseconds have the last bits of doubles.
constexpr double kRounding = 1e-3;

void expect_nested(const std::vector<Span>& spans) {
  std::vector<const Span*> open;
  for (const Span& span : spans) {
    EXPECT_GE(span.end, span.begin) << span.name;
    while (!open.empty() && open.back()->end <= span.begin + kRounding) open.pop_back();
    if (!open.empty()) {
      EXPECT_LE(span.end, open.back()->end + kRounding) << span.name << " overlaps " << open.back()->name;
    }
    open.push_back(&span);
  }
}

class StepTraceTest : public testing::Test {
 protected:
  StepTraceTest() {
    if (test::mpi_ranks() > 0) {
      bootstrap_ = make_mpi_communicator({});
      if (on_gpu()) gpus_ = make_nccl_communicator(device_, *bootstrap_, {});
      communicator_ = gpus_ ? gpus_.get() : bootstrap_.get();
    }
    write_tiny_model(folder_ / "model");
    write_tiny_data(folder_ / "train.tsv", 24, 1);
    settings_.batch_size = 12;  // little, for the emulation's sake
    settings_.max_steps = 3;
    settings_.log_steps = 3;
    settings_.micro_batch_tokens = 24;
    settings_.gradient_bucket_bytes = std::int64_t{3} * 4096;
    settings_.profile_steps = 2;
  }
  static DeviceRef make_device() {
    if (cuda_backend() == CudaBackend::emulated) return Device::cuda({});
    return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 28});
  }
  bool on_gpu() const { return device_->kind() == DeviceKind::cuda; }
  int ranks() const { return communicator_ == nullptr ? 1 : communicator_->size(); }
  bool first() const { return communicator_ == nullptr || communicator_->rank() == 0; }

  struct Observer final : FinetuneObserver {
    void traced(const std::string& chrome_trace) override { traces.push_back(chrome_trace); }
    void logged(const StepLog& log) override { logs.push_back(log); }
    std::vector<std::string> traces;
    std::vector<StepLog> logs;
  };
  /// Tells `observer_`.
  void train() {
    const auto classifier = Classifier::load(folder_ / "model", device_,
                                             choose_labels(read_records(folder_ / "train.tsv").records, LabelSet()).labels,
                                             Classifier::Head::renewed, 1);
    const DataSet data = read_records(folder_ / "train.tsv");
    const LabelledSamples samples{.samples = tokenize(*classifier, data.records, TextKind::single, 32, 1).samples,
                                  .labels = classifier->labels().ids_of(data.records)};
    result_ = finetune(*classifier, samples, nullptr, settings_, observer_, nullptr, communicator_);
    const std::int64_t block = settings_.gradient_bucket_bytes;
    const std::int64_t bytes = classifier->arena().gradients().bytes();
    buckets_ = (bytes + block - 1) / block;
    gradient_bytes_ = bytes;
  }

  DeviceRef device_ = make_device();
  TemporaryFolder folder_;
  std::unique_ptr<Communicator> bootstrap_, gpus_;
  Communicator* communicator_ = nullptr;
  FinetuneSettings settings_;
  Observer observer_;
  FinetuneResult result_;
  std::int64_t buckets_ = 0;
  std::int64_t gradient_bytes_ = 0;
};

/// Names of what is of the same step and begins and ends within it, in order.
Strings names_within(const std::vector<Span>& spans, const Span& outer) {
  Strings names;
  for (const Span& span : spans) {
    if (span.args.value("step", 0) != outer.args.at("step")) continue;
    if (&span != &outer && span.begin >= outer.begin - kRounding && span.end <= outer.end + kRounding) names.push_back(span.name);
  }
  return names;
}

TEST_F(StepTraceTest, HasEveryPhaseOfEveryStepAndRank) {
  train();
  ASSERT_EQ(observer_.traces.size(), first() ? 1U : 0U) << "the first rank's is all ranks'";
  if (!first()) return;
  const Json trace = Json::parse(observer_.traces.front());
  EXPECT_EQ(trace.at("otherData").at("ranks"), ranks());
  EXPECT_EQ(trace.at("otherData").at("emulated"), on_gpu());
  const Spans spans = spans_of(trace);
  for (int rank = 0; rank < ranks(); ++rank) {
    for (const int stream : on_gpu() ? std::vector{kHost, kDevice} : std::vector{kHost}) {
      ASSERT_TRUE(spans.contains({rank, stream})) << "rank " << rank << ", stream " << stream;
      const std::vector<Span>& list = spans.at({rank, stream});
      expect_nested(list);
      Strings steps;
      for (const Span& span : list) {
        if (!span.name.starts_with("step ")) continue;
        steps.push_back(span.name);
        Strings parts = names_within(list, span);
        // What micro-batches repeat, and what the first of a bucket adds.
        std::erase(parts, "capture");
        while (parts.size() > 5 && parts[3] == "upload") parts.erase(parts.begin() + 1, parts.begin() + 3);
        EXPECT_EQ(parts, Strings({"data", "upload", "forward and backward", "sum of gradients", "optimizer"}))
            << span.name << " of rank " << rank << ", stream " << stream;
      }
      EXPECT_EQ(steps, Strings({"step 2", "step 3"})) << "rank " << rank << ", stream " << stream;
    }
    EXPECT_EQ(std::ranges::count(spans.at({rank, kHost}), "evaluation and saving", &Span::name), 2)
        << "after each epoch of 2 steps, and at the end";
  }
  Strings processes;
  for (const Json& event : trace.at("traceEvents"))
    if (event.at("name") == "process_name") processes.push_back(event.at("args").at("name"));
  ASSERT_EQ(std::ssize(processes), ranks());
  if (communicator_ != nullptr) {
    EXPECT_EQ(processes.back(), fmt::format("rank {} (host {})", ranks() - 1, communicator_->place().host));
  }
}

TEST_F(StepTraceTest, HasTheBucketsInTheArenasOrder) {
  train();
  if (!first()) return;
  const Spans spans = spans_of(Json::parse(observer_.traces.front()));
  for (int rank = 0; rank < ranks(); ++rank) {
    if (communicator_ == nullptr) {
      EXPECT_FALSE(spans.contains({rank, kCommunication})) << "alone";
      continue;
    }
    const std::vector<Span>& sums = spans.at({rank, kCommunication});
    expect_nested(sums);
    ASSERT_EQ(std::ssize(sums), 2 * buckets_);
    std::int64_t bytes = 0;
    for (std::int64_t i = 0; i < std::ssize(sums); ++i) {
      const Span& sum = sums[static_cast<std::size_t>(i)];
      EXPECT_EQ(sum.name, fmt::format("bucket {}", i % buckets_));
      EXPECT_EQ(sum.args.at("step"), 2 + i / buckets_);
      bytes += sum.args.at("bytes").get<std::int64_t>();
      if (on_gpu()) continue;
      // On the CPU all ranks have one clock, and no sum is done before all ranks have begun it, nor outside of the host's call.
      for (int other = 0; other < ranks(); ++other)
        EXPECT_GE(sum.end, spans.at({other, kCommunication})[static_cast<std::size_t>(i)].begin - kRounding);
      const auto& host = spans.at({rank, kHost});
      EXPECT_TRUE(std::ranges::any_of(host, [&](const Span& span) {
        return span.name == "sum of gradients" && span.begin <= sum.begin + kRounding && span.end >= sum.end - kRounding;
      })) << sum.name;
    }
    EXPECT_EQ(bytes, 2 * gradient_bytes_);
  }
}

TEST_F(StepTraceTest, ARunOfOneStepHasNoneToShow) {
  settings_.max_steps = 1;
  train();
  if (first()) {
    EXPECT_TRUE(spans_of(Json::parse(observer_.traces.at(0))).empty());
  }
}

TEST_F(StepTraceTest, LinesOfALogSayWhatTimeWentTo) {
  settings_.profile_steps = 0;
  train();
  EXPECT_TRUE(observer_.traces.empty()) << "nobody asked for one";
  ASSERT_EQ(observer_.logs.size(), 2U);
  StepSeconds sum;
  for (const StepLog& log : observer_.logs) {
    const StepSeconds& seconds = log.seconds;
    for (const double part : {seconds.data, seconds.compute, seconds.communication, seconds.optimizer, seconds.other})
      EXPECT_GE(part, 0.0);
    EXPECT_GT(seconds.compute, 0.0);
    EXPECT_GE(seconds.waiting, 0.0);
    EXPECT_EQ(seconds.ranks, ranks());
    if (ranks() == 1) {
      EXPECT_EQ(seconds.imbalance(), 0.0);
    }
    sum += seconds;
  }
  EXPECT_DOUBLE_EQ(result_.parts.total(), sum.total());
  EXPECT_EQ(result_.parts.ranks, ranks());
  if (ranks() == 1 && !on_gpu()) {
    EXPECT_NEAR(result_.parts.total(), result_.seconds, 1e-9) << "parts are all of the time";
  }
}

}  // namespace
}  // namespace lathe
