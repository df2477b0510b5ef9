#pragma once
// Which algorithm of the library computes which product on a CUDA device: chosen once for each problem, by the library's own expectation or by
// time, and kept as a table. Internal: no installed header needs it.
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/kernels/matmul_library.h"

namespace lathe {

/// Seconds of one run of a problem by an algorithm; time_on_device() of matmul_timer.h measures them. Throws CudaError where it doesn't run.
using MatmulTimer = std::function<double(const MatmulProblem&, const MatmulAlgorithm&)>;

/// What tuning found for one problem.
struct TunedMatmul {
  MatmulProblem problem;
  std::size_t candidates;  ///< that the library named
  double first_seconds;    ///< of the first; infinite where it doesn't run
  double best_seconds;     ///< of the one chosen; infinite where none runs
};

/// One a device; not to be used by two threads at once.
class CudaMatmulPlans {
 public:
  explicit CudaMatmulPlans(std::unique_ptr<MatmulLibrary> library);

  MatmulLibrary& library() { return *library_; }

  /// Chooses the algorithm for a problem, unless that is done: the first of the library's candidates, which is the same for a version of
  /// the library and a device. Throws CudaError where there is none.
  void prepare(const MatmulProblem& problem) { static_cast<void>(plan(problem)); }
  void enqueue(CudaStreamHandle stream, const MatmulProblem& problem, const MatmulOperands& operands);

  /// Times the candidates for every problem that is known and neither tuned nor taken from a table, and chooses the fastest; of equals the
  /// first. Candidates that don't run are left out; where none does, the choice stays as it was. In the order of the problems.
  std::vector<TunedMatmul> tune(const MatmulTimer& timer);

  /// All choices, as JSON lines: the library's name, then one problem a line, in order, so that the same choices give the same text.
  std::string table() const;
  /// Takes the choices of a table over, in the place of any for the same problems: another rank's, or those of the run that is resumed.
  /// Throws std::invalid_argument, and takes nothing, where the text is no table (with its line), or comes from another library, version or
  /// device.
  void use_table(std::string_view text);

 private:
  struct Plan {
    MatmulAlgorithm algorithm;
    bool tuned;  ///< or taken from a table
  };
  const Plan& plan(const MatmulProblem& problem);

  std::unique_ptr<MatmulLibrary> library_;
  std::map<MatmulProblem, Plan> plans_;
};

}  // namespace lathe
