#pragma once
// A matrix product as cuBLASLt takes it: column-major. A pure function of a row-major product's arguments. Internal to kernels/.
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "lathe/kernels/matmul.h"
#include "lathe/kernels/types.h"

namespace lathe {

/// Element types of matrices in memory. Products are summed in fp32, and alpha and beta are fp32, whatever these are.
enum class MatmulElement : std::uint8_t { f32, bf16 };

constexpr std::int64_t size_of(MatmulElement element) { return element == MatmulElement::f32 ? 4 : 2; }

template <class T>
constexpr MatmulElement matmul_element() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, Bf16>, "cuBLASLt computes products of fp32 and bf16");
  return std::is_same_v<T, float> ? MatmulElement::f32 : MatmulElement::bf16;
}

/// What an algorithm may count on of an operand's address: the largest power of two that divides it, up to kMatmulAlignment.
/// No algorithm loads more than 16 bytes at once, nor does the tensor memory accelerator ask for more, so that larger ones would
/// only make more plans of the same.
constexpr std::int32_t kMatmulAlignment = 16;
std::int32_t matmul_alignment(const void* address);

/// D = op(A) op(B) + beta D, and with a bias D[i, j] += bias[i], all column-major: element (i, j) of a matrix X is at
/// X[i + j * ldx]. op(A) is [m, k], stored [m, k] or, transposed, [k, m]; op(B) [k, n]; D [m, n]; the bias [m]. alpha is 1, beta
/// is 1 where it adds and else 0; C of cuBLASLt is D.
/// It holds all that the choice of an algorithm depends on, and nothing else: it is the key of a plan.
struct MatmulProblem {
  MatmulElement factors;  ///< of A and B
  MatmulElement result;   ///< of D and the bias
  Transpose transpose_a, transpose_b;
  bool has_bias;
  bool adds;
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldd;
  std::int32_t alignment_a, alignment_b, alignment_d, alignment_bias;  ///< in bytes; kMatmulAlignment where there is no bias

  bool operator==(const MatmulProblem&) const = default;
  auto operator<=>(const MatmulProblem&) const = default;  // NOLINT(modernize-use-nullptr): it finds a 0 in the operator's name

  std::int64_t rows_a() const { return transpose_a == Transpose::yes ? k : m; }  ///< as stored
  std::int64_t columns_a() const { return transpose_a == Transpose::yes ? m : k; }
  std::int64_t rows_b() const { return transpose_b == Transpose::yes ? n : k; }
  std::int64_t columns_b() const { return transpose_b == Transpose::yes ? k : n; }
};

/// The addresses that go with a problem.
struct MatmulOperands {
  void* d;
  const void* a;
  const void* b;
  const void* bias;  ///< null where the problem has none
  std::byte* workspace;
  std::int64_t workspace_bytes;
};

/// "matrix product [512, 768] x [768, 3072], b transposed, bf16 to f32, added": the row-major product that it came from.
std::string to_string(const MatmulProblem& problem);

/// A row-major matrix is its transpose, column-major, in the same memory with the same stride. So c = op(a) op(b) is, for
/// cuBLASLt, D = op(A) op(B) with D = c^T, A = b and B = a, each with its transposition as it was; the bias, one value a column of
/// c, is one a row of D. `p` has at least one element in each matrix, and its use isn't skip.
template <class T, class C>
MatmulProblem column_major(const Matmul<T, C>& p) {
  return {.factors = matmul_element<T>(),
          .result = matmul_element<C>(),
          .transpose_a = p.transpose_b,
          .transpose_b = p.transpose_a,
          .has_bias = p.bias != nullptr,
          .adds = p.use == Use::add,
          .m = p.n,
          .n = p.m,
          .k = p.k,
          .lda = p.ldb,
          .ldb = p.lda,
          .ldd = p.ldc,
          .alignment_a = matmul_alignment(p.b),
          .alignment_b = matmul_alignment(p.a),
          .alignment_d = matmul_alignment(p.c),
          .alignment_bias = matmul_alignment(p.bias)};
}

template <class T, class C>
MatmulOperands column_major_operands(const Matmul<T, C>& p, std::int64_t workspace_bytes) {
  return {.d = p.c, .a = p.b, .b = p.a, .bias = p.bias, .workspace = p.workspace, .workspace_bytes = workspace_bytes};
}

}  // namespace lathe
