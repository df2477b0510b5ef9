#pragma once
// Attention's kernels on the operands of attention_cases.h, in every way that a backend has.
#include <gtest/gtest.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lathe/kernels/attention.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/kernel_test.h"

namespace lathe::test {

/// Integers and keys where a stream's kernels can read them.
template <class Stream, class V>
class Array {
 public:
  explicit Array(std::vector<V> values) : values_(std::move(values)) {}
  const V* data() const { return values_.data(); }

 private:
  std::vector<V> values_;
};
#ifdef LATHE_HAS_CUDA
template <class V>
class Array<CudaStream, V> : public DeviceBuffer<V> {
 public:
  using DeviceBuffer<V>::DeviceBuffer;
};
#endif

/// Names a buffer for the emulation's messages and profiles.
template <class B>
void name([[maybe_unused]] const B& buffer, [[maybe_unused]] const char* name) {
#ifdef LATHE_EMULATED
  emulation::name_memory(buffer.data(), static_cast<std::size_t>(buffer.size()) * sizeof(*buffer.data()), name);
#endif
}

/// What both directions are given, where a stream's kernels can read it.
template <class Stream, class T>
class Operands {
 public:
  explicit Operands(const Inputs<T>& in)
      : q(in.q),
        kv(in.kv),
        cu_q(in.cu_q),
        cu_k(in.cu_k),
        in_(in),
        query_sequence_(in.query_sequence),
        query_first_(in.query_first),
        sample_(in.sample),
        key_(std::vector<RandomKey>{in.key}) {
    name(q, "q");
    name(kv, "kv");
  }

  AttentionTiles query_tiles() const { return in_.query_tiles(query_sequence_.data(), query_first_.data()); }
  /// Null pointers where nothing is dropped.
  AttentionDropout dropout() const {
    AttentionDropout dropout = in_.dropout();
    dropout.key = dropout.threshold == 0 ? nullptr : key_.data();
    dropout.sample = dropout.threshold == 0 ? nullptr : sample_.data();
    return dropout;
  }

  const Buffer<T, Stream> q, kv;
  const Array<Stream, std::int32_t> cu_q, cu_k;

 private:
  const Inputs<T>& in_;
  Array<Stream, std::int32_t> query_sequence_, query_first_, sample_;
  Array<Stream, RandomKey> key_;
};

/// The forward's "out" and "lse", in arrays that were NaN before.
template <class Stream, class T>
Outputs run_forward(Stream stream, const Inputs<T>& in) {
  using A = Accumulator<T>;
  const Operands<Stream, T> operands(in);
  const auto nan = std::numeric_limits<Plain<T>>::quiet_NaN();
  Buffer<T, Stream> out(std::vector<T>(static_cast<std::size_t>(in.queries * in.width), static_cast<T>(nan)));
  Buffer<A, Stream> lse(std::vector<A>(static_cast<std::size_t>(in.queries * in.shape.heads), static_cast<A>(nan)));
  name(out, "out");
  attention_forward(stream, AttentionForward<T>{.out = out.data(),
                                                .lse = lse.data(),
                                                .q = operands.q.data(),
                                                .k = operands.kv.data(),
                                                .v = operands.kv.data() + in.v_column,
                                                .q_stride = in.q_stride,
                                                .k_stride = in.kv_stride,
                                                .v_stride = in.kv_stride,
                                                .cu_q = operands.cu_q.data(),
                                                .cu_k = operands.cu_k.data(),
                                                .query_tiles = operands.query_tiles(),
                                                .dropout = operands.dropout(),
                                                .mask = in.shape.mask,
                                                .scale = in.scale,
                                                .queries = in.queries,
                                                .keys = in.keys,
                                                .sequences = in.sequences(),
                                                .heads = in.shape.heads,
                                                .head_size = in.shape.head_size});
  Outputs outputs;
  outputs.add("out", out.values("out"));
  outputs.add("lse", lse.values("lse"));
  return outputs;
}

/// AttentionBackward::splits.
template <class T>
std::int64_t splits_of(const Inputs<T>& in) {
  std::int64_t longest = 0;
  for (const Lengths s : in.shape.sequences) longest = std::max<std::int64_t>(longest, s.keys);
  return attention_splits(longest, in.shape.key_tile_rows);
}

struct Uses {
  Use q = Use::write;
  Use k = Use::write;
  Use v = Use::write;
};

/// The backward on destinations in which there is `before`: "d_q" has rows of q_stride and "d_kv" of kv_stride. The inputs have outputs and
/// logarithms.
template <class Stream, class T>
Outputs run_backward(Stream stream, const Inputs<T>& in, Uses uses = {},
                     Plain<T> before = std::numeric_limits<Plain<T>>::quiet_NaN()) {
  const Operands<Stream, T> operands(in);
  const Buffer<T, Stream> d_out(in.d_out);
  const Buffer<T, Stream> out(in.out);
  const Buffer<Accumulator<T>, Stream> lse(in.lse);
  const Array<Stream, std::int32_t> key_sequence(in.key_sequence);
  const Array<Stream, std::int32_t> key_first(in.key_first);
  Buffer<T, Stream> d_q(std::vector<T>(in.q.size(), static_cast<T>(before)));
  Buffer<T, Stream> d_kv(std::vector<T>(in.kv.size(), static_cast<T>(before)));
  name(d_out, "d_out");
  name(out, "out");
  name(d_q, "d_q");
  name(d_kv, "d_kv");
  Workspace<Stream> workspace(
      attention_backward_workspace<T>(in.queries, in.shape.heads, in.shape.head_size, in.shape.key_tile_rows, splits_of(in)));
  attention_backward(stream, AttentionBackward<T>{.d_q = uses.q == Use::skip ? nullptr : d_q.data(),
                                                  .use_q = uses.q,
                                                  .d_k = uses.k == Use::skip ? nullptr : d_kv.data(),
                                                  .use_k = uses.k,
                                                  .d_v = uses.v == Use::skip ? nullptr : d_kv.data() + in.v_column,
                                                  .use_v = uses.v,
                                                  .d_q_stride = in.q_stride,
                                                  .d_k_stride = in.kv_stride,
                                                  .d_v_stride = in.kv_stride,
                                                  .d_out = d_out.data(),
                                                  .out = out.data(),
                                                  .lse = lse.data(),
                                                  .q = operands.q.data(),
                                                  .k = operands.kv.data(),
                                                  .v = operands.kv.data() + in.v_column,
                                                  .q_stride = in.q_stride,
                                                  .k_stride = in.kv_stride,
                                                  .v_stride = in.kv_stride,
                                                  .cu_q = operands.cu_q.data(),
                                                  .cu_k = operands.cu_k.data(),
                                                  .query_tiles = operands.query_tiles(),
                                                  .key_tiles = in.key_tiles(key_sequence.data(), key_first.data()),
                                                  .splits = splits_of(in),
                                                  .dropout = operands.dropout(),
                                                  .mask = in.shape.mask,
                                                  .scale = in.scale,
                                                  .workspace = workspace.data(),
                                                  .queries = in.queries,
                                                  .keys = in.keys,
                                                  .sequences = in.sequences(),
                                                  .heads = in.shape.heads,
                                                  .head_size = in.shape.head_size});
  workspace.expect_intact();
  Outputs outputs;
  outputs.add("d_q", d_q.values("d_q"));
  outputs.add("d_kv", d_kv.values("d_kv"));
  return outputs;
}

/// Gives the inputs the outputs and logarithms of the definition.
template <class T>
void add_outputs(Inputs<T>& in) {
  const auto forward = exact<Reference<T>>(in, Part::outputs);
  const auto nan = std::numeric_limits<Plain<T>>::quiet_NaN();
  in.out.clear();
  in.lse.clear();
  for (std::size_t i = 0; i < forward.out.size(); ++i) {
    const bool unused = static_cast<std::int64_t>(i) >= in.cu_q.back() * in.width;
    in.out.push_back(static_cast<T>(unused ? nan : static_cast<Plain<T>>(forward.out[i])));
  }
  for (std::size_t i = 0; i < forward.lse.size(); ++i) {
    const bool unused = static_cast<std::int64_t>(i) % in.queries >= in.cu_q.back();
    in.lse.push_back(static_cast<Accumulator<T>>(unused ? nan : static_cast<Plain<T>>(forward.lse[i])));
  }
}

/// A sequence of a batch by itself, which has as many queries as keys.
template <class T>
Inputs<T> alone(const Inputs<T>& in, std::size_t sequence) {
  Shape shape = in.shape;
  shape.sequences = {in.shape.sequences[sequence]};
  const std::int64_t rows = shape.sequences[0].queries;
  const std::int64_t first = in.cu_q[sequence];
  Inputs<T> one(shape);
  one.sample = {in.sample[sequence]};
  std::copy_n(in.q.begin() + first * in.q_stride, rows * in.q_stride, one.q.begin());
  std::copy_n(in.kv.begin() + first * in.kv_stride, rows * in.kv_stride, one.kv.begin());
  std::copy_n(in.d_out.begin() + first * in.width, rows * in.width, one.d_out.begin());
  return one;
}

/// on_every_way, but with buffers that begin at multiples of 16 bytes only: what the tensor cores take, and half of the time. `runs` is how often
/// a GPU does it.
template <std::same_as<CpuStream> Stream>
void on_aligned_ways(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check, int = 1) {
  on_every_way<Stream>(kernel, check);
}
#ifdef LATHE_HAS_CUDA
template <std::same_as<CudaStream> Stream>
void on_aligned_ways(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check,
                     int runs = kUsualRuns) {
  place_buffers(Placement::aligned);
  const DeviceRuns device;
  const Outputs one = kernel(device.stream());
  device.again([&](const std::string& way) { EXPECT_EQ(one.difference(kernel(device.stream())), "") << "depends on " << way; },
               runs);
  check(one);
}
#endif

/// Where buffers begin: in every way, or at multiples of 16 bytes, which the tensor cores need.
enum class Begin : std::uint8_t { anywhere, aligned };

template <class Stream>
void on_ways(Begin begin, const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
  if (begin == Begin::aligned) {
    on_aligned_ways<Stream>(kernel, check);
  } else {
    on_every_way<Stream>(kernel, check);
  }
}

/// Hands the outputs of one run to `check`: for what takes long.
template <class Stream>
void on_one_way(const std::function<Outputs(Stream)>& kernel, const std::function<void(const Outputs&)>& check) {
#ifdef LATHE_HAS_CUDA
  place_buffers(Placement::aligned);
  const DeviceRuns runs;
  check(kernel(runs.stream()));
#else
  check(kernel(CpuStream{.threads = 2, .target = best_cpu_target()}));
#endif
}

/// What attention's typed tests are of.
template <class C>
class AttentionKernel : public ::testing::Test {
 protected:
  /// Whether the tensor cores take matrices of T: other kernels are for all head sizes, but emulated slowly.
  static constexpr bool kOnTensorCores = std::is_same_v<typename C::T, Bf16>;
};

#ifdef LATHE_HAS_CUDA
/// Device memory of many more bytes than are touched.
class LargeMemory {
 public:
  explicit LargeMemory(std::int64_t bytes) {
    status_ = cudaMalloc(reinterpret_cast<void**>(&memory_), static_cast<std::size_t>(bytes));
  }
  ~LargeMemory() { static_cast<void>(cudaFree(memory_)); }
  LargeMemory(const LargeMemory&) = delete;
  LargeMemory& operator=(const LargeMemory&) = delete;
  LargeMemory(LargeMemory&&) = delete;
  LargeMemory& operator=(LargeMemory&&) = delete;
  bool there() const { return status_ == cudaSuccess; }
  std::byte* data() const { return memory_; }

 private:
  std::byte* memory_ = nullptr;
  cudaError_t status_;
};

/// Packed sequences whose rows begin `stride` elements apart.
struct Layout {
  std::vector<std::int32_t> offsets;
  std::int64_t stride;
};
/// Those that lie beyond 2^31 elements by the sequence's first row, by a row of a sequence, and by the step from some of a sequence's rows to the
/// next. Emulated, an element costs a byte of notes whether it is touched or not: 2 GiB, for a second.
inline constexpr std::int64_t kTwoThousandMillion = std::int64_t{1} << 31U;
inline std::vector<Layout> large_layouts() {
  return {
      {{0, 2, 3}, kTwoThousandMillion / 2 + 8}, {{0, 3}, kTwoThousandMillion / 2 + 8}, {{0, 17}, kTwoThousandMillion / 16 + 8}};
}
#endif

}  // namespace lathe::test
