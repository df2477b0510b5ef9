// The cases of `lathe bench` under Google Benchmark's options and reports, one benchmark a case: "layernorm_forward/cpu/f32/T=1024 C=768".
// An emulated device has no time, and isn't among them.
#include <benchmark/benchmark.h>

#include <string>

#include "benchmarks/cases.h"
#include "benchmarks/measure.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"

namespace {

using lathe::Device;
using lathe::DeviceKind;
namespace bench = lathe::bench;

/// Calls between one look at the clock and the next: waiting for a GPU takes longer than a kernel.
constexpr std::int64_t kBatch = 16;

void run(benchmark::State& state, const bench::Case& measured, const bench::MakeDevice& make_device) {
  bench::Rotation rotation(measured, make_device());
  while (state.KeepRunningBatch(kBatch)) state.SetIterationTime(rotation.seconds_of(kBatch));
  const auto calls = static_cast<double>(state.iterations());
  state.counters["bytes/s"] = benchmark::Counter(static_cast<double>(measured.bytes()) * calls, benchmark::Counter::kIsRate);
  state.counters["op/s"] = benchmark::Counter(static_cast<double>(measured.operations) * calls, benchmark::Counter::kIsRate);
}

void register_cases(DeviceKind kind, const bench::MakeDevice& make_device) {
  for (const bench::Sizes& sizes : bench::usual_sizes(kind)) {
    for (const std::string_view family : bench::families()) {
      for (const bench::Case& measured : bench::make_cases(family, kind, sizes)) {
        const std::string name =
            measured.kernel + (kind == DeviceKind::cpu ? "/cpu/" : "/cuda/") + measured.dtype + "/" + measured.shape_text();
        benchmark::RegisterBenchmark(name.c_str(), run, measured, make_device)->UseManualTime()->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_cases(DeviceKind::cpu,
                 [] { return Device::cpu({.threads = lathe::default_threads().threads, .target = {}, .reserved_bytes = 0}); });
#if defined(LATHE_HAS_CUDA) && !defined(LATHE_EMULATED)
  try {
    Device::cuda({});
    register_cases(DeviceKind::cuda, [] { return Device::cuda({}); });
  } catch (const lathe::UserError&) {
    // No GPU here: the CPU's cases are what there is.
  }
#endif
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
