#include "lathe/layers/functions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lathe/runtime/error.h"
#include "lathe/runtime/gradient_check.h"
#include "lathe/runtime/random.h"
#include "tests/layers/small_batch.h"

namespace lathe {
namespace {

class FunctionsTest : public testing::Test {
 protected:
  Tensor random(const Shape& shape, double scale = 1.0) {
    const RandomNumbers numbers(1, RandomUse::initial_weights, ++streams_);
    Tensor x = Tensor::empty(device_, DType::f64, shape);
    for (std::int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] = scale * numbers.normal(static_cast<std::uint64_t>(i));
    return x;
  }

  DeviceRef device_ = Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 26});
  Batch batch_ = small_batch(device_, DType::f64, RandomKey{.seed = 9, .step = 4});
  Batch evaluation_ = small_batch(device_, DType::f64, std::nullopt);
  std::uint32_t streams_ = 0;
};

TEST_F(FunctionsTest, LinearGradients) {
  const std::vector<Tensor> inputs = {random({7, 5}), random({3, 5}), random({3})};
  const auto with_bias = [](Tape& tape, std::span<const Tensor> in) { return linear(tape, in[0], in[1], in[2]); };
  EXPECT_EQ(check_gradients(with_bias, inputs), "");
  const auto without = [](Tape& tape, std::span<const Tensor> in) { return linear(tape, in[0], in[1], Tensor()); };
  EXPECT_EQ(check_gradients(without, std::span(inputs).first(2)), "");
  // The weight twice: its gradient is written, then added to.
  const std::vector<Tensor> square = {random({4, 3}), random({3, 3})};
  const auto twice = [](Tape& tape, std::span<const Tensor> in) {
    return linear(tape, linear(tape, in[0], in[1], Tensor()), in[1], Tensor());
  };
  EXPECT_EQ(check_gradients(twice, square), "");
}

TEST_F(FunctionsTest, ActivationGradients) {
  for (const Activation activation :
       {Activation::gelu_erf, Activation::gelu_tanh, Activation::relu, Activation::tanh, Activation::sigmoid, Activation::silu}) {
    const std::vector<Tensor> inputs = {random({9, 6}), random({6})};
    const auto f = [&](Tape& tape, std::span<const Tensor> in) { return activate(tape, in[0], in[1], activation); };
    EXPECT_EQ(check_gradients(f, inputs), "") << static_cast<int>(activation);
    const auto plain = [&](Tape& tape, std::span<const Tensor> in) { return activate(tape, in[0], Tensor(), activation); };
    EXPECT_EQ(check_gradients(plain, std::span(inputs).first(1)), "") << static_cast<int>(activation);
  }
}

TEST_F(FunctionsTest, DropoutGradientsAndShare) {
  const std::vector<Tensor> inputs = {random({9, 16})};
  const DropoutSite site{.site = 3, .probability = 0.4};
  EXPECT_EQ(
      check_gradients([&](Tape& tape, std::span<const Tensor> in) { return dropout(tape, in[0], batch_, RowKind::tokens, site); },
                      inputs),
      "");
  Tape tape(device_);
  EXPECT_EQ(dropout(tape, inputs[0], evaluation_, RowKind::tokens, site).id(), inputs[0].id())
      << "nothing is dropped without a key";
  EXPECT_EQ(dropout(tape, inputs[0], batch_, RowKind::tokens, {.site = 3, .probability = 0.0}).id(), inputs[0].id());
  EXPECT_THROW(dropout(tape, inputs[0], batch_, RowKind::tokens, {.site = 3, .probability = 1.0}), LogicError);
  EXPECT_THROW(dropout(tape, inputs[0], batch_, RowKind::labelled, site), LogicError)
      << "nine rows aren't the three labelled ones";
}

TEST_F(FunctionsTest, LayerNormGradients) {
  const std::vector<Tensor> inputs = {random({9, 8}), random({8}), random({9, 8}), random({8}), random({8})};
  for (const double p : {0.0, 0.3}) {
    const auto fused = [&](Tape& tape, std::span<const Tensor> in) {
      return layer_norm(tape, in[0], in[1], in[2], in[3], in[4], 1e-5, batch_, RowKind::tokens, {.site = 1, .probability = p});
    };
    EXPECT_EQ(check_gradients(fused, inputs), "") << p;
  }
  const std::vector<Tensor> plain_inputs = {inputs[0], inputs[3], inputs[4]};
  const auto plain = [&](Tape& tape, std::span<const Tensor> in) {
    return layer_norm(tape, in[0], Tensor(), Tensor(), in[1], in[2], 1e-5, evaluation_, RowKind::tokens, {});
  };
  EXPECT_EQ(check_gradients(plain, plain_inputs), "");
  // One tensor as x and as residual.
  const auto doubled = [&](Tape& tape, std::span<const Tensor> in) {
    return layer_norm(tape, in[0], Tensor(), in[0], in[1], in[2], 1e-5, evaluation_, RowKind::tokens, {});
  };
  EXPECT_EQ(check_gradients(doubled, plain_inputs), "");
}

TEST_F(FunctionsTest, EmbeddingGradients) {
  const std::vector<Tensor> inputs = {random({6, 8}), random({7, 8}), random({2, 8}), random({8}), random({8})};
  for (const double p : {0.0, 0.3}) {
    const auto f = [&](Tape& tape, std::span<const Tensor> in) {
      return embed(tape, {.words = in[0], .positions = in[1], .types = in[2], .gamma = in[3], .beta = in[4]}, batch_, 1e-5,
                   {.site = 0, .probability = p});
    };
    EXPECT_EQ(check_gradients(f, inputs), "") << p;
  }
  const auto bare = [&](Tape& tape, std::span<const Tensor> in) {
    return embed(tape, {.words = in[0], .positions = in[1], .types = {}, .gamma = {}, .beta = {}}, batch_, 1e-5,
                 {.site = 0, .probability = 0.3});
  };
  EXPECT_EQ(check_gradients(bare, std::span(inputs).first(2)), "");
}

TEST_F(FunctionsTest, AttentionGradients) {
  const std::vector<Tensor> inputs = {random({9, 24})};
  for (const double p : {0.0, 0.3}) {
    for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
      const auto f = [&](Tape& tape, std::span<const Tensor> in) {
        return attend(tape, in[0], batch_, {.heads = 2, .mask = mask, .layer = 1, .dropout = p});
      };
      EXPECT_EQ(check_gradients(f, inputs), "") << p << " " << static_cast<int>(mask);
    }
  }
}

TEST_F(FunctionsTest, GatherGradients) {
  const std::vector<Tensor> inputs = {random({9, 4})};
  const auto f = [&](Tape& tape, std::span<const Tensor> in) { return gather_rows(tape, in[0], batch_); };
  EXPECT_EQ(check_gradients(f, inputs), "");
  // Its input used beside it: the gradient is added.
  const auto both = [&](Tape& tape, std::span<const Tensor> in) {
    const Tensor rows = gather_rows(tape, in[0], batch_);
    return linear(tape, rows, gather_rows(tape, in[0], batch_), Tensor());
  };
  EXPECT_EQ(check_gradients(both, inputs), "");
}

TEST_F(FunctionsTest, LossGradientsByCentralDifferences) {
  for (const double smoothing : {0.0, 0.2}) {
    for (const bool weighted : {false, true}) {
      const LossSettings settings{
          .label_smoothing = smoothing,
          .class_weights = weighted ? Tensor::from<double>(device_, std::vector<double>{0.5, 2.0, 1.0}, {3}) : Tensor(),
          .classes = 0};
      const Tensor hidden = random({3, 4});
      const Tensor weight = random({3, 4});
      const auto loss_of = [&] {
        Tape tape(device_, Recording::off);
        return *cross_entropy_loss(tape, linear(tape, hidden, weight, Tensor()), batch_, settings).data<double>();
      };
      Tape tape(device_);
      const Tensor d_weight = Tensor::like(weight);
      tape.watch(weight, d_weight);
      tape.backward(cross_entropy_loss(tape, linear(tape, hidden, weight, Tensor()), batch_, settings));
      for (std::int64_t i = 0; i < weight.size(); ++i) {
        double& w = weight.data<double>()[i];
        const double before = w;
        w = before + 1e-5;
        const double above = loss_of();
        w = before - 1e-5;
        const double below = loss_of();
        w = before;
        EXPECT_NEAR(d_weight.data<double>()[i], (above - below) / 2e-5, 1e-8);
      }
    }
  }
}

TEST_F(FunctionsTest, LossOfWatchedLogitsLeavesAndAddsGradients) {
  const Tensor logits = random({3, 3});
  const std::vector<double> values(logits.data<double>(), logits.data<double>() + 9);
  const auto gradient_with = [&](Use use, double before) {
    logits.copy_from<double>(values);
    Tape tape(device_);
    const Tensor d = Tensor::like(logits);
    std::fill_n(d.data<double>(), 9, before);
    tape.watch(logits, d, use);
    tape.backward(cross_entropy_loss(tape, logits, batch_, {}));
    return std::vector<double>(d.data<double>(), d.data<double>() + 9);
  };
  const auto written = gradient_with(Use::write, -7.0);
  const auto added = gradient_with(Use::add, 0.5);
  for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(added[i], written[i] + 0.5, 1e-14);
  EXPECT_NEAR(written[0] + written[1] + written[2], 0.0, 1e-14) << "a row's gradients add up to nothing";
}

TEST_F(FunctionsTest, LossRefusesAnUpstreamGradientAndAMissingScale) {
  Tape tape(device_);
  const Tensor logits = random({3, 3});
  tape.watch(logits, Tensor::like(logits));
  const Tensor loss = cross_entropy_loss(tape, logits, batch_, {});
  EXPECT_THROW(tape.backward(loss, Tensor::zeros(device_, DType::f64, Shape{})), LogicError);
  Batch without = batch_;
  without.loss_scale = Tensor();
  EXPECT_THROW(cross_entropy_loss(tape, logits, without, {}), LogicError);
}

TEST_F(FunctionsTest, ShapesThatDoNotFitAreNamed) {
  Tape tape(device_);
  try {
    linear(tape, random({4, 5}), random({3, 6}), Tensor());
    FAIL() << "nothing was thrown";
  } catch (const LogicError& failure) {
    EXPECT_STREQ(failure.what(), "linear: weight is [3, 6], expected [3, 5]");
  }
  EXPECT_THROW(attend(tape, random({9, 24}), batch_, {.heads = 3, .mask = AttentionMask::full, .layer = 0, .dropout = 0.0}),
               LogicError)
      << "8 channels, 3 heads";
  EXPECT_THROW(attend(tape, random({8, 24}), batch_, {.heads = 2, .mask = AttentionMask::full, .layer = 0, .dropout = 0.0}),
               LogicError);
  EXPECT_THROW(gather_rows(tape, random({8, 4}), batch_), LogicError);
  EXPECT_THROW(activate(tape, random({8, 4}), random({3}), Activation::relu), LogicError);
}

}  // namespace
}  // namespace lathe
