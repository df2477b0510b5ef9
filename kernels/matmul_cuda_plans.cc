#include "lathe/kernels/matmul_cuda_plans.h"

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "lathe/kernels/device/error.h"
#include "lathe/kernels/matmul_table.h"

namespace lathe {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

CudaMatmulPlans::CudaMatmulPlans(std::unique_ptr<MatmulLibrary> library) : library_(std::move(library)) {}

const CudaMatmulPlans::Plan& CudaMatmulPlans::plan(const MatmulProblem& problem) {
  const auto found = plans_.find(problem);
  if (found != plans_.end()) return found->second;
  return plans_.emplace(problem, Plan{.algorithm = library_->candidates(problem).front(), .tuned = false}).first->second;
}

void CudaMatmulPlans::enqueue(CudaStreamHandle stream, const MatmulProblem& problem, const MatmulOperands& operands) {
  library_->enqueue(stream, problem, plan(problem).algorithm, operands);
}

std::vector<TunedMatmul> CudaMatmulPlans::tune(const MatmulTimer& timer) {
  std::vector<TunedMatmul> report;
  for (auto& [problem, plan] : plans_) {
    if (plan.tuned) continue;
    const std::vector<MatmulAlgorithm> candidates = library_->candidates(problem);
    TunedMatmul tuned{.problem = problem, .candidates = candidates.size(), .first_seconds = kNever, .best_seconds = kNever};
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      double seconds = kNever;
      try {
        seconds = timer(problem, candidates[i]);
      } catch (const CudaError&) {
        continue;  // the library names some that the device then refuses
      }
      if (i == 0) tuned.first_seconds = seconds;
      if (seconds < tuned.best_seconds) {
        tuned.best_seconds = seconds;
        plan.algorithm = candidates[i];
      }
    }
    plan.tuned = true;
    report.push_back(tuned);
  }
  return report;
}

std::string CudaMatmulPlans::table() const {
  MatmulTable table{.library = library_->name(), .choices = {}};
  for (const auto& [problem, plan] : plans_) table.choices.emplace(problem, plan.algorithm);
  return to_text(table);
}

void CudaMatmulPlans::use_table(std::string_view text) {
  const MatmulTable table = matmul_table(text);
  if (table.library != library_->name()) {
    throw std::invalid_argument("the table of matrix products is of " + table.library + "; this is " + library_->name() +
                                ": tune anew, or go on without the table");
  }
  for (const auto& [problem, algorithm] : table.choices) {
    if (library_->accepts(problem, algorithm)) continue;
    throw std::invalid_argument("the table of matrix products has an algorithm that " + library_->name() + " refuses for the " +
                                to_string(problem) + ": tune anew, or go on without the table");
  }
  for (const auto& [problem, algorithm] : table.choices) plans_[problem] = {.algorithm = algorithm, .tuned = true};
}

}  // namespace lathe
