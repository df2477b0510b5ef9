#pragma once
// The column-major problem that cuBLASLt takes, computed to the letter on the host: what cuBLASLt is to the emulation, and what a product on a
// GPU is compared with. Internal to kernels/.
#include "lathe/kernels/matmul_problem.h"

namespace lathe {

/// D = op(A) op(B) + beta D (+ bias), as MatmulProblem says. Each element of D is summed in order of k, in one fp32 accumulator that
/// starts at 0, each product rounded to fp32 before it is added; then D's old value is added, or the bias; then it is rounded once to D's type.
/// Where nothing is added, D isn't read. Throws std::invalid_argument where cuBLASLt would refuse the problem or run astray: strides
/// shorter than a column, addresses not as aligned as stated, a bias stated and absent.
void compute_literally(const MatmulProblem& problem, const MatmulOperands& operands);

}  // namespace lathe
