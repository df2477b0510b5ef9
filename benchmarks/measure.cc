#include "benchmarks/measure.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "benchmarks/cases.h"

namespace lathe::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Odd, for a median that was measured.
constexpr int kRepeats = 9;
/// A repeat is long beside the clock's resolution and beside what waiting for a GPU takes (some 10 microseconds).
constexpr double kSecondsOfRepeat = 0.01;
constexpr std::int64_t kMostSets = 64;

}  // namespace

Rotation::Rotation(const Case& measured, const DeviceRef& device) : device_(device) {
  const std::int64_t bytes = Placed::bytes(measured);
  const std::int64_t sets = std::clamp<std::int64_t>((rotation_bytes(device->kind()) + bytes - 1) / bytes, 1, kMostSets);
  for (std::int64_t i = 0; i < sets; ++i) sets_.push_back(std::make_unique<Placed>(measured, device));
  seconds_of(sets);
}

double Rotation::seconds_of(std::int64_t calls) {
  device_->synchronize();
  const auto begin = Clock::now();
  for (std::int64_t i = 0; i < calls; ++i) {
    sets_[next_]->call()();
    next_ = (next_ + 1) % sets_.size();
  }
  device_->synchronize();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::int64_t rotation_bytes(DeviceKind kind) {
  constexpr std::int64_t kMebibyte = 1 << 20;
  if (kind == DeviceKind::cuda) return 512 * kMebibyte;
  const std::int64_t cache = std::max<std::int64_t>(::sysconf(_SC_LEVEL3_CACHE_SIZE), ::sysconf(_SC_LEVEL2_CACHE_SIZE));
  return std::clamp(4 * cache, 4 * kMebibyte, 256 * kMebibyte);
}

Time measure(const Case& measured, const MakeDevice& make_device) {
  Rotation rotation(measured, make_device());
  std::int64_t calls = 1;
  for (double seconds = rotation.seconds_of(calls); seconds < kSecondsOfRepeat;) {
    // Towards the goal, but not by more than tenfold on the word of a short time.
    const double factor = std::clamp(1.1 * kSecondsOfRepeat / std::max(seconds, 1e-9), 1.5, 10.0);
    calls = static_cast<std::int64_t>(static_cast<double>(calls) * factor) + 1;
    seconds = rotation.seconds_of(calls);
  }
  std::array<double, kRepeats> times{};
  for (double& time : times) time = rotation.seconds_of(calls) / static_cast<double>(calls);
  std::ranges::sort(times);
  const double median = times[kRepeats / 2];
  return {.seconds = median,
          .spread = (times[kRepeats - 1 - kRepeats / 4] - times[kRepeats / 4]) / median,
          .calls = calls,
          .sets = rotation.sets()};
}

Ceilings measure_ceilings(DeviceKind kind, const MakeDevice& make_device) {
  const bool host = kind == DeviceKind::cpu;
  Ceilings ceilings;
  // memcpy stores past the cache from some size on, which isn't always faster: the best of small and large copies counts.
  const std::vector<std::int64_t> mebibytes = host ? std::vector<std::int64_t>{4, 128} : std::vector<std::int64_t>{1024};
  for (const std::int64_t size : mebibytes) {
    const Case copied = copy_case(kind, size << 20);
    ceilings.copy = std::max(ceilings.copy, static_cast<double>(copied.bytes()) / measure(copied, make_device).seconds);
  }
  // Large enough that a library's best is reached, square enough that memory doesn't matter.
  for (const Case& product : make_cases("matmul", kind, {.tokens = host ? 1024 : 8192, .channels = host ? 1024 : 4096})) {
    double& best = ceilings.products[product.dtype];
    best = std::max(best, static_cast<double>(product.operations) / measure(product, make_device).seconds);
  }
  return ceilings;
}

}  // namespace lathe::bench
