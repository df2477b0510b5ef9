// Tape::recompute: a function that is run again in backward.
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "lathe/runtime/error.h"
#include "lathe/runtime/gradient_check.h"
#include "tests/runtime/multiply.h"

namespace lathe {
namespace {

/// Declares that it puts a gradient in x's place.
Tensor overwrite(Tape& tape, const Tensor& x) {
  Tensor y = Tensor::zeros(x.device(), x.dtype(), Shape{});
  tape.record({.name = "overwrite", .inputs = {x}, .outputs = {y}, .saved = {x}, .in_place = {x}}, [](const Backward&) {});
  return y;
}

class RecomputeTest : public testing::Test {
 protected:
  Tensor values(std::initializer_list<double> list) const {
    return Tensor::from<double>(device_, std::span(list.begin(), list.size()), Shape{static_cast<std::int64_t>(list.size())});
  }
  static std::vector<double> list(const Tensor& x) { return {x.data<double>(), x.data<double>() + x.size()}; }
  /// x^2 w.
  static Tensor square(Tape& tape, const Tensor& x, const Tensor& w) { return multiply(tape, multiply(tape, x, w), x); }

  DeviceRef device_ = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 24});
  Tensor x_ = values({2, 3});
  Tensor w_ = values({5, 7});
  Tensor d_x_ = values({-999, -999});
  Tensor d_w_ = values({-999, -999});
  Tensor ones_ = values({1, 1});
};

TEST_F(RecomputeTest, GradientsByCentralDifferences) {
  const std::vector<Tensor> inputs = {values({0.3, -1.2, 2.0}), values({0.7, 0.4, -1.5})};
  // x twice in the function, and once after it; w, as a tied parameter, before, twice within and after.
  const auto once = [](Tape& tape, std::span<const Tensor> in) {
    const Tensor before = multiply(tape, in[0], in[1]);
    const Tensor y = tape.recompute("f", [before, x = in[0], w = in[1]](Tape& again) {
      return multiply(again, square(again, x, w), multiply(again, before, w));
    });
    return multiply(tape, multiply(tape, y, in[1]), in[0]);
  };
  EXPECT_EQ(check_gradients(once, inputs), "");
  const auto nested = [](Tape& tape, std::span<const Tensor> in) {
    return tape.recompute("outer", [x = in[0], w = in[1]](Tape& again) {
      const Tensor inner = again.recompute("inner", [x, w](Tape& third) { return square(third, x, w); });
      return multiply(again, inner, multiply(again, x, w));
    });
  };
  EXPECT_EQ(check_gradients(nested, inputs), "");
}

TEST_F(RecomputeTest, FindsWhatTheFunctionTakesAndWritesOrAdds) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  tape.watch(w_, d_w_);
  for (int pass = 0; pass < 2; ++pass) {
    tape.backward(multiply(tape, tape.recompute("f", [this](Tape& again) { return square(again, x_, w_); }), x_),
                  ones_);  // x^3 w
    EXPECT_EQ(list(d_x_), (std::vector<double>{3 * 4 * 5, 3 * 9 * 7}));
    EXPECT_EQ(list(d_w_), (std::vector<double>{8, 27})) << "nothing is left of what was there";
  }
  tape.watch(x_, d_x_, Use::add);
  tape.watch(w_, d_w_, Use::add);
  tape.backward(tape.recompute("f", [this](Tape& again) { return square(again, x_, w_); }), ones_);  // a later micro-batch
  EXPECT_EQ(list(d_x_), (std::vector<double>{60 + 20, 189 + 42}));
  EXPECT_EQ(list(d_w_), (std::vector<double>{8 + 4, 27 + 9}));
}

TEST_F(RecomputeTest, WhatNobodyAskedForIsSkipped) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  int runs = 0;
  const auto counted = [&](const Tensor& a, const Tensor& b) {
    return tape.recompute("f", [&runs, a, b](Tape& again) {
      ++runs;
      return multiply(again, a, b);
    });
  };
  EXPECT_FALSE(tape.needs_gradient(counted(w_, w_)));
  const Tensor y = counted(x_, w_);
  EXPECT_TRUE(tape.needs_gradient(y));
  counted(x_, x_);  // nothing uses it
  EXPECT_EQ(runs, 3);
  tape.backward(y, ones_);
  EXPECT_EQ(runs, 4) << "the one that leads to the result, once more";
  EXPECT_EQ(list(d_x_), (std::vector<double>{5, 7}));
  EXPECT_EQ(list(d_w_), (std::vector<double>{-999, -999}));

  Tape off(device_, Recording::off);
  EXPECT_EQ(list(off.recompute("f",
                               [&](Tape& same) {
                                 EXPECT_EQ(&same, &off);
                                 return multiply(same, x_, w_);
                               })),
            (std::vector<double>{10, 21}));
}

TEST_F(RecomputeTest, AResultThatWasThereBeforeKeepsItsGradient) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  Tensor y = multiply(tape, x_, w_);
  const Tensor same = tape.recompute("nothing", [&](Tape& again) {
    multiply(again, x_, x_);  // takes something, of which nothing comes
    return y;
  });
  EXPECT_EQ(same.id(), y.id());
  tape.backward(same, ones_);
  EXPECT_EQ(list(d_x_), (std::vector<double>{5, 7}));
}

TEST_F(RecomputeTest, AResultThatTakesNothingHasNoGradientToGive) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  tape.watch(w_, d_w_);
  const Tensor y = tape.recompute("constant", [&](Tape& again) {
    multiply(again, x_, x_);
    return Tensor::like(x_);
  });
  tape.backward(multiply(tape, y, w_), ones_);
  EXPECT_EQ(list(d_x_), (std::vector<double>{0, 0}));
}

TEST_F(RecomputeTest, KeepsNothingButTheResult) {
  Tape tape(device_);
  const std::int64_t elements = 1000;
  const Tensor x = Tensor::zeros(device_, DType::f64, Shape{elements});
  const Tensor d_x = Tensor::like(x);
  tape.watch(x, d_x);
  const auto cube = [](Tape& on, const Tensor& y) {
    Tensor result = y;
    for (int i = 0; i < 8; ++i) result = multiply(on, result, y);
    return result;
  };
  const std::int64_t before = device_->memory().now;
  Tensor y = tape.recompute("cube", [&](Tape& again) { return cube(again, x); });
  const std::int64_t one = device_->memory().now - before;
  EXPECT_LT(one, 2 * elements * 8) << "one result";
  tape.clear();
  tape.watch(x, d_x);
  y = Tensor();
  EXPECT_EQ(device_->memory().now, before);
  y = cube(tape, x);
  EXPECT_EQ(device_->memory().now - before, 8 * one) << "a result for each function";
}

TEST_F(RecomputeTest, PeaksAtWhatOneFunctionNeeds) {
  const std::int64_t elements = 1000;
  const auto peak = [&](bool again) {
    const DeviceRef device = Device::cpu({.threads = 1, .target = {}, .reserved_bytes = 1 << 24});
    const Tensor x = Tensor::zeros(device, DType::f64, Shape{elements});
    const Tensor d_x = Tensor::like(x);
    const Tensor ones = Tensor::like(x);
    Tape tape(device);
    tape.watch(x, d_x);
    Tensor y = x;
    for (int block = 0; block < 5; ++block) {
      const auto fourth = [y](Tape& on) {
        Tensor result = y;
        for (int i = 0; i < 4; ++i) result = multiply(on, result, result);
        return result;
      };
      y = again ? tape.recompute("fourth", fourth) : fourth(tape);
    }
    tape.backward(y, ones);
    return device->memory().peak;
  };
  const std::int64_t tensor = (elements * 8 + 64 + 63) / 64 * 64;
  // Without: 20 results; with: 5, and 4 of the last block. Its input's gradient is there before it runs.
  EXPECT_EQ(peak(false) - peak(true), 20 * tensor - (5 + 4) * tensor);
}

TEST_F(RecomputeTest, RefusesToOverwriteWhatIsSaved) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  const Tensor y = multiply(tape, x_, w_);
  const Tensor z = tape.recompute("f", [&](Tape& again) { return multiply(again, y, w_); });
  EXPECT_THROW(overwrite(tape, y), LogicError) << "the second run reads it";
  // Within the function: what comes from outside, and what the function itself saves.
  EXPECT_THROW(tape.recompute("f", [&](Tape& again) { return overwrite(again, y); }), LogicError);
  tape.backward(z, ones_);
  const auto own = [&](Tape& again) {
    const Tensor a = multiply(again, x_, w_);
    Tensor b = multiply(again, a, a);
    overwrite(again, a);
    return b;
  };
  EXPECT_THROW(tape.backward(tape.recompute("f", own), ones_), LogicError);
}

TEST_F(RecomputeTest, AnExceptionLeavesTheTapeInOrder) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  tape.watch(w_, d_w_);
  const std::int64_t before = device_->memory().now;
  EXPECT_THROW(tape.recompute("f",
                              [&](Tape& again) -> Tensor {
                                multiply(again, x_, w_);
                                throw std::runtime_error("the first run");
                              }),
               std::runtime_error);
  EXPECT_EQ(device_->memory().now, before);
  int runs = 0;
  const auto fails_later = [&](Tape& again) {
    Tensor y = square(again, x_, w_);
    if (++runs == 2) throw std::runtime_error("the second run");
    return y;
  };
  EXPECT_THROW(tape.backward(multiply(tape, tape.recompute("f", fails_later), x_), ones_), std::runtime_error);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(device_->memory().now, before);
  tape.backward(tape.recompute("f", fails_later), ones_);
  EXPECT_EQ(list(d_x_), (std::vector<double>{20, 42}));
  EXPECT_EQ(list(d_w_), (std::vector<double>{4, 9}));
  EXPECT_EQ(device_->memory().now, before);
}

TEST_F(RecomputeTest, RefusesWhatCouldNotBeRecomputed) {
  Tape tape(device_);
  tape.watch(x_, d_x_);
  tape.watch(w_, d_w_);
  EXPECT_THROW(tape.recompute("outside", [&](Tape&) { return multiply(tape, x_, w_); }), LogicError);
  EXPECT_THROW(
      tape.recompute("outside", [&](Tape&) { return tape.recompute("f", [&](Tape& again) { return multiply(again, x_, w_); }); }),
      LogicError);
  int runs = 0;
  const auto takes_more = [&](Tape& again) { return multiply(again, x_, ++runs == 1 ? ones_ : w_); };
  EXPECT_THROW(tape.backward(tape.recompute("more", takes_more), ones_), LogicError);
  runs = 0;
  const auto gives_back = [&](Tape& again) {
    const Tensor y = multiply(again, x_, w_);
    return ++runs == 1 ? y : x_;
  };
  EXPECT_THROW(tape.backward(tape.recompute("back", gives_back), ones_), LogicError);
  // A loss, whose backward starts without a gradient.
  EXPECT_THROW(tape.backward(tape.recompute("loss", [&](Tape& again) { return multiply(again, x_, w_); })), LogicError);
  tape.backward(tape.recompute("f", [&](Tape& again) { return multiply(again, x_, w_); }), ones_);
  EXPECT_EQ(list(d_x_), (std::vector<double>{5, 7}));
}

}  // namespace
}  // namespace lathe
