#include "lathe/kernels/matmul_timer.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/runtime_api.h"

namespace lathe {
namespace {

constexpr std::size_t kRuns = 9;

/// Numbers to fill operands with. Their count has no small divisors in common with usual sizes, so that rows differ.
constexpr std::size_t kNumbers = (1U << 18U) - 5;

class Memory {
 public:
  explicit Memory(std::size_t bytes) { check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes)); }
  ~Memory() { static_cast<void>(cudaFree(data_)); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory(Memory&&) = delete;
  Memory& operator=(Memory&&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

class Moment {
 public:
  Moment() { check(cudaEventCreateWithFlags(&event_, cudaEventDefault)); }
  ~Moment() { static_cast<void>(cudaEventDestroy(event_)); }
  Moment(const Moment&) = delete;
  Moment& operator=(const Moment&) = delete;
  Moment(Moment&&) = delete;
  Moment& operator=(Moment&&) = delete;
  void record(CudaStreamHandle stream) { check(cudaEventRecord(event_, stream)); }
  /// Waits for this one.
  double seconds_since(const Moment& begin) const {
    float milliseconds = 0;
    check(cudaEventSynchronize(event_));
    check(cudaEventElapsedTime(&milliseconds, begin.event_, event_));
    return static_cast<double>(milliseconds) * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

template <class T>
std::vector<std::byte> normal_numbers() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(kNumbers * sizeof(T));
  for (std::size_t i = 0; i < kNumbers; ++i) reinterpret_cast<T*>(bytes.data())[i] = static_cast<T>(normal(random));
  return bytes;
}

/// Memory as aligned as the problem says and no better, since that may decide how fast an algorithm is.
class Operand {
 public:
  Operand(std::int64_t elements, MatmulElement element, std::int32_t alignment)
      : skipped_(alignment < kMatmulAlignment ? static_cast<std::size_t>(alignment) : 0),
        memory_(static_cast<std::size_t>(elements * size_of(element)) + skipped_) {
    const std::vector<std::byte> numbers = element == MatmulElement::f32 ? normal_numbers<float>() : normal_numbers<Bf16>();
    const auto bytes = static_cast<std::size_t>(elements * size_of(element));
    for (std::size_t begin = 0; begin < bytes; begin += numbers.size()) {
      check(cudaMemcpy(data() + begin, numbers.data(), std::min(numbers.size(), bytes - begin), cudaMemcpyHostToDevice));
    }
  }
  std::byte* data() const { return memory_.data() + skipped_; }

 private:
  std::size_t skipped_;
  Memory memory_;
};

/// What one problem's candidates are timed with.
struct Memories {
  Memories(const MatmulProblem& p, std::int64_t workspace_bytes, std::size_t cache_bytes)
      : a(p.columns_a() * p.lda, p.factors, p.alignment_a),
        b(p.columns_b() * p.ldb, p.factors, p.alignment_b),
        d(p.n * p.ldd, p.result, p.alignment_d),
        bias(p.m, p.result, p.alignment_bias),
        workspace(static_cast<std::size_t>(workspace_bytes)),
        cache(cache_bytes) {}
  Operand a, b, d, bias;
  Memory workspace, cache;
};

class DeviceTimer {
 public:
  DeviceTimer(CudaStreamHandle stream, MatmulLibrary& library, std::size_t cache_bytes)
      : stream_(stream), library_(library), cache_bytes_(cache_bytes) {}

  double seconds(const MatmulProblem& problem, const MatmulAlgorithm& algorithm) {
    if (problem_ != problem) {
      memories_.reset();  // before others are allocated
      problem_.reset();
      memories_.emplace(problem, library_.workspace_bytes(), cache_bytes_);
      problem_ = problem;
    }
    const MatmulOperands operands{.d = memories_->d.data(),
                                  .a = memories_->a.data(),
                                  .b = memories_->b.data(),
                                  .bias = problem.has_bias ? memories_->bias.data() : nullptr,
                                  .workspace = memories_->workspace.data(),
                                  .workspace_bytes = library_.workspace_bytes()};
    std::array<double, kRuns> runs{};
    for (std::size_t run = 0; run <= kRuns; ++run) {
      // While the device is at this, the host enqueues what follows, so that no run waits for its launch.
      check(cudaMemsetAsync(memories_->cache.data(), static_cast<int>(run), cache_bytes_, stream_));
      begin_.record(stream_);
      library_.enqueue(stream_, problem, algorithm, operands);
      end_.record(stream_);
      const double duration = end_.seconds_since(begin_);
      if (run > 0) runs[run - 1] = duration;  // the first one loads the code
    }
    std::ranges::nth_element(runs, runs.begin() + kRuns / 2);
    return runs[kRuns / 2];
  }

 private:
  CudaStreamHandle stream_;
  MatmulLibrary& library_;
  std::size_t cache_bytes_;
  Moment begin_, end_;
  std::optional<MatmulProblem> problem_;
  std::optional<Memories> memories_;
};

}  // namespace

MatmulTimer time_on_device(CudaStreamHandle stream, MatmulLibrary& library, std::size_t cache_bytes) {
  auto timer = std::make_shared<DeviceTimer>(stream, library, cache_bytes);
  return [timer = std::move(timer)](const MatmulProblem& problem, const MatmulAlgorithm& algorithm) {
    return timer->seconds(problem, algorithm);
  };
}

MatmulTimer time_on_device(CudaStreamHandle stream, MatmulLibrary& library) {
  int device = 0;
  int cache_bytes = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device));
  return time_on_device(stream, library, 4 * static_cast<std::size_t>(cache_bytes));
}

}  // namespace lathe
