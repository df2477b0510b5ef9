#include "lathe/kernels/matmul_problem.h"

#include <fmt/format.h>

#include <bit>
#include <cstdint>
#include <string>

namespace lathe {
namespace {

const char* name(MatmulElement element) { return element == MatmulElement::f32 ? "f32" : "bf16"; }

}  // namespace

std::int32_t matmul_alignment(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | static_cast<std::uintptr_t>(kMatmulAlignment);
  return std::int32_t{1} << std::countr_zero(bits);
}

std::string to_string(const MatmulProblem& problem) {
  return fmt::format("matrix product [{}, {}] x [{}, {}]{}{}, {} to {}{}{}", problem.n, problem.k, problem.k, problem.m,
                     problem.transpose_b == Transpose::yes ? ", a transposed" : "",
                     problem.transpose_a == Transpose::yes ? ", b transposed" : "", name(problem.factors), name(problem.result),
                     problem.has_bias ? ", with a bias" : "", problem.adds ? ", added" : "");
}

}  // namespace lathe
