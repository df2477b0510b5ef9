// Products in the emulated build, in cuBLASLt's place: each takes its turn in its stream and is computed to the letter.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lathe/kernels/emulation/host_operation.h"
#include "lathe/kernels/matmul_library.h"
#include "lathe/kernels/matmul_literal.h"

namespace lathe {
namespace {

/// cuBLASLt may write any part of its workspace. Of this little one all is written, which is enough to show two streams that share it.
constexpr std::int64_t kWorkspace = 64;

void add_spans(std::vector<emulation::MemorySpan>& spans, const void* matrix, MatmulElement element, std::int64_t rows,
               std::int64_t columns, std::int64_t stride) {
  const auto bytes = [element](std::int64_t elements) { return static_cast<std::size_t>(elements * size_of(element)); };
  if (stride == rows) {
    spans.push_back({.address = matrix, .bytes = bytes(rows * columns)});
    return;
  }
  // What lies between the columns is nobody's to read or write.
  for (std::int64_t j = 0; j < columns; ++j) {
    spans.push_back({.address = static_cast<const std::byte*>(matrix) + bytes(j * stride), .bytes = bytes(rows)});
  }
}

class EmulatedLibrary final : public MatmulLibrary {
 public:
  std::string name() const override { return "emulation"; }

  std::int64_t workspace_bytes() const override { return kWorkspace; }

  std::vector<MatmulAlgorithm> candidates(const MatmulProblem& /*problem*/) override { return {MatmulAlgorithm{}}; }

  bool accepts(const MatmulProblem& /*problem*/, const MatmulAlgorithm& algorithm) override {
    return algorithm == MatmulAlgorithm{};
  }

  void enqueue(CudaStreamHandle stream, const MatmulProblem& p, const MatmulAlgorithm& /*algorithm*/,
               const MatmulOperands& operands) override {
    emulation::HostOperation operation;
    operation.name = to_string(p);
    add_spans(operation.reads, operands.a, p.factors, p.rows_a(), p.columns_a(), p.lda);
    add_spans(operation.reads, operands.b, p.factors, p.rows_b(), p.columns_b(), p.ldb);
    if (p.has_bias) add_spans(operation.reads, operands.bias, p.result, p.m, 1, p.m);
    add_spans(operation.writes, operands.d, p.result, p.m, p.n, p.ldd);
    if (p.adds) operation.reads.insert(operation.reads.end(), operation.writes.begin(), operation.writes.end());
    operation.writes.push_back({.address = operands.workspace, .bytes = static_cast<std::size_t>(kWorkspace)});
    operation.run = [p, operands] { compute_literally(p, operands); };
    emulation::enqueue_host_operation(stream, std::move(operation));
  }
};

}  // namespace

std::unique_ptr<MatmulLibrary> make_matmul_library() { return std::make_unique<EmulatedLibrary>(); }

}  // namespace lathe
