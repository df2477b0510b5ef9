#pragma once
// What the tests of products, losses, embeddings and optimizers share: guarded buffers, streams, and the rule for errors.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/stream.h"
#include "tests/kernels/bits.h"

namespace lathe::testing {

/// In what results for T are computed exactly enough.
template <class T>
struct WideOf {
  using type = double;
};
template <>
struct WideOf<double> {
  using type = long double;
};
template <class T>
using Wide = typename WideOf<T>::type;

/// A buffer of NaN between two guards. `misalignment` elements are put before its first, which is at a multiple of 64 bytes
/// otherwise.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::int64_t count, std::int64_t misalignment = 1)
      : count_(count), bytes_(static_cast<std::size_t>(count) * sizeof(T) + 3 * kGuard, std::byte{0xA5}) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    first_ = kGuard + (kGuard - address % kGuard) % kGuard + static_cast<std::size_t>(misalignment) * sizeof(T);
    if constexpr (std::is_floating_point_v<T>) {
      for (T& value : values()) value = std::numeric_limits<T>::quiet_NaN();
    }
  }
  Guarded(std::int64_t count, const std::vector<T>& values, std::int64_t misalignment = 1) : Guarded(count, misalignment) {
    for (std::size_t i = 0; i < values.size(); ++i) data()[i] = values[i];
  }

  Guarded(const Guarded&) = delete;  // a copy would lie at another alignment
  Guarded& operator=(const Guarded&) = delete;
  Guarded(Guarded&&) noexcept = default;
  Guarded& operator=(Guarded&&) noexcept = default;
  ~Guarded() = default;

  T* data() { return reinterpret_cast<T*>(bytes_.data() + first_); }
  T& operator[](std::int64_t i) { return data()[i]; }
  std::span<T> values() { return {data(), static_cast<std::size_t>(count_)}; }
  std::vector<T> copy() { return {data(), data() + count_}; }

  void expect_guards_whole(const std::string& name) {
    const std::size_t end = first_ + static_cast<std::size_t>(count_) * sizeof(T);
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if (i >= first_ && i < end) continue;
      ASSERT_EQ(bytes_[i], std::byte{0xA5}) << name << ": written "
                                            << static_cast<std::ptrdiff_t>(i - (i < first_ ? first_ : end)) << " bytes from its "
                                            << (i < first_ ? "start" : "end");
    }
  }

 private:
  static constexpr std::size_t kGuard = 64;
  std::int64_t count_;
  std::size_t first_ = 0;
  std::vector<std::byte> bytes_;
};

/// Instruction sets that this machine runs.
inline std::vector<CpuTarget> targets() {
  if (best_cpu_target() == CpuTarget::v4) return {CpuTarget::v3, CpuTarget::v4};
  return {CpuTarget::v3};
}

inline std::string name_of(CpuStream stream) {
  return std::string(name(stream.target)) + ", " + std::to_string(stream.threads) + " threads";
}

template <class T>
std::vector<T> normal_values(std::mt19937& random, std::int64_t count, double deviation = 1.0) {
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(normal(random));
  return values;
}

/// The largest error of plain arithmetic's results.
template <class T>
Wide<T> largest_error(std::span<const T> plain, std::span<const Wide<T>> exact) {
  Wide<T> largest = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) largest = std::max(largest, std::abs(static_cast<Wide<T>>(plain[i]) - exact[i]));
  return largest;
}

/// The rule: the largest error is at most twice that of plain arithmetic in the same type, plus one rounding of the largest
/// result. NaN never passes, but where the exact result is NaN too.
template <class T>
void expect_exact_enough(std::span<const T> result, std::span<const Wide<T>> exact, Wide<T> plain_error,
                         const std::string& name) {
  ASSERT_EQ(result.size(), exact.size()) << name;
  Wide<T> largest = 0;
  Wide<T> error = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(std::isnan(result[i]), std::isnan(exact[i])) << name << " at " << i << ": " << result[i] << " for " << exact[i];
    if (std::isnan(exact[i])) continue;
    largest = std::max(largest, std::abs(exact[i]));
    error = std::max(error, std::abs(static_cast<Wide<T>>(result[i]) - exact[i]));
  }
  EXPECT_LE(error, 2 * plain_error + std::numeric_limits<T>::epsilon() * largest)
      << name << ": plain arithmetic's error is " << plain_error;
}

template <class T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b, const std::string& name) {
  ASSERT_EQ(a.size(), b.size()) << name;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(test::bits(a[i]), test::bits(b[i])) << name << " at " << i << ": " << a[i] << " and " << b[i];
  }
}

}  // namespace lathe::testing
