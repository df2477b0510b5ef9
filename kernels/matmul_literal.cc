#include "lathe/kernels/matmul_literal.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace lathe {
namespace {

[[noreturn]] void refuse(const MatmulProblem& problem, const std::string& why) {
  throw std::invalid_argument(to_string(problem) + ": " + why);
}

void check(const MatmulProblem& p, const MatmulOperands& operands) {
  if (p.m < 1 || p.n < 1 || p.k < 1) refuse(p, "an empty matrix");
  if (p.has_bias != (operands.bias != nullptr)) refuse(p, p.has_bias ? "the bias is missing" : "a bias that the problem hasn't");
  struct Matrix {
    const char* name;
    const void* address;
    std::int64_t rows, stride;
    std::int32_t alignment;
  };
  for (const Matrix& matrix :
       {Matrix{"A", operands.a, p.rows_a(), p.lda, p.alignment_a}, Matrix{"B", operands.b, p.rows_b(), p.ldb, p.alignment_b},
        Matrix{"D", operands.d, p.m, p.ldd, p.alignment_d}, Matrix{"the bias", operands.bias, p.m, p.m, p.alignment_bias}}) {
    if (matrix.stride < matrix.rows) refuse(p, std::string("columns overlap in ") + matrix.name);
    if (reinterpret_cast<std::uintptr_t>(matrix.address) % static_cast<std::uintptr_t>(matrix.alignment) != 0) {
      refuse(p, std::string(matrix.name) + " isn't aligned to the " + std::to_string(matrix.alignment) + " bytes stated");
    }
  }
}

float load(const void* from, MatmulElement element, std::int64_t i) {
  return element == MatmulElement::f32 ? static_cast<const float*>(from)[i]
                                       : static_cast<float>(static_cast<const Bf16*>(from)[i]);
}

void store(void* to, MatmulElement element, std::int64_t i, float value) {
  if (element == MatmulElement::f32) {
    static_cast<float*>(to)[i] = value;
  } else {
    static_cast<Bf16*>(to)[i] = Bf16(value);
  }
}

/// Rows of D that are summed side by side, so that the compiler makes vectors of them; the order of each sum stays.
constexpr std::int64_t kBlock = 64;

}  // namespace

void compute_literally(const MatmulProblem& problem, const MatmulOperands& operands) {
  const MatmulProblem& p = problem;
  check(p, operands);
  const auto a = [&](std::int64_t i, std::int64_t l) {
    return load(operands.a, p.factors, p.transpose_a == Transpose::yes ? l + i * p.lda : i + l * p.lda);
  };
  const auto b = [&](std::int64_t l, std::int64_t j) {
    return load(operands.b, p.factors, p.transpose_b == Transpose::yes ? j + l * p.ldb : l + j * p.ldb);
  };

  // A block of op(A)'s rows, element (i, l) at [l][i], and a column of op(B).
  std::vector<std::array<float, kBlock>> rows(static_cast<std::size_t>(p.k));
  std::vector<float> column(static_cast<std::size_t>(p.k));
  for (std::int64_t first = 0; first < p.m; first += kBlock) {
    const std::int64_t count = std::min(kBlock, p.m - first);
    for (std::int64_t l = 0; l < p.k; ++l) {
      for (std::int64_t i = 0; i < count; ++i) rows[static_cast<std::size_t>(l)][static_cast<std::size_t>(i)] = a(first + i, l);
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      for (std::int64_t l = 0; l < p.k; ++l) column[static_cast<std::size_t>(l)] = b(l, j);
      std::array<float, kBlock> sum{};
      for (std::size_t l = 0; l < column.size(); ++l) {
        for (std::size_t i = 0; i < kBlock; ++i) sum[i] += rows[l][i] * column[l];
      }
      for (std::int64_t i = 0; i < count; ++i) {
        float value = sum[static_cast<std::size_t>(i)];
        const std::int64_t at = first + i + j * p.ldd;
        if (p.adds) value += load(operands.d, p.result, at);
        if (p.has_bias) value += load(operands.bias, p.result, first + i);
        store(operands.d, p.result, at, value);
      }
    }
  }
}

}  // namespace lathe
