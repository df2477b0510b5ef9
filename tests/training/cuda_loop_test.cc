// The loop on a CUDA device, emulated or real, with the smallest model there is: what it reads, when, and what it makes of numbers that are none.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lathe/layers/functions.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/random.h"
#include "lathe/training/training_loop.h"
#include "lathe/training/upload.h"

#ifdef LATHE_EMULATED
#include "lathe/kernels/emulation/queue.h"
#endif

namespace lathe {
namespace {

/// Which of three classes a row of numbers belongs to, by a matrix.
class Rows final : public TrainingTask {
 public:
  Rows(const DeviceRef& device, DType dtype)
      : device_(device),
        weight_(set_.add({.name = "w", .shape = {3, 16}, .decay = Decay::yes, .initial = Initial::normal, .file_names = {}})),
        arena_(device, dtype, set_) {
    ParameterArena::initialise(weight_, 1, 0.3);
    const RandomNumbers random(5, RandomUse::initial_weights, 1);
    std::vector<float> values(kRows * 16);
    std::vector<std::int32_t> labels(kRows);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
    for (std::size_t i = 0; i < kRows; ++i) labels[i] = values[16 * i] > 0.5F ? 2 : values[16 * i] < -0.5F ? 0 : 1;
    if (dtype == DType::bf16) {
      x_ = Tensor::from<Bf16>(device, std::vector<Bf16>(values.begin(), values.end()), Shape{kRows, 16});
    } else {
      x_ = Tensor::from<float>(device, values, Shape{kRows, 16});
    }
    // A token a sequence, all labelled.
    SampleLists samples;
    std::vector<std::int32_t> members;
    for (std::int32_t i = 0; i < kRows; ++i) {
      samples.ids.push_back(i);
      samples.types.push_back(0);
      samples.offsets.push_back(i + 1);
      members.push_back(i);
    }
    pack_sequences(samples, members, labels, 0, packed_);
    bucket_ = round_up(packed_);
  }
  void pack(std::int64_t step, StepBatches& batches) override {
    batches.count = 0;
    batches.add() = {.packed = packed_, .bucket = bucket_};
    batches.tokens = kRows;
    batches.rows = step == broken_step ? 0 : kRows;  // 0 makes the loss and its gradient infinite
  }
  Tensor loss(Tape& tape, const Batch& batch) override {
    return cross_entropy_loss(tape, linear(tape, x_, weight_.value, Tensor()), batch, {});
  }
  double epochs_at(std::int64_t steps) const override { return static_cast<double>(steps) / 100.0; }
  bool ends_epoch(std::int64_t steps) const override { return steps % 100 == 0; }
  bool finish_epoch(std::int64_t) override {
    ++epochs;
    return true;
  }
  ParameterArena& arena() { return arena_; }
  std::vector<float> weights() const {
    std::vector<float> values(3 * 16);
    get_values(weight_, values);
    return values;
  }

  std::int64_t broken_step = -1;
  int epochs = 0;

 private:
  static constexpr std::int32_t kRows = 24;
  DeviceRef device_;
  ParameterSet set_;
  Parameter& weight_;
  ParameterArena arena_;
  Tensor x_;
  PackedBatch packed_;
  Bucket bucket_;
};

class Recorder final : public TrainingObserver {
 public:
  void stepped(std::int64_t step, std::int64_t, std::int64_t) override {
    if (on_step) on_step(step);
  }
  void logged(const StepLog& log) override { losses[log.step] = log.loss; }
  std::function<void(std::int64_t)> on_step;
  std::map<std::int64_t, double> losses;
};

TrainingSettings settings(std::int64_t log_steps) {
  TrainingSettings settings;
  settings.learning_rate = 0.1;
  settings.log_steps = log_steps;
  return settings;
}

/// The losses of so many steps that were logged.
std::map<std::int64_t, double> run(Rows& task, std::int64_t steps, std::int64_t log_steps = 1) {
  Recorder recorder;
  train(task, task.arena(), settings(log_steps), {.per_epoch = 100, .total = steps, .warmup = 0}, recorder, nullptr);
  return recorder.losses;
}

DeviceRef cpu() { return Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 22}); }
DeviceRef cuda() { return Device::cuda({.index = 0, .limit_bytes = 1 << 22}); }

TEST(CudaLoop, HasTheLossesOfTheCpu) {
  Rows on_cpu(cpu(), DType::f32);
  Rows on_cuda(cuda(), DType::f32);
  Rows in_bf16(cuda(), DType::bf16);
  const auto expected = run(on_cpu, 12);
  const auto actual = run(on_cuda, 12);
  const auto rounded = run(in_bf16, 12);
  ASSERT_EQ(expected.size(), 12U);
  for (const auto& [step, loss] : expected) {
    EXPECT_NEAR(actual.at(step), loss, 1e-5 * loss) << "step " << step;
    EXPECT_NEAR(rounded.at(step), loss, 0.02 * loss) << "step " << step;
  }
  EXPECT_LT(expected.at(12), 0.8 * expected.at(1));
  EXPECT_EQ(on_cuda.epochs, 1) << "the run's end";
}

std::string failure_of(Rows& task, std::int64_t steps) {
  try {
    run(task, steps, 1000);
  } catch (const NonFiniteError& failure) {
    return failure.what();
  }
  return "it went well";
}

TEST(CudaLoop, FindsANumberThatIsNoneAtTheNextLookAndKeepsNothing) {
  Rows on_cpu(cpu(), DType::f32);
  on_cpu.broken_step = 5;
  EXPECT_TRUE(failure_of(on_cpu, 100).starts_with("step 6: the loss is inf")) << "the CPU is asked after every step";

  Rows short_run(cuda(), DType::f32);
  short_run.broken_step = 5;
  EXPECT_TRUE(failure_of(short_run, 10)
                  .starts_with("step 6: the gradients' norm is not a number to go on with, found out after step 10"));
  EXPECT_EQ(short_run.epochs, 0) << "nothing was evaluated or kept";

  Rows long_run(cuda(), DType::bf16);
  long_run.broken_step = 5;
  int steps = 0;
  Recorder recorder;
  recorder.on_step = [&](std::int64_t) { ++steps; };
  EXPECT_THROW(
      train(long_run, long_run.arena(), settings(1000), {.per_epoch = 1000, .total = 500, .warmup = 0}, recorder, nullptr),
      NonFiniteError);
  EXPECT_EQ(steps, 63) << "the look after step 64";
  for (const float weight : long_run.weights()) EXPECT_TRUE(std::isfinite(weight));

  Rows at_the_look(cuda(), DType::f32);
  at_the_look.broken_step = 63;
  EXPECT_TRUE(failure_of(at_the_look, 70).starts_with("step 64: the loss is inf"));
}

#ifdef LATHE_EMULATED
TEST(CudaLoop, WaitsOnlyWhereItLogs) {
  const DeviceRef device = cuda();
  Rows task(device, DType::bf16);
  const emulation::Stream& stream = *device->cuda_stream().handle;
  std::vector<std::uint64_t> finished;
  Recorder recorder;
  recorder.on_step = [&](std::int64_t) { finished.push_back(stream.finished); };
  train(task, task.arena(), settings(10), {.per_epoch = 100, .total = 12, .warmup = 0}, recorder, nullptr);
  ASSERT_EQ(finished.size(), 12U);
  // Step 1 is logged; then the ring of uploads lets the host be four steps ahead of a device that has yet to begin with them.
  EXPECT_GT(finished[1], finished[0]);
  for (std::size_t i = 2; i < 5; ++i) EXPECT_EQ(finished[i], finished[1]) << "step " << i + 1 << " waited";
}
#endif

}  // namespace
}  // namespace lathe
