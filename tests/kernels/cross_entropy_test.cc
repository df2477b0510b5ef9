#include "lathe/kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class Case>
class CrossEntropyTest : public ::testing::Test {};
TYPED_TEST_SUITE(CrossEntropyTest, Cases, CaseNames);

/// Rows of logits, [R, V], and what is wanted of them.
template <class T>
struct Batch {
  std::int64_t rows, classes;
  std::vector<T> logits;
  std::vector<std::int32_t> labels;
  std::vector<T> weights;  ///< or empty
  double smoothing = 0.0;
  Accumulator<T> scale{0.25};
};

template <class F>
struct Result {
  std::vector<F> loss, gradient;
};

/// The contract's formulas as they stand, in F.
template <class F, class T>
Result<F> by_definition(const Batch<T>& batch) {
  Result<F> result{std::vector<F>(static_cast<std::size_t>(batch.rows), 0), std::vector<F>(batch.logits.size(), 0)};
  const auto classes = static_cast<std::size_t>(batch.classes);
  const auto smoothing = static_cast<F>(batch.smoothing);
  const F every = smoothing / static_cast<F>(classes);
  const auto scale = static_cast<F>(batch.scale);
  std::vector<F> p(classes);
  std::vector<F> log_p(classes);
  for (std::size_t r = 0; r < result.loss.size(); ++r) {
    const std::int32_t y = batch.labels[r];
    if (y < 0 || y >= batch.classes) continue;
    const auto label = static_cast<std::size_t>(y);
    const T* x = batch.logits.data() + r * classes;
    auto largest = static_cast<F>(x[0]);
    for (std::size_t c = 0; c < classes; ++c) largest = std::max(largest, static_cast<F>(x[c]));
    F sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += std::exp(static_cast<F>(x[c]) - largest);
    F loss = 0;
    F total = 0;
    const auto weight = [&batch](std::size_t c) { return batch.weights.empty() ? F{1} : static_cast<F>(batch.weights[c]); };
    for (std::size_t c = 0; c < classes; ++c) {
      log_p[c] = static_cast<F>(x[c]) - largest - std::log(sum);
      p[c] = std::exp(static_cast<F>(x[c]) - largest) / sum;
      total += weight(c);
      if (every != 0) loss -= every * weight(c) * log_p[c];
    }
    loss -= (1 - smoothing) * weight(label) * log_p[label];
    result.loss[r] = scale * loss;
    for (std::size_t c = 0; c < classes; ++c) {
      F gradient = p[c] * ((1 - smoothing) * weight(label) + every * total) - every * weight(c);
      if (c == label) gradient -= (1 - smoothing) * weight(label);
      result.gradient[r * classes + c] = scale * gradient;
    }
  }
  return result;
}

/// Runs the kernel on rows of V + `padding` columns, NaN in the padding, and checks what it does there. Outputs: "loss" [R] and, of training,
/// "gradient" [R, V].
template <class Stream, class T>
Outputs run(Stream stream, const Batch<T>& batch, LogitsGradient gradient, std::int64_t padding) {
  const std::int64_t stride = batch.classes + padding;
  std::vector<T> padded(static_cast<std::size_t>(batch.rows * stride), static_cast<T>(std::numeric_limits<double>::quiet_NaN()));
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    std::copy_n(batch.logits.begin() + r * batch.classes, batch.classes, padded.begin() + r * stride);
  }
  Buffer<T, Stream> logits(padded);
  Buffer<Accumulator<T>, Stream> loss(batch.rows);
  const Buffer<std::int32_t, Stream> labels(batch.labels);
  const Buffer<T, Stream> weights(batch.weights);
  const Buffer<Accumulator<T>, Stream> scale(std::vector<Accumulator<T>>{batch.scale});
  cross_entropy(stream, CrossEntropy<T>{.logits = logits.data(),
                                        .loss = loss.data(),
                                        .labels = labels.data(),
                                        .class_weights = batch.weights.empty() ? nullptr : weights.data(),
                                        .scale = scale.data(),
                                        .label_smoothing = batch.smoothing,
                                        .gradient = gradient,
                                        .rows = batch.rows,
                                        .classes = batch.classes,
                                        .stride = stride});
  Outputs outputs;
  outputs.add("loss", loss.values("loss"));
  const std::vector<T> after = logits.values("logits");
  if (gradient == LogitsGradient::none) {
    for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(bits(after[i]), bits(padded[i])) << "logits, index " << i;
    return outputs;
  }
  std::vector<T> compact;
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    const auto row = after.begin() + r * stride;
    compact.insert(compact.end(), row, row + batch.classes);
    for (std::int64_t c = batch.classes; c < stride; ++c) {
      EXPECT_EQ(static_cast<double>(row[c]), 0.0) << "padding of row " << r << ", column " << c;
    }
  }
  outputs.add("gradient", compact);
  return outputs;
}

template <class Stream, class T>
void expect_right(const Batch<T>& batch, std::int64_t padding, const std::string& what) {
  SCOPED_TRACE(std::to_string(batch.rows) + " x " + std::to_string(batch.classes) + ", " + what);
  using A = Accumulator<T>;
  const Result<Reference<T>> exact = by_definition<Reference<T>>(batch);
  const Result<Plain<T>> plain = by_definition<Plain<T>>(batch);
  on_every_way<Stream>(
      [&](Stream stream) {
        Outputs outputs = run(stream, batch, LogitsGradient::in_place, padding);
        outputs.add("loss without gradient", run(stream, batch, LogitsGradient::none, padding).template get<A>("loss"));
        return outputs;
      },
      [&](const Outputs& outputs) {
        const std::vector<A>& loss = outputs.get<A>("loss");
        expect_accurate<A>("loss", loss, plain.loss, exact.loss);
        expect_accurate<T>("gradient", outputs.get<T>("gradient"), plain.gradient, exact.gradient);
        const std::vector<A>& evaluated = outputs.get<A>("loss without gradient");
        for (std::size_t r = 0; r < loss.size(); ++r) EXPECT_EQ(bits(loss[r]), bits(evaluated[r])) << "loss of row " << r;
      });
}

template <class T>
Batch<T> random_batch(std::int64_t rows, std::int64_t classes, double deviation) {
  Batch<T> batch{.rows = rows,
                 .classes = classes,
                 .logits = random_values<T>(rows * classes, static_cast<unsigned>(classes), 0.0, deviation),
                 .labels = {},
                 .weights = {}};
  const std::array<std::int32_t, 4> ignored{-100, -1, static_cast<std::int32_t>(classes),
                                            std::numeric_limits<std::int32_t>::max()};
  std::mt19937 random(1);
  for (std::int64_t r = 0; r < rows; ++r) {
    batch.labels.push_back(r % 5 == 4 ? ignored[static_cast<std::size_t>(r / 5) % 4]
                                      : static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(classes)));
  }
  return batch;
}

template <class T>
std::vector<T> class_weights(std::int64_t classes) {
  std::vector<T> weights;
  for (std::int64_t c = 0; c < classes; ++c) weights.push_back(static_cast<T>(1.0 / static_cast<double>(1 + c % 4)));
  return weights;
}

TYPED_TEST(CrossEntropyTest, IsExactEnough) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t classes : {2, 3, 17, 64, 129, 1000}) {
    for (const std::int64_t rows : {0, 1, 37}) {
      for (const double smoothing : {0.0, 0.1}) {
        for (const bool weighted : {false, true}) {
          Batch<T> batch = random_batch<T>(rows, classes, 3.0);
          batch.smoothing = smoothing;
          if (weighted) batch.weights = class_weights<T>(classes);
          const std::string what = "smoothing " + std::to_string(smoothing) + (weighted ? ", weights" : "");
          expect_right<Stream>(batch, 0, what);
          expect_right<Stream>(batch, 13, what + ", padding");
        }
      }
    }
  }
}

// Rows that a block of CUDA threads shares, of every size, in shared memory and too long for it.
TYPED_TEST(CrossEntropyTest, IsExactEnoughForLongRows) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  for (const std::int64_t classes : {1024, 1025, 4099, 33000, 50001, 90001}) {
    for (const double smoothing : {0.0, 0.1}) {
      Batch<T> batch = random_batch<T>(classes < 5000 ? 6 : 2, classes, 2.0);
      batch.smoothing = smoothing;
      expect_right<Stream>(batch, 3, "smoothing " + std::to_string(smoothing));
      if (smoothing != 0.0) {
        batch.weights = class_weights<T>(classes);
        expect_right<Stream>(batch, 0, "smoothing and weights");
      }
    }
  }
}

TYPED_TEST(CrossEntropyTest, IsExactEnoughForAVocabulary) {
  using T = typename TypeParam::T;
  expect_right<typename TypeParam::Stream>(random_batch<T>(9, 30522, 2.0), 6, "BERT's vocabulary");
}

TYPED_TEST(CrossEntropyTest, TakesTheLargestVocabulary) {
  using T = typename TypeParam::T;
  expect_right<typename TypeParam::Stream>(random_batch<T>(2, 250000, 2.0), 2, "250,000 classes");
}

TYPED_TEST(CrossEntropyTest, KeepsItsAccuracyForConfidentRows) {
  // p = 0.999... of the label: p - 1 must not be formed from a p that was rounded to the logits' place.
  using T = typename TypeParam::T;
  Batch<T> batch = random_batch<T>(30, 50, 1.0);
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    const std::int32_t label = batch.labels[static_cast<std::size_t>(r)];
    if (label >= 0 && label < 50) batch.logits[at(r, label, 50)] = static_cast<T>(static_cast<double>(r));
  }
  expect_right<typename TypeParam::Stream>(batch, 0, "confident rows");
}

// bf16's p would be 1 from 0.998 on, and the gradient 0: it must be right to bf16's own precision.
TYPED_TEST(CrossEntropyTest, ALabelsGradientIsRoundedOnce) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Batch<T> batch{.rows = 3, .classes = 2, .logits = {}, .labels = {0, 0, 1}, .weights = {}};
  for (const double logit : {4.0, -4.0, 8.0, 0.0, 1.0, 8.0}) batch.logits.push_back(static_cast<T>(logit));
  const Result<Reference<T>> exact = by_definition<Reference<T>>(batch);
  on_every_way<Stream>([&](Stream stream) { return run(stream, batch, LogitsGradient::in_place, 0); },
                       [&](const Outputs& outputs) {
                         const std::vector<T>& gradient = outputs.get<T>("gradient");
                         for (std::size_t i = 0; i < gradient.size(); ++i) {
                           // 1 - p is at least 3.3e-4, and p has an error of 1e-7 in fp32.
                           const auto tolerance = static_cast<Reference<T>>(epsilon_of<T>() / 2) + 4e-4F;
                           EXPECT_NEAR(static_cast<double>(gradient[i]), static_cast<double>(exact.gradient[i]),
                                       static_cast<double>(tolerance * std::abs(exact.gradient[i])))
                               << i;
                         }
                       });
}

TYPED_TEST(CrossEntropyTest, OneClassIsCertain) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Batch<T> batch{.rows = 2, .classes = 1, .logits = {T(3.0), T(-7.0)}, .labels = {0, 0}, .weights = {T(0.5)}};
  batch.smoothing = 0.1;
  on_every_way<Stream>([&](Stream stream) { return run(stream, batch, LogitsGradient::in_place, 0); },
                       [&](const Outputs& outputs) {
                         for (const auto loss : outputs.get<Accumulator<T>>("loss")) {
                           EXPECT_GE(loss, 0);
                           EXPECT_LE(loss, std::numeric_limits<Accumulator<T>>::epsilon());
                         }
                         for (const Plain<T> gradient : plain_values(outputs.get<T>("gradient"))) {
                           EXPECT_LE(std::abs(gradient), std::numeric_limits<Plain<T>>::epsilon());
                         }
                       });
}

TYPED_TEST(CrossEntropyTest, TakesExtremeLogits) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  Batch<T> batch{.rows = 4, .classes = 3, .logits = {}, .labels = {0, 1, 2, 2}, .weights = {}};
  for (const double logit : {1e4, -1e4, 0.0, 1e4, -1e4, 0.0, 1e4, 1e4, 1e4, -1e4, -1e4, -1e4 + 1}) {
    batch.logits.push_back(static_cast<T>(logit));
  }
  expect_right<Stream>(batch, 0, "extreme logits");
  batch.smoothing = 0.1;
  expect_right<Stream>(batch, 1, "extreme logits, smoothed");
}

TYPED_TEST(CrossEntropyTest, ALogitThatIsNotFiniteSpoilsItsRowAlone) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double bad : {kInfinity, -kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    for (const std::int64_t classes : {2, 40, 1500}) {
      for (const std::int64_t column : {std::int64_t{0}, classes - 1}) {
        SCOPED_TRACE(::testing::Message() << bad << " in column " << column << " of " << classes);
        Batch<T> batch = random_batch<T>(4, classes, 1.0);
        batch.labels = {0, 0, 0, -100};
        batch.logits[at(1, column, classes)] = static_cast<T>(bad);
        batch.logits[at(3, column, classes)] = static_cast<T>(bad);
        on_every_way<Stream>([&](Stream stream) { return run(stream, batch, LogitsGradient::in_place, 2); },
                             [&](const Outputs& outputs) {
                               const auto& loss = outputs.get<Accumulator<T>>("loss");
                               const std::vector<Plain<T>> gradient = plain_values(outputs.get<T>("gradient"));
                               for (std::int64_t r = 0; r < 4; ++r) {
                                 EXPECT_EQ(std::isnan(loss[static_cast<std::size_t>(r)]), r == 1) << "row " << r;
                                 for (std::int64_t c = 0; c < classes; ++c) {
                                   const Plain<T> value = gradient[at(r, c, classes)];
                                   EXPECT_EQ(std::isnan(value), r == 1) << "row " << r << ", column " << c;
                                   EXPECT_TRUE(r != 3 || value == 0) << "an ignored row";
                                 }
                               }
                               EXPECT_EQ(loss[3], 0) << "an ignored row";
                             });
      }
    }
  }
}

/// Made with torch.nn.functional.cross_entropy (PyTorch 2, float64, reduction "none", ignore_index -100, times 0.25) and autograd.
TYPED_TEST(CrossEntropyTest, AgreesWithTorch) {
  using Stream = typename TypeParam::Stream;
  using T = typename TypeParam::T;
  struct Case {
    double smoothing;
    bool weighted;
    std::array<double, 3> loss;
    std::array<double, 12> gradient;
  };
  const std::array<Case, 4> cases{
      {{0.0,
        false,
        {0.08682819744926393, 0.0, 0.4204183851621864},
        {0.03941506596315927, 0.006849311443777603, -0.07335392966625523, 0.02708955225931833, 0.0, 0.0, 0.0, 0.0,
         0.0049027063904027775, -0.20348441688463162, 0.03622637255527191, 0.16235533793895693}},
       {0.1,
        false,
        {0.12823444744926393, 0.0, 0.4282308851621864},
        {0.03316506596315927, 0.0005993114437776023, -0.05460392966625524, 0.020839552259318328, 0.0, 0.0, 0.0, 0.0,
         -0.0013472936095972228, -0.18473441688463163, 0.029976372555271913, 0.15610533793895692}},
       {0.0,
        true,
        {0.10853524681157992, 0.0, 0.8408367703243728},
        {0.049268832453949085, 0.008561639304722004, -0.09169241208281903, 0.03386194032414791, 0.0, 0.0, 0.0, 0.0,
         0.009805412780805555, -0.40696883376926324, 0.07245274511054382, 0.32471067587791386}},
       {0.1,
        true,
        {0.16155145684346411, 0.0, 0.8071751616226814},
        {0.04565114412940959, -0.0040239770883252176, -0.07046298796199084, 0.028835820920906433, 0.0, 0.0, 0.0, 0.0,
         0.0062514259716453125, -0.373538947291858, 0.061470437511957535, 0.3058170838082551}}}};
  for (const Case& expected : cases) {
    Batch<T> batch{.rows = 3, .classes = 4, .logits = {}, .labels = {2, -100, 1}, .weights = {}};
    for (const double logit : {0.5, -1.25, 2.0, 0.125, 3.0, 3.5, -0.75, 1.0, -2.0, 0.25, 0.0, 1.5}) {
      batch.logits.push_back(static_cast<T>(logit));
    }
    batch.smoothing = expected.smoothing;
    if (expected.weighted) batch.weights = {T(0.5), T(2.0), T(1.25), T(0.75)};
    on_every_way<Stream>([&](Stream stream) { return run(stream, batch, LogitsGradient::in_place, 0); },
                         [&](const Outputs& outputs) {
                           const auto& loss = outputs.get<Accumulator<T>>("loss");
                           const std::vector<T>& gradient = outputs.get<T>("gradient");
                           const double tolerance = 4.0 * epsilon_of<Accumulator<T>>();
                           for (std::size_t i = 0; i < 3; ++i)
                             EXPECT_NEAR(static_cast<double>(loss[i]), expected.loss[i], tolerance);
                           for (std::size_t i = 0; i < 12; ++i) {
                             // bf16 rounds the result once more: by half its epsilon at most.
                             const double rounding =
                                 std::is_same_v<T, Bf16> ? std::abs(expected.gradient[i]) * epsilon_of<T>() / 2 : 0;
                             EXPECT_NEAR(static_cast<double>(gradient[i]), expected.gradient[i], tolerance + rounding) << i;
                           }
                         });
  }
}

}  // namespace
}  // namespace lathe::test
