// One list of products for every backend: oneDNN or Eigen on the CPU, and on CUDA cuBLASLt or, emulated, the literal executor.
#include "lathe/kernels/matmul.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "lathe/kernels/matmul_backend.h"
#include "tests/kernels/bits.h"
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/products_test.h"
#ifdef LATHE_HAS_CUDA
#include "lathe/kernels/matmul_cuda_plans.h"
#endif

namespace lathe::testing {
namespace {

using test::Buffer;

/// A backend, the factors' type and the result's.
template <class StreamType, class FactorType, class ResultType = FactorType>
struct Case {
  using Stream = StreamType;
  using T = FactorType;
  using C = ResultType;
};
#ifdef LATHE_HAS_CUDA
// The CPU's are run by the builds without it.
using Cases = ::testing::Types<Case<CudaStream, float>, Case<CudaStream, Bf16>, Case<CudaStream, Bf16, float>>;
#else
using Cases = ::testing::Types<Case<CpuStream, float>, Case<CpuStream, double>>;
#endif

/// The streams of a backend that products are tried on, with their plans.
template <class Stream>
class Streams {
 public:
  std::vector<CpuStream> all() {
    std::vector<CpuStream> streams;
    for (const CpuTarget target : targets()) {
      for (const int threads : {1, 2, 3}) streams.push_back({.threads = threads, .target = target, .plans = &plans_});
    }
    return streams;
  }

 private:
  MatmulPlans plans_;
};
#ifdef LATHE_HAS_CUDA
template <>
class Streams<CudaStream> {
 public:
  std::vector<CudaStream> all() { return {{.handle = runs_.stream().handle, .plans = &plans_}}; }

 private:
  test::DeviceRuns runs_;
  CudaMatmulPlans plans_{make_matmul_library()};
};
using lathe::testing::name_of;
std::string name_of(CudaStream /*stream*/) { return "CUDA"; }
#endif

/// A product's sizes, its operands' values as op(a) [M, K], op(b) [K, N], and what comes out before bias and addition.
template <class T, class C>
struct Problem {
  std::int64_t m, n, k;
  std::vector<T> a, b;
  std::vector<C> bias, before;
  std::vector<Wide<T>> exact;

  Problem(std::int64_t m_, std::int64_t n_, std::int64_t k_, std::mt19937& random) : m(m_), n(n_), k(k_) {
    a = normal_values<T>(random, m * k);
    b = normal_values<T>(random, k * n);
    bias = normal_values<C>(random, n);
    before = normal_values<C>(random, m * n);
    exact = sums<Wide<T>>();
  }

  /// Each element's sum in order of k, in `A`.
  template <class A>
  std::vector<A> sums() const {
    std::vector<A> result(static_cast<std::size_t>(m * n), 0);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t l = 0; l < k; ++l) {
        const auto factor = static_cast<A>(a[static_cast<std::size_t>(i * k + l)]);
        for (std::int64_t j = 0; j < n; ++j) {
          result[static_cast<std::size_t>(i * n + j)] += factor * static_cast<A>(b[static_cast<std::size_t>(l * n + j)]);
        }
      }
    }
    return result;
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

/// What a form makes of the sums.
template <class A, class T, class C>
std::vector<A> finished(const Problem<T, C>& problem, Form form, std::vector<A> sums) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (form == Form::add) sums[i] += static_cast<A>(problem.before[i]);
    if (form == Form::write_with_bias) sums[i] += static_cast<A>(problem.bias[i % static_cast<std::size_t>(problem.n)]);
  }
  return sums;
}

/// rows x columns as stored, with NaN between the rows' ends and the next rows' starts.
template <class T>
std::vector<T> stored(const std::vector<T>& values, std::int64_t rows, std::int64_t columns, Transpose transpose,
                      std::int64_t stride) {
  const bool transposed = transpose == Transpose::yes;
  std::vector<T> buffer(static_cast<std::size_t>((transposed ? columns : rows) * stride),
                        static_cast<T>(std::numeric_limits<double>::quiet_NaN()));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      buffer[static_cast<std::size_t>(transposed ? j * stride + i : i * stride + j)] =
          values[static_cast<std::size_t>(i * columns + j)];
    }
  }
  return buffer;
}

template <class T>
bool is_nan(T value) {
  return std::isnan(static_cast<double>(value));
}

template <class Stream, class T, class C>
std::int64_t workspace_of(Stream stream, const Matmul<T, C>& args, Path path) {
  if constexpr (std::is_same_v<Stream, CpuStream>) {
    if (path == Path::eigen) return eigen_matmul_workspace(stream, args);
  }
  return matmul_workspace(stream, args);
}

template <class Stream, class T, class C>
void run(Stream stream, const Matmul<T, C>& args, Path path) {
  if constexpr (std::is_same_v<Stream, CpuStream>) {
    if (path == Path::eigen) return eigen_matmul(stream, args);
  }
  matmul(stream, args);
}

/// c as the product leaves it, [M, N]; checks what lies around its elements.
template <class Stream, class T, class C>
std::vector<C> multiply(Stream stream, const Problem<T, C>& problem, const Options& options) {
  const auto [m, n, k] = std::array{problem.m, problem.n, problem.k};
  const std::int64_t extra = options.strides == Strides::wide ? 5 : 0;
  const std::int64_t lda = (options.transpose_a == Transpose::yes ? m : k) + extra;
  const std::int64_t ldb = (options.transpose_b == Transpose::yes ? k : n) + 2 * extra;
  const std::int64_t ldc = n + 3 * extra;
  const bool adds = options.form == Form::add;
  Buffer<T, Stream> a(stored(problem.a, m, k, options.transpose_a, lda));
  Buffer<T, Stream> b(stored(problem.b, k, n, options.transpose_b, ldb));
  Buffer<C, Stream> bias(problem.bias);
  const std::vector<C> nothing(problem.before.size(), static_cast<C>(std::numeric_limits<double>::quiet_NaN()));
  Buffer<C, Stream> c(stored(adds ? problem.before : nothing, m, n, Transpose::no, ldc));

  Matmul<T, C> args{.c = c.data(),
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
  const std::int64_t bytes = workspace_of(stream, args, options.path);
  test::Workspace<Stream> workspace(bytes);
  if (bytes > 0) args.workspace = workspace.data();
  run(stream, args, options.path);

  const std::vector<C> all = c.values("c");
  workspace.expect_intact();
  std::vector<C> result;
  for (std::int64_t i = 0; i < m; ++i) {
    const auto row = all.begin() + i * ldc;
    result.insert(result.end(), row, row + n);
    EXPECT_TRUE(std::all_of(row + n, row + ldc, is_nan<C>)) << "written between the rows of c";
  }
  return result;
}

/// Plain arithmetic's largest error.
template <class T, class C>
Wide<T> plain_error(const Problem<T, C>& problem, Form form) {
  const std::vector<Wide<T>> exact = finished(problem, form, problem.exact);
  const std::vector<test::Plain<T>> plain = finished(problem, form, problem.template sums<test::Plain<T>>());
  Wide<T> largest = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<Wide<T>>(static_cast<C>(plain[i])) - exact[i]));
  }
  return largest;
}

template <class Stream, class T, class C>
void expect_right(Stream stream, const Problem<T, C>& problem, const Options& options, Wide<T> error_of_plain) {
  const std::string name = std::to_string(problem.m) + " x " + std::to_string(problem.k) + " x " + std::to_string(problem.n) +
                           ", " + describe(options) + ", " + name_of(stream);
  // A number of the plain type says what one of bf16 says.
  std::vector<test::Plain<T>> result;
  for (const C value : multiply(stream, problem, options)) result.push_back(static_cast<test::Plain<T>>(value));
  expect_exact_enough<test::Plain<T>>(result, finished(problem, options.form, problem.exact), error_of_plain, name);
}

template <class Stream, class T, class C>
void expect_right_in_all_forms(Streams<Stream>& streams, const Problem<T, C>& problem, const std::vector<Strides>& all_strides) {
  std::vector<Path> paths{Path::chosen};
  if (std::is_same_v<Stream, CpuStream> && problem.m * problem.n * problem.k > 0) paths.push_back(Path::eigen);
  // One sum may be right by luck, so that plain arithmetic's error is that of 4,096 others too.
  std::mt19937 random(static_cast<std::uint32_t>(problem.k));
  const Problem<T, C> others(64, 64, problem.k, random);
  for (const Form form : {Form::write, Form::write_with_bias, Form::add}) {
    const Wide<T> error_of_plain = std::max(plain_error(problem, form), plain_error(others, form));
    for (const Stream stream : streams.all()) {
      for (const Path path : paths) {
        for (const Transpose transpose_a : {Transpose::no, Transpose::yes}) {
          for (const Transpose transpose_b : {Transpose::no, Transpose::yes}) {
            for (const Strides strides : all_strides) {
              expect_right(stream, problem, {transpose_a, transpose_b, form, strides, path}, error_of_plain);
            }
          }
        }
      }
    }
  }
}

template <class Case>
class MatmulTest : public ::testing::Test {};
TYPED_TEST_SUITE(MatmulTest, Cases);

TYPED_TEST(MatmulTest, IsExactEnoughForAwkwardShapes) {
  using Stream = typename TypeParam::Stream;
  std::mt19937 random(1);
  Streams<Stream> streams;
  // The executor's own test has many more (matmul_problem_test.cc).
  const std::vector<std::int64_t> sizes = std::is_same_v<Stream, CpuStream> ? std::vector<std::int64_t>{0, 1, 3, 17, 64, 129}
                                                                            : std::vector<std::int64_t>{0, 1, 17, 129};
  for (const std::int64_t m : sizes) {
    for (const std::int64_t n : sizes) {
      for (const std::int64_t k : sizes) {
        const Problem<typename TypeParam::T, typename TypeParam::C> problem(m, n, k, random);
        expect_right_in_all_forms(streams, problem, {Strides::tight, Strides::wide});
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TYPED_TEST(MatmulTest, IsExactEnoughOverSeveralCacheBlocksAndPanels) {
  using Stream = typename TypeParam::Stream;
  std::mt19937 random(2);
  Streams<Stream> streams;
  const Problem<typename TypeParam::T, typename TypeParam::C> problem(523, 773, 261, random);
  expect_right_in_all_forms(streams, problem, {Strides::wide});
}

TYPED_TEST(MatmulTest, LetsNotANumberThroughToItsRowAlone) {
  using Stream = typename TypeParam::Stream;
  std::mt19937 random(4);
  Streams<Stream> streams;
  for (const Stream stream : streams.all()) {
    Problem<typename TypeParam::T, typename TypeParam::C> problem(70, 65, 66, random);
    problem.a[3 * 66 + 7] = static_cast<typename TypeParam::T>(std::numeric_limits<double>::quiet_NaN());
    const std::vector<typename TypeParam::C> result = multiply(stream, problem, {});
    for (std::size_t i = 0; i < result.size(); ++i) EXPECT_EQ(is_nan(result[i]), i / 65 == 3) << i;
  }
}

TYPED_TEST(MatmulTest, SkipsWhatIsToBeSkipped) {
  using Stream = typename TypeParam::Stream;
  using C = typename TypeParam::C;
  Streams<Stream> streams;
  const Stream stream = streams.all().front();
  Buffer<typename TypeParam::T, Stream> a(std::vector<typename TypeParam::T>(6, typename TypeParam::T(1.0)));
  const std::vector<C> before(4, C(5.0));
  Buffer<C, Stream> c(before);
  for (const std::int64_t k : {0, 3}) {
    const Matmul<typename TypeParam::T, C> args{c.data(), a.data(), a.data(), nullptr, Use::skip, Transpose::no, Transpose::no, 2,
                                                2,        k,        3,        2,       2,         nullptr};
    EXPECT_EQ(matmul_workspace(stream, args), 0);
    matmul(stream, args);
    for (const C value : c.values("c")) EXPECT_EQ(static_cast<float>(value), 5.0F);
  }
}

TYPED_TEST(MatmulTest, RefusesWhatIsNoProduct) {
  using Stream = typename TypeParam::Stream;
  using Args = Matmul<typename TypeParam::T, typename TypeParam::C>;
  Streams<Stream> streams;
  const Stream stream = streams.all().front();
  typename TypeParam::T factor{};
  typename TypeParam::C element{};
  const Args good{&element, &factor, &factor, nullptr, Use::write, Transpose::no, Transpose::no, 1, 1, 1, 1, 1, 1, nullptr};
  const auto refused = [&](const Args& args) {
    EXPECT_THROW(matmul_workspace(stream, args), std::invalid_argument);
    EXPECT_THROW(matmul(stream, args), std::invalid_argument);
  };
  for (const auto size : {&Args::m, &Args::n, &Args::k}) {
    Args args = good;
    args.*size = -1;
    refused(args);
  }
  for (const auto stride : {&Args::lda, &Args::ldb, &Args::ldc}) {
    Args args = good;
    args.*stride = 0;
    refused(args);
  }
  Args args = good;
  args.bias = &element;
  args.use = Use::add;
  refused(args);
  if constexpr (std::is_same_v<Stream, CpuStream>) {
    EXPECT_THROW(matmul(CpuStream{.threads = 0}, good), std::invalid_argument);
  } else {
    EXPECT_THROW(matmul(stream, good), std::invalid_argument) << "without a workspace";
    EXPECT_THROW(matmul(Stream{}, good), std::invalid_argument) << "without plans";
    EXPECT_THROW(matmul_workspace(Stream{}, good), std::invalid_argument) << "without plans";
  }
}

template <class T>
class CpuMatmulTest : public ::testing::Test {};
using CpuTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CpuMatmulTest, CpuTypes);

TYPED_TEST(CpuMatmulTest, GivesTheSameWithAndWithoutPlansAndTheSecondTime) {
  std::mt19937 random(3);
  MatmulPlans plans;
  for (const CpuTarget target : targets()) {
    for (const std::int64_t m : {5, 120}) {
      const Problem<TypeParam, TypeParam> problem(m, 96, 200, random);
      const CpuStream planned{.threads = 2, .target = target, .plans = &plans};
      const CpuStream unplanned{.threads = 2, .target = target, .plans = nullptr};
      const Options options{.transpose_b = Transpose::yes, .form = Form::write_with_bias};
      const std::vector<TypeParam> first = multiply(planned, problem, options);
      expect_same_bits(first, multiply(planned, problem, options), "the second time");
      expect_same_bits(first, multiply(unplanned, problem, options), "without plans");
    }
  }
}

TYPED_TEST(CpuMatmulTest, LeavesTheCallersThreadCountAlone) {
  std::mt19937 random(5);
  MatmulPlans plans;
  const int before = omp_get_max_threads();
  const Problem<TypeParam, TypeParam> problem(128, 128, 128, random);
  multiply(CpuStream{.threads = before + 1, .target = best_cpu_target(), .plans = &plans}, problem, {});
  EXPECT_EQ(omp_get_max_threads(), before);
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
