#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/cases.h"
#include "benchmarks/measure.h"
#include "lathe/kernels/cpu_target.h"
#include "lathe/runtime/error.h"
#include "lathe/runtime/processors.h"
#include "lathe/training/number_text.h"
#include "tools/bench_profile.h"
#include "tools/bench_step.h"
#include "tools/commands.h"
#include "tools/device_request.h"
#include "tools/json_rows.h"
#include "tools/line_output.h"
#include "tools/signals.h"

namespace lathe {
namespace {

using Json = nlohmann::ordered_json;
using bench::Case;
using bench::Ceilings;
using bench::Sizes;

/// Sizes from "4096x1024". Throws UsageError.
Sizes parse_shape(const std::string& text) {
  const auto number = [](std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() ? value : 0;
  };
  const std::size_t x = text.find('x');
  const Sizes sizes = x == std::string::npos ? Sizes{}
                                             : Sizes{.tokens = number(std::string_view(text).substr(0, x)),
                                                     .channels = number(std::string_view(text).substr(x + 1))};
  constexpr std::int64_t kMostTokens = 1 << 20;
  constexpr std::int64_t kMostChannels = 8192;
  if (sizes.tokens < 1 || sizes.tokens > kMostTokens || sizes.channels < 64 || sizes.channels > kMostChannels ||
      sizes.channels % 64 != 0) {
    throw UsageError(
        fmt::format("--shape is '{}'; it must be tokens (up to {}) x channels (a multiple of 64 up to {}), such as 4096x1024",
                    printable(text), grouped(kMostTokens), grouped(kMostChannels)));
  }
  return sizes;
}

/// Where cases run.
struct Bench {
  DeviceKind kind = DeviceKind::cpu;
  std::string name;  ///< for people
  bench::MakeDevice make_device;
};

bool has_gpu() { return cuda_backend() == CudaBackend::gpu && !Device::why_no_cuda({}); }

Bench choose_bench(const BenchOptions& options) {
  using Place = DeviceRequest::Place;
  const DeviceRequest request = parse_device(options.device);
  if (request.place == Place::cuda || (request.place == Place::automatic && has_gpu())) {
    const Device::CudaOptions gpu{.index = request.index, .limit_bytes = 0};
    return {.kind = DeviceKind::cuda, .name = Device::cuda(gpu)->name(), .make_device = [gpu] { return Device::cuda(gpu); }};
  }
  const int threads = options.threads ? *options.threads : default_threads().threads;
  Bench bench{.kind = DeviceKind::cpu, .name = {}, .make_device = [threads] {
                return Device::cpu({.threads = threads, .target = std::nullopt, .reserved_bytes = 0});
              }};
  bench.name = fmt::format("cpu, {}, {}, products by {}", counted(threads, "thread"),
                           name(bench.make_device()->cpu_stream().target), MatmulPlans::library());
  return bench;
}

/// Products are a library's: the emulation has no kernel of theirs to count.
enum class Purpose : std::uint8_t { time, profile };

std::vector<Case> chosen_cases(const BenchOptions& options, DeviceKind kind, Purpose purpose) {
  const std::vector<Sizes> sizes = options.shape ? std::vector<Sizes>{parse_shape(*options.shape)} : bench::usual_sizes(kind);
  std::vector<Case> cases;
  for (const std::string_view family : bench::families()) {
    if (!options.families.empty() && std::ranges::find(options.families, family) == options.families.end()) continue;
    if (purpose == Purpose::profile && family == "matmul") continue;
    for (const Sizes& one : sizes) std::ranges::move(bench::make_cases(family, kind, one), std::back_inserter(cases));
  }
  if (cases.empty()) {
    throw UsageError(fmt::format("{} has no kernel of Lathe's own on CUDA", options.families.front()));
  }
  return cases;
}

/// "12.3 us", "4.56 ms": three digits.
std::string time_text(double seconds) {
  const bool small = seconds < 1e-3;
  const double value = seconds * (small ? 1e6 : 1e3);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, small ? "us" : "ms");
}

/// A rate in billions a second, and what part of the ceiling it is; empty columns where there are none.
std::string rate_text(double amount, double seconds, double ceiling) {
  if (amount == 0.0) return fmt::format("{:>8} {:>7}", "-", "-");
  const double rate = amount / seconds;
  return fmt::format("{:>8.1f} {:>7}", rate / 1e9, ceiling > 0.0 ? fmt::format("{:.1f} %", 100.0 * rate / ceiling) : "-");
}

/// What `ceilings` says of products with this case's element type; 0 where nothing.
double product_ceiling(const Ceilings& ceilings, const Case& measured) {
  const auto found = ceilings.products.find(measured.dtype);
  return found == ceilings.products.end() ? 0.0 : found->second;
}

Json described(const Case& measured) {
  Json json = {{"family", measured.family}, {"kernel", measured.kernel}, {"dtype", measured.dtype},
               {"shape", Json::object()},   {"bytes", measured.bytes()}, {"operations", measured.operations}};
  for (const auto& [name, size] : measured.shape) json["shape"][name] = size;
  return json;
}

constexpr std::string_view kRow = "{:<27} {:<8} {:<24}";
std::string row_head(const Case& measured) { return fmt::format(kRow, measured.kernel, measured.dtype, measured.shape_text()); }

/// Exit status of what `stop` may have ended.
int status_of(const std::atomic<int>& stop) { return stop.load() == 0 ? 0 : 128 + stop.load(); }

int print_times(const Bench& bench, const std::vector<Case>& cases, bool json) {
  const std::atomic<int>& stop = watch_stop_signals();
  LineOutput output;
  const Ceilings ceilings = bench::measure_ceilings(bench.kind, bench.make_device);
  const std::int64_t rotation = bench::rotation_bytes(bench.kind);
  const Json head = {{"device", bench.name},
                     {"emulated", false},
                     {"rotation_bytes", rotation},
                     {"copy_bytes_per_second", ceilings.copy},
                     {"product_operations_per_second", ceilings.products}};
  JsonRows rows(output, head.dump(), "rows");
  std::string text = fmt::format("{}\nceilings: a copy reads and writes {:.1f} GB/s", bench.name, ceilings.copy / 1e9);
  for (const auto& [dtype, rate] : ceilings.products) text += fmt::format(", a {} product does {:.1f} Gop/s", dtype, rate / 1e9);
  text += fmt::format("\noperands rotate over {} MiB; +-: between the quartiles of the repeats\n\n", rotation >> 20);
  text += fmt::format(kRow, "kernel", "dtype", "shape") +
          fmt::format(" {:>8} {:>7} {:>8} {:>7} {:>8} {:>7}\n", "time", "+-", "GB/s", "of copy", "Gop/s", "of prod");
  for (const Case& measured : cases) {
    if (stop.load() != 0) break;
    const bench::Time time = bench::measure(measured, bench.make_device);
    const auto bytes = static_cast<double>(measured.bytes());
    const auto operations = static_cast<double>(measured.operations);
    const double product = product_ceiling(ceilings, measured);
    if (json) {
      Json row = described(measured);
      row["seconds"] = time.seconds;
      row["spread"] = time.spread;
      row["calls"] = time.calls;
      row["sets"] = time.sets;
      row["bytes_per_second"] = bytes / time.seconds;
      row["fraction_of_copy"] = bytes / time.seconds / ceilings.copy;
      row["operations_per_second"] = operations / time.seconds;
      row["fraction_of_product"] = product > 0.0 ? Json(operations / time.seconds / product) : Json();
      if (!rows.add(row.dump())) return 0;
      continue;
    }
    text += row_head(measured) + fmt::format(" {:>8} {:>6.1f}% {} {}\n", time_text(time.seconds), 100.0 * time.spread,
                                             rate_text(bytes, time.seconds, ceilings.copy),
                                             rate_text(operations, time.seconds, product));
    if (!output.write(text)) return 0;
    text.clear();
  }
  if (json) rows.finish(stop.load() == 0);
  return status_of(stop);
}

/// An emulated device has no time: each case runs once, and is told with what its mathematics asks for.
int print_emulated(const Bench& bench, const std::vector<Case>& cases, bool json) {
  constexpr const char* kNotice = "emulated on the host: each kernel ran once, no time is measured";
  const std::atomic<int>& stop = watch_stop_signals();
  LineOutput output;
  const Json head = {{"device", bench.name}, {"emulated", true}, {"notice", kNotice}};
  JsonRows rows(output, head.dump(), "rows");
  std::string text = fmt::format("{}: {}\n\n", bench.name, kNotice);
  text += fmt::format(kRow, "kernel", "dtype", "shape") + fmt::format(" {:>14} {:>14}\n", "bytes", "operations");
  for (const Case& measured : cases) {
    if (stop.load() != 0) break;
    const DeviceRef device = bench.make_device();
    const bench::Placed placed(measured, device);
    placed.call()();
    device->synchronize();
    if (json) {
      if (!rows.add(described(measured).dump())) return 0;
      continue;
    }
    text += row_head(measured) + fmt::format(" {:>14} {:>14}\n", grouped(measured.bytes()), grouped(measured.operations));
    if (!output.write(text)) return 0;
    text.clear();
  }
  if (json) rows.finish(stop.load() == 0);
  return status_of(stop);
}

}  // namespace

int bench_command(const BenchOptions& options) {
  if (std::ranges::find(options.families, kBenchStep) != options.families.end()) {
    if (options.families.size() > 1)
      throw UsageError("`lathe bench step` measures whole steps; kernels are measured by another call");
    if (options.shape || options.profile) {
      throw UsageError(fmt::format("{} is for kernels; `lathe bench step` takes --tokens, --lengths and --model-size",
                                   options.shape ? "--shape" : "--profile"));
    }
    return bench_steps(options);
  }
  if (const std::vector<std::string> names = given(options.step); !names.empty()) {
    throw UsageError(
        fmt::format("{} {} for whole steps: `lathe bench step`", fmt::join(names, ", "), names.size() == 1 ? "is" : "are"));
  }
  if (options.profile) {
    if (options.device == "cpu") throw UsageError("--profile emulated runs the CUDA kernels; it goes with no --device cpu");
    if (cuda_backend() != CudaBackend::emulated) {
      throw UsageError(
          "this build doesn't emulate CUDA, which alone can count: `cmake --preset emulated && cmake --build --preset emulated` "
          "makes "
          "build/emulated/lathe, which does");
    }
    print_profiles(chosen_cases(options, DeviceKind::cuda, Purpose::profile), options.json);
    return 0;
  }
  const Bench bench = choose_bench(options);
  const std::vector<Case> cases = chosen_cases(options, bench.kind, Purpose::time);
  const bool emulated = bench.kind == DeviceKind::cuda && cuda_backend() == CudaBackend::emulated;
  return emulated ? print_emulated(bench, cases, options.json) : print_times(bench, cases, options.json);
}

}  // namespace lathe
