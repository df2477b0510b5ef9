#include "lathe/kernels/matmul.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lathe/kernels/matmul_backend.h"
#include "tests/kernels/products_test.h"

namespace lathe::testing {
namespace {

/// A product's sizes, its operands' values as op(a) [M, K], op(b) [K, N], and what comes out before bias and addition.
template <class T>
struct Problem {
  std::int64_t m, n, k;
  std::vector<T> a, b, bias, before;
  std::vector<Wide<T>> exact;

  Problem(std::int64_t m_, std::int64_t n_, std::int64_t k_, std::mt19937& random) : m(m_), n(n_), k(k_) {
    a = normal_values<T>(random, m * k);
    b = normal_values<T>(random, k * n);
    bias = normal_values<T>(random, n);
    before = normal_values<T>(random, m * n);
    exact.assign(static_cast<std::size_t>(m * n), 0);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t l = 0; l < k; ++l) {
        const Wide<T> factor = a[static_cast<std::size_t>(i * k + l)];
        for (std::int64_t j = 0; j < n; ++j) {
          exact[static_cast<std::size_t>(i * n + j)] += factor * static_cast<Wide<T>>(b[static_cast<std::size_t>(l * n + j)]);
        }
      }
    }
  }
};

enum class Form : std::uint8_t { write, write_with_bias, add };
enum class Strides : std::uint8_t { tight, wide };
enum class Path : std::uint8_t { chosen, eigen };

struct Options {
  Transpose transpose_a = Transpose::no;
  Transpose transpose_b = Transpose::no;
  Form form = Form::write;
  Strides strides = Strides::tight;
  Path path = Path::chosen;
};

std::string describe(const Options& options) {
  constexpr std::array kForms{"write", "write with bias", "add"};
  return std::string(options.transpose_a == Transpose::yes ? "a' " : "a ") +
         (options.transpose_b == Transpose::yes ? "b' " : "b ") + kForms[static_cast<std::size_t>(options.form)] +
         (options.strides == Strides::wide ? ", wide strides" : "") + (options.path == Path::eigen ? ", Eigen" : "");
}

/// rows x columns as stored, with NaN between the rows' ends and the next rows' starts.
template <class T>
Guarded<T> stored(const std::vector<T>& values, std::int64_t rows, std::int64_t columns, Transpose transpose,
                  std::int64_t stride) {
  const bool transposed = transpose == Transpose::yes;
  Guarded<T> buffer((transposed ? columns : rows) * stride);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      buffer[transposed ? j * stride + i : i * stride + j] = values[static_cast<std::size_t>(i * columns + j)];
    }
  }
  return buffer;
}

/// c as the product leaves it, [M, N]; checks what lies around its elements.
template <class T>
std::vector<T> multiply(CpuStream stream, const Problem<T>& problem, const Options& options) {
  const auto [m, n, k] = std::array{problem.m, problem.n, problem.k};
  const std::int64_t extra = options.strides == Strides::wide ? 5 : 0;
  const std::int64_t lda = (options.transpose_a == Transpose::yes ? m : k) + extra;
  const std::int64_t ldb = (options.transpose_b == Transpose::yes ? k : n) + 2 * extra;
  const std::int64_t ldc = n + 3 * extra;
  Guarded<T> a = stored(problem.a, m, k, options.transpose_a, lda);
  Guarded<T> b = stored(problem.b, k, n, options.transpose_b, ldb);
  Guarded<T> bias(n, problem.bias);
  Guarded<T> c(m * ldc);
  const bool adds = options.form == Form::add;
  if (adds) c = stored(problem.before, m, n, Transpose::no, ldc);

  Matmul<T> args{.c = c.data(),
                 .a = a.data(),
                 .b = b.data(),
                 .bias = options.form == Form::write_with_bias ? bias.data() : nullptr,
                 .use = adds ? Use::add : Use::write,
                 .transpose_a = options.transpose_a,
                 .transpose_b = options.transpose_b,
                 .m = m,
                 .n = n,
                 .k = k,
                 .lda = lda,
                 .ldb = ldb,
                 .ldc = ldc,
                 .workspace = nullptr};
  const std::int64_t bytes = options.path == Path::eigen ? eigen_matmul_workspace(stream, args) : matmul_workspace(stream, args);
  Guarded<std::byte> workspace(bytes, 0);
  if (bytes > 0) args.workspace = workspace.data();
  if (options.path == Path::eigen) {
    eigen_matmul(stream, args);
  } else {
    matmul(stream, args);
  }

  c.expect_guards_whole("c");
  workspace.expect_guards_whole("workspace");
  std::vector<T> result;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) result.push_back(c[i * ldc + j]);
    for (std::int64_t j = n; j < ldc; ++j) EXPECT_TRUE(std::isnan(c[i * ldc + j])) << "written between the rows of c";
  }
  return result;
}

/// Plain arithmetic's largest error in 4,096 sums of k products: one sum may be right by luck.
template <class T>
Wide<T> plain_error(std::int64_t k) {
  std::mt19937 random(static_cast<std::uint32_t>(k));
  const Problem<T> problem(64, 64, k, random);
  std::vector<T> plain(problem.exact.size(), 0);
  for (std::int64_t i = 0; i < k * 64 * 64; ++i) {
    const std::int64_t row = i / (k * 64);
    const std::int64_t l = i / 64 % k;
    const std::int64_t column = i % 64;
    plain[static_cast<std::size_t>(row * 64 + column)] +=
        problem.a[static_cast<std::size_t>(row * k + l)] * problem.b[static_cast<std::size_t>(l * 64 + column)];
  }
  return largest_error<T>(plain, problem.exact);
}

template <class T>
void expect_right(CpuStream stream, const Problem<T>& problem, const Options& options, Wide<T> error_of_plain) {
  const std::string name = std::to_string(problem.m) + " x " + std::to_string(problem.k) + " x " + std::to_string(problem.n) +
                           ", " + describe(options) + ", " + name_of(stream);
  const std::vector<T> result = multiply(stream, problem, options);
  std::vector<Wide<T>> exact = problem.exact;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (options.form == Form::add) exact[i] += static_cast<Wide<T>>(problem.before[i]);
    if (options.form == Form::write_with_bias) {
      exact[i] += static_cast<Wide<T>>(problem.bias[i % static_cast<std::size_t>(problem.n)]);
    }
  }
  expect_exact_enough<T>(result, exact, error_of_plain, name);
}

template <class T>
void expect_right_in_all_forms(MatmulPlans* plans, Path path, const Problem<T>& problem,
                               const std::vector<Strides>& all_strides) {
  const Wide<T> error_of_plain = plain_error<T>(problem.k);
  for (const CpuTarget target : targets()) {
    for (const int threads : {1, 2, 3}) {
      const CpuStream stream{.threads = threads, .target = target, .plans = plans};
      for (const Transpose transpose_a : {Transpose::no, Transpose::yes}) {
        for (const Transpose transpose_b : {Transpose::no, Transpose::yes}) {
          for (const Form form : {Form::write, Form::write_with_bias, Form::add}) {
            for (const Strides strides : all_strides) {
              expect_right(stream, problem, {transpose_a, transpose_b, form, strides, path}, error_of_plain);
            }
          }
        }
      }
    }
  }
}

template <class T>
class MatmulTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(MatmulTest, Types);

TYPED_TEST(MatmulTest, IsExactEnoughForAwkwardShapes) {
  std::mt19937 random(1);
  MatmulPlans plans;
  for (const std::int64_t m : {0, 1, 3, 17, 64, 129}) {
    for (const std::int64_t n : {0, 1, 3, 17, 64, 129}) {
      for (const std::int64_t k : {0, 1, 3, 17, 64, 129}) {
        const Problem<TypeParam> problem(m, n, k, random);
        expect_right_in_all_forms(&plans, Path::chosen, problem, {Strides::tight, Strides::wide});
        if (m * n * k > 0) expect_right_in_all_forms(&plans, Path::eigen, problem, {Strides::tight, Strides::wide});
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TYPED_TEST(MatmulTest, IsExactEnoughOverSeveralCacheBlocksAndPanels) {
  std::mt19937 random(2);
  MatmulPlans plans;
  const Problem<TypeParam> problem(523, 773, 261, random);
  expect_right_in_all_forms(&plans, Path::chosen, problem, {Strides::wide});
  expect_right_in_all_forms(&plans, Path::eigen, problem, {Strides::wide});
}

TYPED_TEST(MatmulTest, GivesTheSameWithAndWithoutPlansAndTheSecondTime) {
  std::mt19937 random(3);
  MatmulPlans plans;
  for (const CpuTarget target : targets()) {
    for (const std::int64_t m : {5, 120}) {
      const Problem<TypeParam> problem(m, 96, 200, random);
      const CpuStream planned{.threads = 2, .target = target, .plans = &plans};
      const CpuStream unplanned{.threads = 2, .target = target, .plans = nullptr};
      const Options options{.transpose_b = Transpose::yes, .form = Form::write_with_bias};
      const std::vector<TypeParam> first = multiply(planned, problem, options);
      expect_same_bits(first, multiply(planned, problem, options), "the second time");
      expect_same_bits(first, multiply(unplanned, problem, options), "without plans");
    }
  }
}

TYPED_TEST(MatmulTest, LetsNotANumberThroughToItsRowAlone) {
  std::mt19937 random(4);
  MatmulPlans plans;
  for (const CpuTarget target : targets()) {
    Problem<TypeParam> problem(70, 65, 66, random);
    problem.a[3 * 66 + 7] = std::numeric_limits<TypeParam>::quiet_NaN();
    const CpuStream stream{.threads = 1, .target = target, .plans = &plans};
    const std::vector<TypeParam> result = multiply(stream, problem, {});
    for (std::size_t i = 0; i < result.size(); ++i) EXPECT_EQ(std::isnan(result[i]), i / 65 == 3) << i;
  }
}

TYPED_TEST(MatmulTest, SkipsWhatIsToBeSkipped) {
  Guarded<TypeParam> a(6, std::vector<TypeParam>(6, 1));
  Guarded<TypeParam> c(4);
  for (const std::int64_t k : {0, 3}) {
    const Matmul<TypeParam> args{c.data(), a.data(), a.data(), nullptr, Use::skip, Transpose::no, Transpose::no, 2,
                                 2,        k,        3,        2,       2,         nullptr};
    EXPECT_EQ(matmul_workspace({}, args), 0);
    matmul({}, args);
    for (const TypeParam value : c.values()) EXPECT_TRUE(std::isnan(value));
  }
}

TYPED_TEST(MatmulTest, LeavesTheCallersThreadCountAlone) {
  std::mt19937 random(5);
  MatmulPlans plans;
  const int before = omp_get_max_threads();
  const Problem<TypeParam> problem(128, 128, 128, random);
  multiply(CpuStream{.threads = before + 1, .target = best_cpu_target(), .plans = &plans}, problem, {});
  EXPECT_EQ(omp_get_max_threads(), before);
}

TYPED_TEST(MatmulTest, RefusesWhatIsNoProduct) {
  TypeParam element{1};
  const Matmul<TypeParam> good{&element, &element, &element, nullptr, Use::write, Transpose::no, Transpose::no, 1,
                               1,        1,        1,        1,       1,          nullptr};
  const auto refused = [](const Matmul<TypeParam>& args) {
    EXPECT_THROW(matmul_workspace({}, args), std::invalid_argument);
    EXPECT_THROW(matmul({}, args), std::invalid_argument);
  };
  for (const auto size : {&Matmul<TypeParam>::m, &Matmul<TypeParam>::n, &Matmul<TypeParam>::k}) {
    Matmul<TypeParam> args = good;
    args.*size = -1;
    refused(args);
  }
  for (const auto stride : {&Matmul<TypeParam>::lda, &Matmul<TypeParam>::ldb, &Matmul<TypeParam>::ldc}) {
    Matmul<TypeParam> args = good;
    args.*stride = 0;
    refused(args);
  }
  Matmul<TypeParam> args = good;
  args.bias = &element;
  args.use = Use::add;
  refused(args);
  EXPECT_THROW(matmul(CpuStream{.threads = 0}, good), std::invalid_argument);
}

TEST(MatmulPlansTest, NamesItsLibraryAndVersion) {
  const std::string_view library = MatmulPlans::library();
  EXPECT_TRUE(library.starts_with("oneDNN ") || library.starts_with("Eigen ")) << library;
  EXPECT_EQ(std::count(library.begin(), library.end(), '.'), 2) << library;
}

/// Panels must tile c, and never be more than the threads.
TEST(MatmulPanelsTest, CoverTheProductWithAtMostOnePanelAThread) {
  for (const int threads : {1, 2, 3, 7, 16}) {
    for (const std::int64_t m : {1, 3, 50, 4096}) {
      for (const std::int64_t n : {1, 9, 384, 30522}) {
        for (const std::int64_t k : {1, 100, 384, 3072}) {
          const MatmulPanels panels = matmul_panels(threads, m, n, k, 4);
          EXPECT_LE(panels.count_m * panels.count_n, threads);
          EXPECT_GE(panels.count_m * panels.panel_m, m);
          EXPECT_LT((panels.count_m - 1) * panels.panel_m, m);
          EXPECT_GE(panels.count_n * panels.panel_n, n);
          EXPECT_LT((panels.count_n - 1) * panels.panel_n, n);
          EXPECT_GE(panels.pack_a_bytes, panels.block_m * panels.block_k * 4);
          EXPECT_GE(panels.pack_b_bytes, panels.block_n * panels.block_k * 4);
          EXPECT_LE(panels.pack_a_bytes + panels.pack_b_bytes, 2 << 20);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lathe::testing
