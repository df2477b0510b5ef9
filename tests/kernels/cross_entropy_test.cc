#include "lathe/kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/kernels/products_test.h"

namespace lathe::testing {
namespace {

template <class T>
class CrossEntropyTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CrossEntropyTest, Types);

/// Rows of logits, [R, V], and what is wanted of them.
template <class T>
struct Batch {
  std::int64_t rows, classes;
  std::vector<T> logits;
  std::vector<std::int32_t> labels;
  std::vector<T> weights;  ///< or empty
  double smoothing = 0.0;
  T scale{0.25};
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
  const F scale = batch.scale;
  std::vector<F> p(classes);
  std::vector<F> log_p(classes);
  for (std::size_t r = 0; r < result.loss.size(); ++r) {
    const std::int32_t y = batch.labels[r];
    if (y < 0 || y >= batch.classes) continue;
    const auto label = static_cast<std::size_t>(y);
    const T* x = batch.logits.data() + r * classes;
    F largest = x[0];
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

/// Runs the kernel on rows of V + `padding` columns, and checks what it does to the padding and around the buffers.
template <class T>
Result<T> run(CpuStream stream, const Batch<T>& batch, LogitsGradient gradient, std::int64_t padding) {
  const std::int64_t stride = batch.classes + padding;
  Guarded<T> logits(batch.rows * stride);
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    for (std::int64_t c = 0; c < batch.classes; ++c) {
      logits[r * stride + c] = batch.logits[static_cast<std::size_t>(r * batch.classes + c)];
    }
  }
  const std::vector<T> before = logits.copy();
  Guarded<T> loss(batch.rows);
  Guarded<T> weights(static_cast<std::int64_t>(batch.weights.size()), batch.weights);
  cross_entropy(stream, CrossEntropy<T>{.logits = logits.data(),
                                        .loss = loss.data(),
                                        .labels = batch.labels.data(),
                                        .class_weights = batch.weights.empty() ? nullptr : weights.data(),
                                        .scale = &batch.scale,
                                        .label_smoothing = batch.smoothing,
                                        .gradient = gradient,
                                        .rows = batch.rows,
                                        .classes = batch.classes,
                                        .stride = stride});
  logits.expect_guards_whole("logits");
  loss.expect_guards_whole("loss");
  if (gradient == LogitsGradient::none) expect_same_bits(before, logits.copy(), "logits");
  Result<T> result{loss.copy(), {}};
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    for (std::int64_t c = 0; c < batch.classes; ++c) result.gradient.push_back(logits[r * stride + c]);
    for (std::int64_t c = batch.classes; c < stride && gradient == LogitsGradient::in_place; ++c) {
      EXPECT_EQ(logits[r * stride + c], T{0}) << "padding of row " << r;
    }
  }
  return result;
}

template <class T>
void expect_right(const Batch<T>& batch, std::int64_t padding, const std::string& what) {
  const Result<Wide<T>> exact = by_definition<Wide<T>>(batch);
  const Result<T> plain = by_definition<T>(batch);
  const Wide<T> loss_error = largest_error<T>(plain.loss, exact.loss);
  const Wide<T> gradient_error = largest_error<T>(plain.gradient, exact.gradient);
  for (const CpuTarget target : targets()) {
    Result<T> first;
    for (const int threads : {1, 2, 3}) {
      const CpuStream stream{.threads = threads, .target = target, .plans = nullptr};
      const std::string name =
          std::to_string(batch.rows) + " x " + std::to_string(batch.classes) + ", " + what + ", " + name_of(stream);
      const Result<T> trained = run(stream, batch, LogitsGradient::in_place, padding);
      const Result<T> evaluated = run(stream, batch, LogitsGradient::none, padding);
      expect_exact_enough<T>(trained.loss, exact.loss, loss_error, "loss, " + name);
      expect_exact_enough<T>(trained.gradient, exact.gradient, gradient_error, "gradient, " + name);
      expect_same_bits(trained.loss, evaluated.loss, "loss without gradient, " + name);
      if (threads == 1) first = trained;
      expect_same_bits(first.loss, trained.loss, "loss, " + name);
      expect_same_bits(first.gradient, trained.gradient, "gradient, " + name);
    }
  }
}

template <class T>
Batch<T> random_batch(std::mt19937& random, std::int64_t rows, std::int64_t classes, double deviation) {
  Batch<T> batch{.rows = rows,
                 .classes = classes,
                 .logits = normal_values<T>(random, rows * classes, deviation),
                 .labels = {},
                 .weights = {}};
  const std::array<std::int32_t, 4> ignored{-100, -1, static_cast<std::int32_t>(classes),
                                            std::numeric_limits<std::int32_t>::max()};
  for (std::int64_t r = 0; r < rows; ++r) {
    batch.labels.push_back(r % 5 == 4 ? ignored[static_cast<std::size_t>(r / 5) % 4]
                                      : static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(classes)));
  }
  return batch;
}

TYPED_TEST(CrossEntropyTest, IsExactEnough) {
  using T = TypeParam;
  std::mt19937 random(1);
  for (const std::int64_t classes : {2, 3, 17, 64, 129, 1000}) {
    for (const std::int64_t rows : {0, 1, 37}) {
      for (const double smoothing : {0.0, 0.1}) {
        for (const bool weighted : {false, true}) {
          Batch<T> batch = random_batch<T>(random, rows, classes, 3.0);
          batch.smoothing = smoothing;
          if (weighted) {
            for (std::int64_t c = 0; c < classes; ++c) batch.weights.push_back(T{1} / static_cast<T>(1 + c % 4));
          }
          const std::string what = "smoothing " + std::to_string(smoothing) + (weighted ? ", weights" : "");
          expect_right(batch, 0, what);
          expect_right(batch, 13, what + ", padding");
        }
      }
    }
  }
}

TYPED_TEST(CrossEntropyTest, IsExactEnoughForAVocabulary) {
  std::mt19937 random(2);
  expect_right(random_batch<TypeParam>(random, 9, 30522, 2.0), 6, "BERT's vocabulary");
}

TYPED_TEST(CrossEntropyTest, KeepsItsAccuracyForConfidentRows) {
  // p = 0.999... of the label: p - 1 must not be formed from a p that was rounded to the logits' place.
  std::mt19937 random(3);
  Batch<TypeParam> batch = random_batch<TypeParam>(random, 30, 50, 1.0);
  for (std::int64_t r = 0; r < batch.rows; ++r) {
    const std::int32_t label = batch.labels[static_cast<std::size_t>(r)];
    if (label >= 0 && label < 50) batch.logits[static_cast<std::size_t>(r * 50 + label)] = static_cast<TypeParam>(r);
  }
  expect_right(batch, 0, "confident rows");
}

TYPED_TEST(CrossEntropyTest, OneClassIsCertain) {
  using T = TypeParam;
  Batch<T> batch{.rows = 2, .classes = 1, .logits = {T(3), T(-7)}, .labels = {0, 0}, .weights = {T(0.5)}};
  batch.smoothing = 0.1;
  const Result<T> result = run(CpuStream{.target = best_cpu_target()}, batch, LogitsGradient::in_place, 0);
  for (const T loss : result.loss) EXPECT_EQ(loss, T{0});
  for (const T gradient : result.gradient) EXPECT_LE(std::abs(gradient), std::numeric_limits<T>::epsilon());
}

TYPED_TEST(CrossEntropyTest, TakesExtremeLogits) {
  using T = TypeParam;
  Batch<T> batch{.rows = 4,
                 .classes = 3,
                 .logits = {T(1e4), T(-1e4), T(0), T(1e4), T(-1e4), T(0), T(1e4), T(1e4), T(1e4), T(-1e4), T(-1e4), T(-1e4 + 1)},
                 .labels = {0, 1, 2, 2},
                 .weights = {}};
  expect_right(batch, 0, "extreme logits");
  batch.smoothing = 0.1;
  expect_right(batch, 1, "extreme logits, smoothed");
}

TYPED_TEST(CrossEntropyTest, ALogitThatIsNotFiniteSpoilsItsRowAlone) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  for (const T bad : {infinity, -infinity, std::numeric_limits<T>::quiet_NaN()}) {
    for (const std::int64_t classes : {2, 40}) {
      for (const std::int64_t column : {std::int64_t{0}, classes - 1}) {
        for (const CpuTarget target : targets()) {
          std::mt19937 random(4);
          Batch<T> batch = random_batch<T>(random, 4, classes, 1.0);
          batch.labels = {0, 0, 0, -100};
          batch.logits[static_cast<std::size_t>(1 * classes + column)] = bad;
          batch.logits[static_cast<std::size_t>(3 * classes + column)] = bad;
          const CpuStream stream{.threads = 1, .target = target, .plans = nullptr};
          const Result<T> result = run(stream, batch, LogitsGradient::in_place, 2);
          for (std::size_t r = 0; r < 4; ++r) {
            EXPECT_EQ(std::isnan(result.loss[r]), r == 1) << bad << " in row " << r;
            for (std::size_t c = 0; c < static_cast<std::size_t>(classes); ++c) {
              const T gradient = result.gradient[r * static_cast<std::size_t>(classes) + c];
              EXPECT_EQ(std::isnan(gradient), r == 1) << bad << " in row " << r;
              EXPECT_TRUE(r != 3 || gradient == T{0}) << "an ignored row";
            }
          }
          EXPECT_EQ(result.loss[3], T{0}) << "an ignored row";
        }
      }
    }
  }
}

/// Made with torch.nn.functional.cross_entropy (PyTorch 2, float64, reduction "none", ignore_index -100, times 0.25) and autograd.
TYPED_TEST(CrossEntropyTest, AgreesWithTorch) {
  using T = TypeParam;
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
    Batch<T> batch{.rows = 3,
                   .classes = 4,
                   .logits = {T(0.5), T(-1.25), T(2), T(0.125), T(3), T(3.5), T(-0.75), T(1), T(-2), T(0.25), T(0), T(1.5)},
                   .labels = {2, -100, 1},
                   .weights = {}};
    batch.smoothing = expected.smoothing;
    if (expected.weighted) batch.weights = {T(0.5), T(2), T(1.25), T(0.75)};
    const double tolerance = 4.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (const CpuTarget target : targets()) {
      const CpuStream stream{.threads = 1, .target = target, .plans = nullptr};
      const Result<T> result = run(stream, batch, LogitsGradient::in_place, 0);
      for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(static_cast<double>(result.loss[i]), expected.loss[i], tolerance) << i;
      for (std::size_t i = 0; i < 12; ++i) {
        EXPECT_NEAR(static_cast<double>(result.gradient[i]), expected.gradient[i], tolerance) << i;
      }
    }
  }
}

}  // namespace
}  // namespace lathe::testing
