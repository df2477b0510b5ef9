// The column-major problem that is made of a row-major product, and the literal executor of such problems.
#include "lathe/kernels/matmul_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "lathe/kernels/matmul_literal.h"
#include "tests/kernels/bits.h"
#include "tests/kernels/kernel_test.h"

namespace lathe::test {
namespace {

template <class FactorType, class ResultType>
struct Types {
  using T = FactorType;
  using C = ResultType;
};

/// Where a row-major matrix has its elements, by the words of matmul.h alone.
std::size_t place(Transpose transpose, std::int64_t row, std::int64_t column, std::int64_t stride) {
  return static_cast<std::size_t>(transpose == Transpose::yes ? column * stride + row : row * stride + column);
}

std::uint32_t pattern(float value) { return bits(value); }
std::uint32_t pattern(Bf16 value) { return value.bits; }

template <class T, class C>
struct Product {
  Matmul<T, C> args;
  std::vector<T> a, b;
  std::vector<C> bias, before;

  /// With `extra` elements between the end of a row and the beginning of the next.
  Product(const Matmul<T, C>& options, std::int64_t extra, unsigned seed) : args(options) {
    args.lda = (args.transpose_a == Transpose::yes ? args.m : args.k) + extra;
    args.ldb = (args.transpose_b == Transpose::yes ? args.k : args.n) + 2 * extra;
    args.ldc = args.n + 3 * extra;
    a = random_values<T>((args.transpose_a == Transpose::yes ? args.k : args.m) * args.lda, seed);
    b = random_values<T>((args.transpose_b == Transpose::yes ? args.n : args.k) * args.ldb, seed + 1);
    before = random_values<C>(args.m * args.ldc, seed + 2);
    if (args.bias != nullptr) bias = random_values<C>(args.n, seed + 3);
    args.a = a.data();
    args.b = b.data();
    if (args.bias != nullptr) args.bias = bias.data();
  }

  /// Row-major and naive, each sum in order of k: [M, N].
  template <class A>
  std::vector<A> naive() const {
    std::vector<A> result;
    for (std::int64_t i = 0; i < args.m; ++i) {
      for (std::int64_t j = 0; j < args.n; ++j) {
        A sum{0};
        for (std::int64_t l = 0; l < args.k; ++l) {
          sum += static_cast<A>(a[place(args.transpose_a, i, l, args.lda)]) *
                 static_cast<A>(b[place(args.transpose_b, l, j, args.ldb)]);
        }
        if (args.use == Use::add) sum += static_cast<A>(before[place(Transpose::no, i, j, args.ldc)]);
        if (args.bias != nullptr) sum += static_cast<A>(bias[static_cast<std::size_t>(j)]);
        result.push_back(sum);
      }
    }
    return result;
  }

  /// By way of the column-major problem. c is NaN before, where it is written.
  std::vector<C> literal() {
    std::vector<C> c = before;
    if (args.use == Use::write) std::ranges::fill(c, static_cast<C>(std::nan("")));
    const std::vector<C> untouched = c;
    args.c = c.data();
    compute_literally(column_major(args), column_major_operands(args, 0));
    std::vector<C> result;
    for (std::int64_t i = 0; i < args.m; ++i) {
      for (std::int64_t j = 0; j < args.ldc; ++j) {
        const std::size_t at = place(Transpose::no, i, j, args.ldc);
        if (j < args.n) {
          result.push_back(c[at]);
        } else {
          EXPECT_EQ(static_cast<double>(c[at]) == static_cast<double>(untouched[at]), args.use == Use::add) << "between rows";
        }
      }
    }
    return result;
  }
};

std::string describe(std::int64_t m, std::int64_t n, std::int64_t k, Transpose a, Transpose b, std::int64_t extra, int form) {
  return std::to_string(m) + " x " + std::to_string(k) + " x " + std::to_string(n) + (a == Transpose::yes ? ", a'" : ", a") +
         (b == Transpose::yes ? " b'" : " b") + ", " + std::to_string(extra) + " between rows, form " + std::to_string(form);
}

template <class T>
class MatmulProblemTest : public ::testing::Test {};
using AllTypes = ::testing::Types<Types<float, float>, Types<Bf16, Bf16>, Types<Bf16, float>>;
TYPED_TEST_SUITE(MatmulProblemTest, AllTypes);

TYPED_TEST(MatmulProblemTest, ComputedLiterallyIsTheRowMajorProduct) {
  using T = typename TypeParam::T;
  using C = typename TypeParam::C;
  const C some_bias{};
  unsigned seed = 1;
  int cases = 0;
  for (const std::int64_t m : {1, 7, 33, 257}) {
    for (const std::int64_t n : {1, 7, 33, 257}) {
      for (const std::int64_t k : {1, 7, 33, 257}) {
        for (const Transpose transpose_a : {Transpose::no, Transpose::yes}) {
          for (const Transpose transpose_b : {Transpose::no, Transpose::yes}) {
            for (const std::int64_t extra : {0, 3}) {
              for (const int form : {0, 1, 2}) {
                const Matmul<T, C> options{.c = nullptr,
                                           .a = nullptr,
                                           .b = nullptr,
                                           .bias = form == 1 ? &some_bias : nullptr,
                                           .use = form == 2 ? Use::add : Use::write,
                                           .transpose_a = transpose_a,
                                           .transpose_b = transpose_b,
                                           .m = m,
                                           .n = n,
                                           .k = k,
                                           .lda = 0,
                                           .ldb = 0,
                                           .ldc = 0,
                                           .workspace = nullptr};
                Product<T, C> product(options, extra, seed += 4);
                const std::vector<C> result = product.literal();
                const std::vector<float> plain = product.template naive<float>();
                const std::string name = describe(m, n, k, transpose_a, transpose_b, extra, form);
                // The order of each sum is stated, so that the bits are those of plain arithmetic.
                for (std::size_t i = 0; i < result.size(); ++i)
                  ASSERT_EQ(pattern(result[i]), pattern(static_cast<C>(plain[i]))) << name;
                expect_accurate<C>(name, result, plain, product.template naive<double>());
                if (::testing::Test::HasFailure()) return;
                ++cases;
              }
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(cases, 64 * 4 * 2 * 3);
}

/// Every field, for one product that has no two sizes alike.
TEST(MatmulProblem, IsTheTransposedProductInTheSameMemory) {
  alignas(16) std::array<Bf16, 16> memory{};
  alignas(16) std::array<float, 16> results{};
  const Matmul<Bf16, float> args{.c = results.data() + 2,
                                 .a = memory.data() + 4,
                                 .b = memory.data() + 1,
                                 .bias = results.data(),
                                 .use = Use::write,
                                 .transpose_a = Transpose::yes,
                                 .transpose_b = Transpose::no,
                                 .m = 2,
                                 .n = 3,
                                 .k = 5,
                                 .lda = 20,
                                 .ldb = 30,
                                 .ldc = 40,
                                 .workspace = nullptr};
  const MatmulProblem expected{.factors = MatmulElement::bf16,
                               .result = MatmulElement::f32,
                               .transpose_a = Transpose::no,
                               .transpose_b = Transpose::yes,
                               .has_bias = true,
                               .adds = false,
                               .m = 3,
                               .n = 2,
                               .k = 5,
                               .lda = 30,
                               .ldb = 20,
                               .ldd = 40,
                               .alignment_a = 2,
                               .alignment_b = 8,
                               .alignment_d = 8,
                               .alignment_bias = 16};
  EXPECT_EQ(column_major(args), expected);
  const MatmulOperands operands = column_major_operands(args, 77);
  EXPECT_EQ(operands.a, args.b);
  EXPECT_EQ(operands.b, args.a);
  EXPECT_EQ(operands.d, args.c);
  EXPECT_EQ(operands.bias, args.bias);
  EXPECT_EQ(operands.workspace_bytes, 77);
  EXPECT_EQ(to_string(expected), "matrix product [2, 5] x [5, 3], a transposed, bf16 to f32, with a bias");

  Matmul<Bf16, float> adding = args;
  adding.bias = nullptr;
  adding.use = Use::add;
  adding.transpose_a = Transpose::no;
  adding.transpose_b = Transpose::yes;
  MatmulProblem added = expected;
  added.has_bias = false;
  added.adds = true;
  added.transpose_a = Transpose::yes;
  added.transpose_b = Transpose::no;
  EXPECT_EQ(column_major(adding), added);
  EXPECT_EQ(to_string(added), "matrix product [2, 5] x [5, 3], b transposed, bf16 to f32, added");
}

TEST(MatmulProblem, AlignmentIsThatOfTheAddressUpToSixteenBytes) {
  for (const auto& [address, alignment] : {std::pair{0, 16}, std::pair{1, 1}, std::pair{2, 2}, std::pair{12, 4}, std::pair{24, 8},
                                           std::pair{48, 16}, std::pair{4096, 16}}) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of nothing
    EXPECT_EQ(matmul_alignment(reinterpret_cast<const void*>(static_cast<std::uintptr_t>(address))), alignment) << address;
  }
}

/// The executor stands in for a library that would compute nonsense, so it must not forgive.
TEST(MatmulProblem, ComputedLiterallyIsRefusedWhereCublasltWouldGoAstray) {
  alignas(16) std::array<float, 64> memory{};
  const MatmulProblem good{.factors = MatmulElement::f32,
                           .result = MatmulElement::f32,
                           .transpose_a = Transpose::no,
                           .transpose_b = Transpose::no,
                           .has_bias = true,
                           .adds = false,
                           .m = 4,
                           .n = 2,
                           .k = 3,
                           .lda = 4,
                           .ldb = 3,
                           .ldd = 4,
                           .alignment_a = 16,
                           .alignment_b = 16,
                           .alignment_d = 16,
                           .alignment_bias = 16};
  const MatmulOperands operands{.d = memory.data() + 32,
                                .a = memory.data(),
                                .b = memory.data() + 16,
                                .bias = memory.data() + 28,
                                .workspace = nullptr,
                                .workspace_bytes = 0};
  const auto message = [](const MatmulProblem& problem, const MatmulOperands& at) -> std::string {
    try {
      compute_literally(problem, at);
      return "";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  };
  const std::string product = "matrix product [2, 3] x [3, 4], f32 to f32, with a bias: ";
  EXPECT_EQ(message(good, operands), "");
  for (const auto& [stride, name] :
       {std::pair{&MatmulProblem::lda, "A"}, std::pair{&MatmulProblem::ldb, "B"}, std::pair{&MatmulProblem::ldd, "D"}}) {
    MatmulProblem problem = good;
    problem.*stride -= 1;
    EXPECT_EQ(message(problem, operands), product + "columns overlap in " + name);
  }
  for (const auto& [pointer, name] :
       {std::pair{&MatmulOperands::a, "A"}, std::pair{&MatmulOperands::b, "B"}, std::pair{&MatmulOperands::bias, "the bias"}}) {
    MatmulOperands at = operands;
    at.*pointer = static_cast<const float*>(at.*pointer) + 1;
    EXPECT_EQ(message(good, at), product + name + " isn't aligned to the 16 bytes stated");
  }
  MatmulOperands at = operands;
  at.bias = nullptr;
  EXPECT_EQ(message(good, at), product + "the bias is missing");
  MatmulProblem problem = good;
  problem.k = 0;
  EXPECT_EQ(message(problem, operands), "matrix product [2, 0] x [0, 4], f32 to f32, with a bias: an empty matrix");
  problem = good;
  problem.has_bias = false;
  EXPECT_EQ(message(problem, operands), "matrix product [2, 3] x [3, 4], f32 to f32: a bias that the problem hasn't");
}

}  // namespace
}  // namespace lathe::test
