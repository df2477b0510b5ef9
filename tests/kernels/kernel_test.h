#pragma once
// What the kernels' tests share: guarded and poisoned buffers, every instruction set and number of threads, and the rule of
// accuracy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/dropout.h"
#include "lathe/kernels/philox.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"
#include "tests/kernels/bits.h"
#include "tests/kernels/device_buffer.h"

namespace lathe::test {

/// A backend, by its stream's type, and an element type: what kernels' tests are instantiated for.
template <class StreamType, class ElementType>
struct Case {
  using Stream = StreamType;
  using T = ElementType;
};
#ifdef LATHE_HAS_CUDA
// The emulation and a GPU run the same list. The CPU's is run by the builds without them.
using Cases = ::testing::Types<Case<CudaStream, float>, Case<CudaStream, Bf16>>;
#else
using Cases = ::testing::Types<Case<CpuStream, float>, Case<CpuStream, double>>;
#endif

/// Names the instances of a typed test: "LayerNormKernel/cuda_bf16.Forward...".
class CaseNames {
 public:
  template <class C>
  static std::string GetName(int) {  // NOLINT(readability-identifier-naming): what GoogleTest asks for
    const std::string backend = std::is_same_v<typename C::Stream, CpuStream> ? "cpu" : "cuda";
    return backend + (std::is_same_v<typename C::T, Bf16> ? "_bf16" : (std::is_same_v<typename C::T, float> ? "_f32" : "_f64"));
  }
};

using Dtypes = ::testing::Types<float, double>;

/// The instruction sets that this processor runs; v3 always.
inline std::vector<CpuTarget> targets() {
  if (best_cpu_target() == CpuTarget::v4) return {CpuTarget::v3, CpuTarget::v4};
  return {CpuTarget::v3};
}

/// Memory between two guards, all of it NaN (or another value that no kernel writes) until something is put there. The data
/// starts one element past a multiple of 64 bytes, since kernels may not expect more than an element's alignment.
template <class T, class Stream = CpuStream>
class Buffer {
 public:
  explicit Buffer(std::int64_t count) : storage_(static_cast<std::size_t>(count + 2 * kGuard + kLine), poison()), count_(count) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data() + kGuard);
    const auto line = (address + 63U) / 64U * 64U;
    first_ = kGuard + static_cast<std::int64_t>((line - address) / sizeof(T)) + 1;
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(static_cast<std::int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data());
  }

  T* data() { return storage_.data() + first_; }
  const T* data() const { return storage_.data() + first_; }
  std::int64_t size() const { return count_; }
  T& operator[](std::int64_t i) { return data()[i]; }

  /// The values, after a check that nothing was written before or behind them.
  std::vector<T> values(const std::string& what) const {
    const T expected = poison();
    for (std::int64_t i = 0; i < std::ssize(storage_); ++i) {
      if (i >= first_ && i < first_ + count_) continue;
      if (bits(storage_[static_cast<std::size_t>(i)]) != bits(expected)) {
        ADD_FAILURE() << what << ": written out of bounds, at index " << i - first_ << " of " << count_;
        break;
      }
    }
    return {data(), data() + count_};
  }

 private:
  static constexpr std::int64_t kGuard = 32;
  static constexpr std::int64_t kLine = 64 / sizeof(T) + 1;
  static T poison() {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(0x5A);
    } else {
      return static_cast<T>(std::numeric_limits<double>::quiet_NaN());
    }
  }

  std::vector<T> storage_;
  std::int64_t count_;
  std::int64_t first_;
};

#ifdef LATHE_HAS_CUDA
template <class T>
class Buffer<T, CudaStream> : public DeviceBuffer<T> {
 public:
  using DeviceBuffer<T>::DeviceBuffer;
};
#endif

/// A kernel's workspace: aligned to 64 bytes, full of NaN, with guards.
template <class Stream = CpuStream>
class Workspace {
 public:
  explicit Workspace(std::int64_t bytes) : storage_(static_cast<std::size_t>(bytes) + 3 * kGuard, kPoison), bytes_(bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    first_ = static_cast<std::int64_t>((address + kGuard + 63U) / 64U * 64U - address);
  }
  std::byte* data() { return storage_.data() + first_; }
  void expect_intact() const {
    for (std::int64_t i = 0; i < std::ssize(storage_); ++i) {
      if (i >= first_ && i < first_ + bytes_) continue;
      ASSERT_EQ(storage_[static_cast<std::size_t>(i)], kPoison) << "workspace: byte " << i - first_ << " of " << bytes_;
    }
  }

 private:
  static constexpr std::size_t kGuard = 128;
  static constexpr auto kPoison = std::byte{0xFF};  // every float and double of such bytes is NaN

  std::vector<std::byte> storage_;
  std::int64_t bytes_;
  std::int64_t first_;
};

#ifdef LATHE_HAS_CUDA
template <>
class Workspace<CudaStream> {
 public:
  explicit Workspace(std::int64_t bytes) : buffer_(bytes) {}
  std::byte* data() { return buffer_.data(); }
  void expect_intact() const { buffer_.expect_intact("workspace"); }

 private:
  DeviceBuffer<std::byte> buffer_;
};
#endif

/// `count` normally distributed numbers around `mean`.
template <class T>
std::vector<T> random_values(std::int64_t count, unsigned seed, double mean = 0.0, double deviation = 1.0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(distribution(generator));
  return values;
}

/// Results of a kernel, by name.
template <class T>
using Results = std::vector<std::pair<std::string, std::vector<T>>>;

/// Runs a kernel on each instruction set with 1, 2 and 3 threads, expects the same bits of all numbers of threads, and hands the
/// results of each instruction set to `check`.
template <class T>
void on_every_target(const std::function<Results<T>(CpuStream)>& kernel, const std::function<void(const Results<T>&)>& check) {
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    const Results<T> one = kernel({.threads = 1, .target = target});
    for (const int threads : {2, 3}) {
      const Results<T> many = kernel({.threads = threads, .target = target});
      ASSERT_EQ(many.size(), one.size());
      for (std::size_t i = 0; i < one.size(); ++i) {
        ASSERT_EQ(many[i].second.size(), one[i].second.size());
        EXPECT_TRUE(one[i].second.empty() ||
                    std::memcmp(many[i].second.data(), one[i].second.data(), one[i].second.size() * sizeof(T)) == 0)
            << one[i].first << " depends on the number of threads (" << threads << ")";
      }
    }
    check(one);
  }
}

/// What a kernel has computed, by name and of any element type.
class Outputs {
 public:
  template <class V>
  void add(std::string name, std::vector<V> values) {
    arrays_.push_back({std::move(name), std::move(values)});
  }
  bool has(std::string_view name) const {
    return std::ranges::any_of(arrays_, [&](const Array& array) { return array.name == name; });
  }
  /// Throws where there is none of that name and type.
  template <class V>
  const std::vector<V>& get(std::string_view name) const {
    for (const Array& array : arrays_) {
      if (array.name == name) return std::get<std::vector<V>>(array.values);
    }
    throw std::out_of_range("no output '" + std::string(name) + "'");
  }
  /// The name of an array that isn't the same, bit by bit, in `other`; empty where all are.
  std::string difference(const Outputs& other) const {
    if (arrays_.size() != other.arrays_.size()) return "the number of outputs";
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      if (arrays_[i].name != other.arrays_[i].name || arrays_[i].bytes() != other.arrays_[i].bytes()) return arrays_[i].name;
    }
    return "";
  }

 private:
  struct Array {
    std::string name;
    std::variant<std::vector<float>, std::vector<double>, std::vector<Bf16>, std::vector<std::int32_t>> values;
    std::string_view bytes() const {
      return std::visit(
          [](const auto& v) { return std::string_view(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(v[0])); },
          values);
    }
  };
  std::vector<Array> arrays_;
};

/// Runs a kernel in every way that a backend has, expects the same bits wherever they are promised, and hands the outputs to `check`:
/// on the CPU each instruction set, with 1, 2 and 3 threads; emulated, buffers aligned and not, with threads and blocks forward, in reverse
/// and at random; on a GPU likewise, 50 times.
template <std::same_as<CpuStream> Stream>
void on_every_way(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
  for (const CpuTarget target : targets()) {
    SCOPED_TRACE(name(target));
    const Outputs one = kernel({.threads = 1, .target = target});
    for (const int threads : {2, 3}) {
      EXPECT_EQ(one.difference(kernel({.threads = threads, .target = target})), "")
          << "depends on the number of threads: " << threads;
    }
    check(one);
  }
}
#ifdef LATHE_HAS_CUDA
template <std::same_as<CudaStream> Stream>
void on_every_way(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
  for (const Placement placement : {Placement::aligned, Placement::shifted}) {
    SCOPED_TRACE(placement == Placement::aligned ? "aligned" : "shifted");
    place_buffers(placement);
    const DeviceRuns runs;
    const Outputs one = kernel(runs.stream());
    runs.again([&](const std::string& way) { EXPECT_EQ(one.difference(kernel(runs.stream())), "") << "depends on " << way; });
    check(one);
  }
}
#endif

/// What naive formulas are evaluated in to judge a kernel for T: more than T's precision.
template <class T>
using Reference = std::conditional_t<std::is_same_v<T, double>, long double, double>;

/// What plain arithmetic for T is done in: bf16 is a type of storage, and its plain result a rounded float.
template <class T>
using Plain = std::conditional_t<std::is_same_v<T, Bf16>, float, T>;

template <class T>
std::vector<Plain<T>> plain_values(const std::vector<T>& values) {
  std::vector<Plain<T>> result;
  result.reserve(values.size());
  for (const T value : values) result.push_back(static_cast<Plain<T>>(value));
  return result;
}

template <class T>
constexpr double epsilon_of() {
  if constexpr (std::is_same_v<T, Bf16>) {
    return 1.0 / 128.0;
  } else {
    return std::numeric_limits<T>::epsilon();
  }
}

/// Expects the largest error of `actual`, against `reference`, to be at most twice that of `plain`, which is the same formula
/// evaluated one operation after another in T, and half a unit in the last place of the largest value (plain may happen to be
/// exact). Over less than 64 numbers the largest error of plain is a matter of luck: those may err by 4 epsilon of the largest
/// value or of 1, which is the size of these tests' inputs. NaN must stand where the reference has it and nowhere else.
template <class T>
void expect_accurate(const std::string& what, const std::vector<T>& actual, const std::vector<Plain<T>>& plain,
                     const std::vector<Reference<T>>& reference) {
  ASSERT_EQ(actual.size(), reference.size()) << what;
  ASSERT_EQ(plain.size(), reference.size()) << what;
  Reference<T> largest{0};
  Reference<T> plain_error{0};
  Reference<T> error{0};
  std::size_t worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto value = static_cast<Reference<T>>(actual[i]);
    const auto plain_value = static_cast<Reference<T>>(static_cast<T>(plain[i]));
    ASSERT_EQ(std::isnan(value), std::isnan(reference[i])) << what << "[" << i << "] = " << value;
    if (std::isnan(reference[i])) continue;
    ASSERT_FALSE(std::isnan(plain_value)) << what << "[" << i << "]: the plain formula itself fails";
    largest = std::max(largest, std::abs(reference[i]));
    plain_error = std::max(plain_error, std::abs(plain_value - reference[i]));
    const Reference<T> e = std::abs(value - reference[i]);
    if (!(e <= error)) {
      error = e;
      worst = i;
    }
  }
  constexpr Reference<T> kEpsilon = epsilon_of<T>();
  Reference<T> allowed = 2 * plain_error + largest * kEpsilon / 2;
  if (actual.size() < 64) allowed = std::max(allowed, 4 * kEpsilon * std::max(largest, Reference<T>{1}));
  EXPECT_LE(error, allowed) << what << "[" << worst << "]: " << static_cast<Reference<T>>(actual[worst]) << ", expected "
                            << reference[worst];
}

/// Samples and positions of T packed tokens, in sequences of 13, and a key: what dropout needs.
class DropoutInputs {
 public:
  explicit DropoutInputs(std::int64_t tokens) : sample_(static_cast<std::size_t>(tokens)), position_(sample_.size()) {
    for (std::size_t t = 0; t < sample_.size(); ++t) {
      sample_[t] = static_cast<std::int32_t>(1000003 * (t / 13) + 7);
      position_[t] = static_cast<std::int32_t>(t % 13);
    }
  }
  /// Null pointers where `threshold` is 0: nothing may be read then.
  Dropout dropout(std::uint32_t threshold) const {
    if (threshold == 0) return {};
    return {.key = &key_, .sample = sample_.data(), .position = position_.data(), .site = 41, .threshold = threshold};
  }

 private:
  RandomKey key_{.seed = 0x12345678U, .step = 9};
  std::vector<std::int32_t> sample_;
  std::vector<std::int32_t> position_;
};

/// A dropout whose key, samples and positions are where a stream's kernels can read them.
template <class Stream>
class DropoutArguments {
 public:
  DropoutArguments(const Dropout& dropout, std::int64_t) : dropout_(dropout) {}
  Dropout get() { return dropout_; }

 private:
  Dropout dropout_;
};
#ifdef LATHE_HAS_CUDA
template <>
class DropoutArguments<CudaStream> {
 public:
  DropoutArguments(const Dropout& dropout, std::int64_t tokens) : dropout_(dropout) {
    if (dropout.threshold == 0) return;
    key_.emplace(std::vector<RandomKey>{*dropout.key});
    sample_.emplace(std::vector<std::int32_t>(dropout.sample, dropout.sample + tokens));
    position_.emplace(std::vector<std::int32_t>(dropout.position, dropout.position + tokens));
  }
  Dropout get() {
    if (dropout_.threshold == 0) return {};
    return {.key = key_->data(),
            .sample = sample_->data(),
            .position = position_->data(),
            .site = dropout_.site,
            .threshold = dropout_.threshold};
  }

 private:
  Dropout dropout_;
  std::optional<DeviceBuffer<RandomKey>> key_;
  std::optional<DeviceBuffer<std::int32_t>> sample_;
  std::optional<DeviceBuffer<std::int32_t>> position_;
};
#endif

/// The multiplier of element (t, c), by the definition in dropout.h.
template <class A>
A dropout_multiplier(const Dropout& dropout, std::int64_t t, std::int64_t c) {
  if (dropout.threshold == 0) return A{1};
  const auto words = philox4x32({static_cast<std::uint32_t>(dropout.sample[t]), static_cast<std::uint32_t>(dropout.position[t]),
                                 dropout.site, static_cast<std::uint32_t>(c / 8)},
                                *dropout.key);
  const bool kept = philox_value(words, static_cast<unsigned>(c % 8)) >= dropout.threshold;
  return kept ? A{65536} / (A{65536} - static_cast<A>(dropout.threshold)) : A{0};
}

/// Row `r` of a [_, columns] matrix begins here.
inline std::size_t at(std::int64_t row, std::int64_t column, std::int64_t columns) {
  return static_cast<std::size_t>(row * columns + column);
}

inline const char* use_name(Use use) { return use == Use::skip ? "skip" : (use == Use::write ? "write" : "add"); }

/// What `use` makes of a destination that held `before`.
template <class A, class T>
A used(Use use, T before, A result) {
  if (use == Use::skip) return static_cast<A>(before);
  return use == Use::write ? result : static_cast<A>(before) + result;
}

}  // namespace lathe::test
