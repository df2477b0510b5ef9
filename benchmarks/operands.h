#pragma once
// How the table's cases name their operands and what is in them. Internal to benchmarks/.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "benchmarks/case.h"
#include "benchmarks/cases.h"
#include "lathe/kernels/dropout.h"
#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"
#include "lathe/text/packing.h"

namespace lathe::bench {

template <class T>
constexpr const char* dtype_name() {
  return std::is_same_v<T, Bf16> ? "bf16" : "f32";
}

template <class Stream>
Stream stream_of(const Device& device) {
  if constexpr (std::is_same_v<Stream, CpuStream>) {
    return device.cpu_stream();
  } else {
    return device.cuda_stream();
  }
}

/// Cases that make<Stream, T>(list) appends, for each element type of a backend. fp64, which is there to check gradients with, isn't measured.
template <class Make>
std::vector<Case> for_each_type(DeviceKind kind, const Make& make) {
  std::vector<Case> list;
  if (kind == DeviceKind::cpu) make.template operator()<CpuStream, float>(list);
#ifdef LATHE_HAS_CUDA
  if (kind == DeviceKind::cuda) {
    make.template operator()<CudaStream, float>(list);
    make.template operator()<CudaStream, Bf16>(list);
  }
#endif
  return list;
}

/// Numbers from -2 to 2 without a pattern that a kernel could notice, or their magnitudes.
enum class Sign : std::uint8_t { any, positive };
template <class T>
Contents noise(Sign sign = Sign::any) {
  return [sign](std::span<std::byte> memory) {
    // A block is made and repeated, since numbers cost more than copies; its length divides nothing.
    std::vector<T> block(65521);
    std::uint32_t state = 12345;
    for (T& value : block) {
      state = state * 1664525U + 1013904223U;
      const float number = static_cast<float>(state >> 24U) / 64.0F - 2.0F;
      value = static_cast<T>(sign == Sign::any || number > 0.0F ? number : 0.125F - number);
    }
    const std::size_t step = block.size() * sizeof(T);
    for (std::size_t at = 0; at < memory.size(); at += step)
      std::memcpy(memory.data() + at, block.data(), std::min(step, memory.size() - at));
  };
}

template <class V>
Contents values(std::vector<V> numbers) {
  return
      [numbers = std::move(numbers)](std::span<std::byte> memory) { std::memcpy(memory.data(), numbers.data(), memory.size()); };
}

template <class T>
Operand operand(std::string name, Access access, Extent extent, std::int64_t count) {
  const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
  return {.name = std::move(name), .access = access, .extent = extent, .bytes = bytes, .touched = bytes, .contents = {}};
}
/// Floating-point numbers, in memory before the first call where they are read.
template <class T>
Operand numbers(std::string name, Access access, Extent extent, std::int64_t count) {
  Operand result = operand<T>(std::move(name), access, extent, count);
  if (access != Access::write) result.contents = noise<T>();
  return result;
}
template <class T>
Operand matrix(std::string name, Access access, std::int64_t rows, std::int64_t columns) {
  return numbers<T>(std::move(name), access, Extent::matrix, rows * columns);
}
template <class T>
Operand per_row(std::string name, Access access, std::int64_t rows) {
  return numbers<T>(std::move(name), access, Extent::per_row, rows);
}
template <class T>
Operand vector(std::string name, Access access, std::int64_t count) {
  return numbers<T>(std::move(name), access, Extent::vector, count);
}
template <class T>
Operand table(std::string name, Access access, std::int64_t rows, std::int64_t columns) {
  return numbers<T>(std::move(name), access, Extent::table, rows * columns);
}
inline Operand scratch(std::int64_t bytes) { return operand<std::byte>("workspace", Access::scratch, Extent::vector, bytes); }
/// An array that the host has made.
template <class V>
Operand array(std::string name, Extent extent, const std::vector<V>& made) {
  Operand result = operand<V>(std::move(name), Access::read, extent, std::ssize(made));
  result.contents = values(made);
  return result;
}
/// `made` with other contents.
inline Operand filled(Operand made, Contents contents) {
  made.contents = std::move(contents);
  return made;
}
/// `made`, of which a pass takes only so many bytes.
inline Operand partly(Operand made, std::int64_t touched) {
  made.touched = touched;
  return made;
}

/// The token ids, positions, samples and sorted lists of a batch of sequences of so many tokens, ids as frequent as words are (Zipf).
PackedBatch make_batch(const Sizes& sizes, std::int64_t sequence = Sizes::kSequence);
/// The same of sequences of these lengths.
PackedBatch make_batch(std::span<const std::int64_t> lengths);

/// What dropout reads: a key, and sample and position of each row.
inline void add_dropout(std::vector<Operand>& operands, const PackedBatch& batch) {
  operands.push_back(array("key", Extent::vector, std::vector<RandomKey>{{.seed = 42, .step = 7}}));
  operands.push_back(array("sample", Extent::per_row, batch.sample));
  operands.push_back(array("position", Extent::per_row, batch.position));
}
inline Dropout dropout_at(const Addresses& at) {
  return {.key = at.get<RandomKey>("key"),
          .sample = at.get<std::int32_t>("sample"),
          .position = at.get<std::int32_t>("position"),
          .site = 3,
          .threshold = dropout_threshold(0.1)};
}

}  // namespace lathe::bench
