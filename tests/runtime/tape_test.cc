#include "lathe/runtime/tape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "lathe/kernels/reduce.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/gradient_check.h"
#include "tests/runtime/multiply.h"

namespace lathe {
namespace {

class TapeTest : public testing::Test {
 protected:
  Tensor values(std::initializer_list<double> list) const {
    return Tensor::from<double>(device_, std::span(list.begin(), list.size()), Shape{static_cast<std::int64_t>(list.size())});
  }
  Tensor poisoned() const { return values({-999.0, -999.0}); }
  static std::vector<double> list(const Tensor& x) { return {x.data<double>(), x.data<double>() + x.size()}; }

  DeviceRef device_ = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 24});
};

TEST_F(TapeTest, WritesThenAddsWhereATensorIsUsedTwice) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  const Tensor d_x = poisoned();
  tape.watch(x, d_x);
  tape.backward(multiply(tape, multiply(tape, x, x), x), values({1, 1}));  // x^3
  EXPECT_EQ(list(d_x), (std::vector<double>{12, 27}));
}

TEST_F(TapeTest, AddsToWhatIsThereForLaterMicroBatches) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  const Tensor d_x = values({100, 200});
  tape.watch(x, d_x, Use::add);
  tape.backward(multiply(tape, x, x), values({1, 1}));
  EXPECT_EQ(list(d_x), (std::vector<double>{104, 206}));
  tape.backward(multiply(tape, x, x), values({1, 1}));
  EXPECT_EQ(list(d_x), (std::vector<double>{108, 212})) << "what is watched stays watched";
}

TEST_F(TapeTest, SkipsWhatNobodyAskedFor) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  const Tensor constant = values({5, 7});
  const Tensor d_x = poisoned();
  tape.watch(x, d_x);
  const Tensor unused = multiply(tape, constant, constant);
  EXPECT_FALSE(tape.needs_gradient(unused));
  const Tensor y = multiply(tape, x, constant);
  EXPECT_TRUE(tape.needs_gradient(y));
  multiply(tape, y, y);  // nothing uses it: its entry is skipped
  tape.backward(y, values({1, 10}));
  EXPECT_EQ(list(d_x), (std::vector<double>{5, 70}));
}

TEST_F(TapeTest, ZeroesGradientsThatNothingWrote) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  const Tensor other = values({4, 5});
  const Tensor d_x = poisoned();
  const Tensor d_other = poisoned();
  tape.watch(x, d_x);
  tape.watch(other, d_other);
  tape.backward(multiply(tape, x, x), values({1, 1}));
  EXPECT_EQ(list(d_other), (std::vector<double>{0, 0}));
  const Tensor d_added = values({1, 2});
  tape.watch(other, d_added, Use::add);
  tape.backward(multiply(tape, x, x), values({1, 1}));
  EXPECT_EQ(list(d_added), (std::vector<double>{1, 2})) << "what is added to stays where nothing is added";
}

/// Which of the watched gradients a backward told to be final, in its order, and what they were then.
class Told {
 public:
  Told(Tape& tape, std::vector<Tensor> gradients) : gradients_(std::move(gradients)) {
    tape.tell([this](const Tensor& gradient) {
      const auto known = std::ranges::find(gradients_, gradient.id(), &Tensor::id);
      ASSERT_NE(known, gradients_.end());
      order_.push_back(known - gradients_.begin());
      values_.emplace_back(gradient.data<double>(), gradient.data<double>() + gradient.size());
    });
  }
  /// The numbers of the gradients, each of which nothing has changed since it was told of.
  std::vector<std::ptrdiff_t> take() {
    for (std::size_t i = 0; i < order_.size(); ++i) {
      const Tensor& gradient = gradients_[static_cast<std::size_t>(order_[i])];
      EXPECT_EQ(values_[i], std::vector<double>(gradient.data<double>(), gradient.data<double>() + gradient.size())) << order_[i];
    }
    values_.clear();
    return std::exchange(order_, {});
  }

 private:
  std::vector<Tensor> gradients_;
  std::vector<std::ptrdiff_t> order_;
  std::vector<std::vector<double>> values_;
};

class ReadinessTest : public TapeTest {
 protected:
  using Order = std::vector<std::ptrdiff_t>;
  /// Watches x_, and has it told of.
  void watch(Tape& tape, Use first = Use::write) const {
    for (std::size_t i = 0; i < x_.size(); ++i) tape.watch(x_[i], d_x_[i], first);
  }
  std::vector<Tensor> x_ = {values({2, 3}), values({4, 5}), values({6, 7}), values({8, 9})};
  std::vector<Tensor> d_x_ = {poisoned(), poisoned(), poisoned(), poisoned()};
  Tensor ones_ = values({1, 1});
};

TEST_F(ReadinessTest, AGradientIsFinalAfterTheFirstFunctionThatTookItsTensor) {
  Tape tape(device_);
  watch(tape);
  Told told(tape, d_x_);
  for (int step = 0; step < 2; ++step) {
    // Nothing takes 3. 1 is tied: taken first and last. 0 is taken twice by one function.
    const Tensor y = multiply(tape, multiply(tape, multiply(tape, x_[0], x_[0]), x_[1]), x_[2]);
    tape.backward(multiply(tape, y, x_[1]), ones_);
    EXPECT_EQ(told.take(), (Order{3, 2, 1, 0})) << "the same for the same functions";
    EXPECT_EQ(list(d_x_[3]), (std::vector<double>{0, 0}));
    EXPECT_NE(list(d_x_[0])[0], -999);
  }
  tape.backward(multiply(tape, x_[1], x_[3]), ones_);
  EXPECT_EQ(told.take(), (Order{0, 2, 1, 3})) << "first what nothing takes, in the order of watching";
}

TEST_F(ReadinessTest, AFunctionThatIsSkippedIsPassedToo) {
  Tape tape(device_);
  watch(tape);
  Told told(tape, d_x_);
  const Tensor y = multiply(tape, x_[0], x_[1]);
  multiply(tape, multiply(tape, y, x_[2]), x_[3]);  // nothing uses its result
  tape.backward(y, ones_);
  EXPECT_EQ(told.take(), (Order{3, 2, 0, 1}));
  EXPECT_EQ(list(d_x_[2]), (std::vector<double>{0, 0}));
}

TEST_F(ReadinessTest, WhatIsAddedToIsFinalAtOnceWhereNothingIsAdded) {
  Tape tape(device_);
  watch(tape, Use::add);
  Told told(tape, d_x_);
  tape.backward(multiply(tape, x_[3], x_[2]), ones_);
  EXPECT_EQ(told.take(), (Order{0, 1, 3, 2}));
  EXPECT_EQ(list(d_x_[0]), (std::vector<double>{-999, -999}));
}

TEST_F(ReadinessTest, ARecomputedFunctionIsOneThatTakesWhatItsPartsTake) {
  Tape tape(device_);
  watch(tape);
  Told told(tape, d_x_);
  const Tensor before = multiply(tape, x_[0], x_[1]);
  const Tensor y = tape.recompute(
      "block", [&](Tape& again) { return multiply(again, multiply(again, multiply(again, before, x_[2]), x_[1]), x_[2]); });
  tape.backward(multiply(tape, y, x_[3]), ones_);
  EXPECT_EQ(told.take(), (Order{3, 2, 0, 1}));
}

TEST_F(ReadinessTest, StaysInForceUntilSomethingElseIsTold) {
  Tape tape(device_);
  Told told(tape, d_x_);
  watch(tape);
  tape.clear();
  tape.watch(x_[1], d_x_[1]);
  tape.backward(multiply(tape, x_[1], x_[0]), ones_);
  EXPECT_EQ(told.take(), (Order{1})) << "what was forgotten isn't watched";
  tape.tell({});
  tape.backward(multiply(tape, x_[1], x_[0]), ones_);
  EXPECT_EQ(told.take(), Order{});
}

TEST_F(TapeTest, LetsGoOfMemoryAsItPasses) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  tape.watch(x, poisoned());
  const std::int64_t before = device_->memory().now;
  {
    Tensor y = x;
    for (int i = 0; i < 10; ++i) y = multiply(tape, y, x);
    EXPECT_GT(device_->memory().now, before);
    tape.backward(y, values({1, 1}));
  }
  EXPECT_EQ(device_->memory().now, before);
}

TEST_F(TapeTest, KeepsOutputsOnlyWhereTheyAreSaved) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  tape.watch(x, poisoned());
  Tensor y = multiply(tape, x, x);
  const std::int64_t with = device_->memory().now;
  y = Tensor();
  EXPECT_LT(device_->memory().now, with);
}

TEST_F(TapeTest, RecordsNothingWhenOff) {
  Tape tape(device_, Recording::off);
  const Tensor x = values({2, 3});
  tape.watch(x, poisoned());
  const Tensor y = multiply(tape, x, x);
  EXPECT_FALSE(tape.needs_gradient(y));
  EXPECT_THROW(tape.backward(y, values({1, 1})), LogicError);
}

TEST_F(TapeTest, RefusesToOverwriteWhatBackwardNeeds) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  tape.watch(x, poisoned());
  const Tensor y = multiply(tape, x, x);
  const Tensor z = multiply(tape, y, y);  // saves y
  const auto replace = [&](const Tensor& t) {
    tape.record({.name = "replace", .inputs = {t}, .outputs = {}, .saved = {}, .in_place = {t}}, [](const Backward&) {});
  };
  EXPECT_THROW(replace(y), LogicError);
  EXPECT_THROW(replace(y.view(0, Shape{1})), LogicError) << "a part of it is as bad";
  EXPECT_NO_THROW(replace(z));
}

TEST_F(TapeTest, TakesAGradientLeftInPlace) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  const Tensor d_x = poisoned();
  tape.watch(x, d_x);
  const Tensor y = multiply(tape, x, x);
  const Tensor loss = values({0});
  y.data<double>()[0] = 10;  // the loss's gradient in y's place
  y.data<double>()[1] = 100;
  Use told = Use::write;
  tape.record({.name = "loss", .inputs = {y}, .outputs = {loss}, .saved = {}, .in_place = {y}},
              [&told](const Backward& b) { told = b.use(0); });
  tape.backward(loss);
  EXPECT_EQ(told, Use::skip);
  EXPECT_EQ(list(d_x), (std::vector<double>{40, 600}));
}

TEST_F(TapeTest, RefusesGradientsOfAnotherShape) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  EXPECT_THROW(tape.watch(x, values({1})), LogicError);
  tape.watch(x, poisoned());
  const Tensor y = multiply(tape, x, x);
  EXPECT_THROW(tape.backward(y, values({1})), LogicError);
  EXPECT_THROW(tape.backward(values({1})), LogicError) << "nothing recorded made that";
}

TEST_F(TapeTest, RepeatsItsAddresses) {
  Tape tape(device_);
  const Tensor x = values({2, 3});
  tape.watch(x, poisoned());
  const auto step = [&] {
    const Tensor y = multiply(tape, x, x);
    const Tensor z = multiply(tape, y, x);
    const auto addresses = std::pair(y.data<double>(), z.data<double>());
    tape.backward(z, values({1, 1}));
    return addresses;
  };
  const auto first = step();
  EXPECT_EQ(step(), first);
}

TEST_F(TapeTest, GradientCheckPassesWhatIsRightAndCatchesWhatIsNot) {
  const std::vector<Tensor> inputs = {values({0.5, -1.5}), values({2.0, 0.25})};
  const auto product = [](Tape& tape, std::span<const Tensor> in) { return multiply(tape, multiply(tape, in[0], in[1]), in[0]); };
  EXPECT_EQ(check_gradients(product, inputs), "");

  const auto faulty = [](double factor, Use confused) {
    return [=](Tape& tape, std::span<const Tensor> in) {
      Tensor y = Tensor::like(in[0]);
      for (std::int64_t i = 0; i < 2; ++i) y.data<double>()[i] = 3.0 * in[0].data<double>()[i] + in[1].data<double>()[i];
      tape.record({.name = "faulty", .inputs = {in[0], in[1]}, .outputs = {y}, .saved = {}}, [=](const Backward& b) {
        for (std::size_t input = 0; input < 2; ++input) {
          if (b.use(input) == Use::skip) continue;
          for (std::int64_t i = 0; i < 2; ++i) {
            double& target = b.d_input<double>(input)[i];
            const double d = (input == 0 ? factor : 1.0) * b.d_output<double>(0)[i];
            target = b.use(input) == Use::add && confused != Use::add ? target + d : d;
          }
        }
      });
      return y;
    };
  };
  EXPECT_EQ(check_gradients(faulty(3.0, Use::skip), inputs), "");
  EXPECT_NE(check_gradients(faulty(3.001, Use::skip), inputs), "") << "a wrong factor";
  EXPECT_NE(check_gradients(faulty(std::nan(""), Use::skip), inputs), "") << "NaN";
  EXPECT_NE(check_gradients(faulty(3.0, Use::add), inputs), "") << "add that writes";
}

}  // namespace
}  // namespace lathe
