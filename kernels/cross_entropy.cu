// Softmax cross-entropy in CUDA, one launch.
//
// A row of up to 1,024 classes belongs to a warp, which keeps it in registers. A longer one belongs to a block: while it is read, each thread
// keeps the largest of its logits and the sum of exponentials relative to it (online softmax) and puts what it has read in shared memory, from
// where the second walk, which writes the gradient, takes it. Where shared memory has no room for the row it is read twice. Only the thread
// that put a logit there takes it again, so that one barrier a row is enough, where the threads' sums meet.
//
// Rows are walked in 16-byte vectors from the first aligned logit on, whatever the stride: up to seven logits before and behind belong to one
// thread each. Bytes a logit: read once, written once, 2 sizes of T; 3 where the row is read twice; 1 without the gradient.
//
// Exponentials are powers of two of logit * log2(e) - peak, peak being the rounded largest logit * log2(e): one multiply-add, rounded once, and
// one instruction of the special function unit. A common factor that the rounding of peak leaves in all of them is in their sum too.
#include "lathe/kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lathe/kernels/device/check.h"
#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/launch.cuh"
#include "lathe/kernels/device/math.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/range.h"
#include "lathe/kernels/device/shared.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace [[gnu::visibility("default")]] lathe {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace): the language that kernels are written in

/// The longest row that a warp holds.
constexpr int kWarpClasses = 1024;
/// Rows of a block whose warps each have one.
constexpr int kRowsOfBlock = 4;
/// Vectors that a thread of a block loads before it uses the first.
constexpr int kAtOnce = 4;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// What is the same for all rows, in fp32.
struct Smoothing {
  float target;  ///< 1 - s
  float every;   ///< s / V
};

/// Where the 16-byte vectors of a row [columns] lie: `head` columns before them and `tail` behind them, less than a vector each.
template <class T>
struct RowLayout {
  static constexpr int kWidth = kWidest<T>;
  int head;
  int vectors;
  int tail;

  __device__ __forceinline__ RowLayout(const T* row, int columns) {
    const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % 16 / sizeof(T));
    head = min((kWidth - past) % kWidth, columns);
    vectors = (columns - head) / kWidth;
    tail = (columns - head) % kWidth;
  }

  __device__ __forceinline__ int column(int vector) const { return head + vector * kWidth; }
  /// The column before or behind the vectors that a thread has, or -1: one each of the first 2 * kWidth threads.
  __device__ __forceinline__ int edge_column(int thread) const {
    if (thread < head) return thread;
    const int behind = thread - kWidth;
    return behind >= 0 && behind < tail ? column(vectors) + behind : -1;
  }
};

/// Some of a row's logits, as online softmax sees them.
struct Softmax {
  float largest = -kInfinity;
  float peak = -kInfinity;  ///< peak_of(largest)
  float sum = 0.0F;         ///< of 2^(logit * log2(e) - peak); NaN where a logit is NaN or infinite
};

/// Rounded: what is subtracted from one logit and from another must be the same, so that no multiply-add may be made of it.
__device__ __forceinline__ float peak_of(float largest) { return __fmul_rn(largest, kLog2E); }

/// 2^(logit * log2(e) - peak).
__device__ __forceinline__ float exponential(float logit, float peak) { return fast_exp2(fmaf(logit, kLog2E, -peak)); }

/// NaN where a logit is NaN or infinite, else `probe`, which begins with 0.
__device__ __forceinline__ float probed(float logit, float probe) { return fmaf(logit, 0.0F, probe); }

/// Takes further logits into account.
template <int kCount>
__device__ __forceinline__ void include(Softmax& softmax, const float (&logits)[kCount]) {
  float largest = softmax.largest;
  float probe = 0.0F;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    largest = fmaxf(largest, logits[i]);
    probe = probed(logits[i], probe);
  }
  const float peak = peak_of(largest);
  float sum = fmaf(softmax.sum, fast_exp2(softmax.peak - peak), probe);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += exponential(logits[i], peak);
  softmax = {.largest = largest, .peak = peak, .sum = sum};
}

struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// The logits of all lanes together, the same bits for each.
__device__ __forceinline__ Softmax merge_lanes(const Softmax& lane) {
  const float largest = reduce_warp(lane.largest, Larger{});
  const float peak = peak_of(largest);
  return {.largest = largest, .peak = peak, .sum = warp_sum(lane.sum * fast_exp2(lane.peak - peak))};
}

/// What a row's loss and gradient need of it beside its logits.
struct Label {
  int index;     ///< -1: the row is ignored
  float weight;  ///< w[y]
  float logit;
  float scale;
};

/// Of the row's label, without its logit; read by one thread, whose bytes count once.
template <class T>
__device__ __forceinline__ Label read_label(const CrossEntropy<T>& args, std::int64_t r) {
  const std::int32_t label = args.labels[r];
  if (label < 0 || label >= args.classes) return {.index = -1, .weight = 0.0F, .logit = 0.0F, .scale = 0.0F};
  return {.index = label,
          .weight = args.class_weights == nullptr ? 1.0F : to_float(args.class_weights[label]),
          .logit = 0.0F,
          .scale = *args.scale};
}

/// The one of the classes from `column` on that is `wanted`; `otherwise` where none is.
template <int kCount>
__device__ __forceinline__ float pick(int wanted, int column, const float (&values)[kCount], float otherwise) {
  const auto place = static_cast<unsigned>(wanted - column);
  if (place >= kCount) return otherwise;
#pragma unroll
  for (int i = 0; i < kCount; ++i) otherwise = place == static_cast<unsigned>(i) ? values[i] : otherwise;
  return otherwise;
}

/// The loss and the gradient of a row whose logits have been seen.
class RowResult {
 public:
  __device__ __forceinline__ RowResult(const Softmax& softmax, const Label& label, const Smoothing& smoothing, float weight_total)
      : softmax_(softmax), label_(label), smoothing_(smoothing), weight_total_(weight_total) {
    const float pull = fmaf(smoothing.every, weight_total, smoothing.target * label.weight);  // what the gradient has of each p
    factor_ = label.scale * pull / softmax.sum;
    push_ = label.scale * smoothing.every;
    // p - 1 is formed here, before anything is rounded to T.
    const float p = exponential(label.logit, softmax.peak) / softmax.sum;
    of_label_ = label.scale * (pull * p - smoothing.target * label.weight - smoothing.every * label.weight);
  }

  /// The loss; `shifted` is the sum of w[c] (logit[c] - largest), where labels are smoothed.
  __device__ __forceinline__ float loss(float shifted) const {
    // What the rounding of the peak has put into each exponential is taken out of the logarithm of their sum, which is at least that of the
    // largest one, 1.
    const float log_sum = max_or_nan(logf(softmax_.sum) - kLn2 * fmaf(softmax_.largest, kLog2E, -softmax_.peak), 0.0F);
    const float of_label = log_sum - (label_.logit - softmax_.largest);
    return label_.scale *
           fmaf(smoothing_.target * label_.weight, of_label, smoothing_.every * fmaf(weight_total_, log_sum, -shifted));
  }

  /// exponentials[i], of the class `column` + i whose weight is weights(i), becomes its gradient.
  template <int kCount, class Weights>
  __device__ __forceinline__ void make_gradients(int column, const Weights& weights, float (&exponentials)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) exponentials[i] = fmaf(factor_, exponentials[i], -push_ * weights(i));
    const auto place = static_cast<unsigned>(label_.index - column);  // the label's, if it is among these
    if (place >= kCount) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) exponentials[i] = place == static_cast<unsigned>(i) ? of_label_ : exponentials[i];
  }

 private:
  Softmax softmax_;
  Label label_;
  Smoothing smoothing_;
  float weight_total_;
  float factor_;
  float push_;  ///< what the gradient lacks for each unit of w[c]
  float of_label_;
};

/// Whether the classes differ in the smoothed part of the loss. Otherwise their weights matter for the label alone.
enum class Weighting : std::uint8_t { equal, by_class };

/// w[column + i] for the smoothed part.
template <Weighting kWeighting, class T>
struct ClassWeights {
  const T* of_column;
  __device__ __forceinline__ ClassWeights(const CrossEntropy<T>& args, int column)
      : of_column(kWeighting == Weighting::equal ? nullptr : args.class_weights + column) {}
  __device__ __forceinline__ float operator()(int i) const {
    if constexpr (kWeighting == Weighting::equal) return 1.0F;
    return to_float(of_column[i]);
  }
};

/// Adds w[c] (logit[c] - largest).
template <int kCount, class Weights>
__device__ __forceinline__ void add_shifted(float largest, const Weights& weights, const float (&logits)[kCount],
                                            float& shifted) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) shifted = fmaf(weights(i), logits[i] - largest, shifted);
}

/// Some threads that share a row: the calling one is number `thread` of `threads`.
struct Team {
  int thread;
  int threads;
};

/// Zeros in columns [0, columns).
template <class T>
__device__ __forceinline__ void clear_row(T* row, int columns, Team team) {
  const RowLayout<T> layout(row, columns);
#pragma unroll 1
  for (int v = team.thread; v < layout.vectors; v += team.threads) store(row + layout.column(v), Vector<T, kWidest<T>>{});
  const int edge = layout.edge_column(team.thread);
  if (edge >= 0) row[edge] = T{};
}

/// Zeros in the vocabulary padding.
template <class T>
__device__ __forceinline__ void clear_padding(const CrossEntropy<T>& args, T* row, Team team) {
#pragma unroll 1
  for (auto c = static_cast<int>(args.classes) + team.thread; c < static_cast<int>(args.stride); c += team.threads) row[c] = T{};
}

/// The thread's part of W.
template <class T>
__device__ __forceinline__ float sum_weights(const CrossEntropy<T>& args, Team team) {
  float sum = 0.0F;
  for (int c = team.thread; c < static_cast<int>(args.classes); c += team.threads) sum += to_float(args.class_weights[c]);
  return sum;
}

template <class T, Weighting kWeighting>
__global__ void __launch_bounds__(kRowsOfBlock* kWarp)
    cross_entropy_warp_kernel(const __grid_constant__ CrossEntropy<T> args, const Smoothing smoothing) {
  constexpr int kWidth = kWidest<T>;
  constexpr int kPieces = kWarpClasses / kWidth / kWarp;
  using Weights = ClassWeights<kWeighting, T>;
  const Team team{.thread = static_cast<int>(threadIdx.x % kWarp), .threads = kWarp};
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kWarp;
  if (r >= args.rows) return;
  T* const row = args.logits + r * args.stride;
  const auto classes = static_cast<int>(args.classes);
  const RowLayout<T> layout(row, classes);
  const int edge_column = layout.edge_column(team.thread);

  // The row is asked for before it is known whether its label counts: labels that don't are few.
  Vector<T, kWidth> loaded[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int v = p * kWarp + team.thread;
    if (v < layout.vectors) loaded[p] = load<kWidth, Reuse::once>(row + layout.column(v));
  }
  float edge[1] = {edge_column >= 0 ? to_float(row[edge_column]) : 0.0F};
  Label label{};
  if (team.thread == 0) label = read_label(args, r);
  label = {.index = __shfl_sync(kAllLanes, label.index, 0),
           .weight = __shfl_sync(kAllLanes, label.weight, 0),
           .logit = 0.0F,
           .scale = __shfl_sync(kAllLanes, label.scale, 0)};
  if (label.index < 0) {
    __syncwarp();  // lanes clear what others have read
    if (args.gradient == LogitsGradient::in_place) clear_row(row, static_cast<int>(args.stride), team);
    if (team.thread == 0) args.loss[r] = 0.0F;
    return;
  }

  // The largest first: then there is one exponential for each logit.
  float x[kPieces][kWidth];
  Softmax softmax;
  if (edge_column >= 0) {
    softmax.largest = edge[0];
    label.logit = pick(label.index, edge_column, edge, 0.0F);
  }
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int v = p * kWarp + team.thread;
    if (v < layout.vectors) {
      to_float(loaded[p], x[p]);
      label.logit = pick(label.index, layout.column(v), x[p], label.logit);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) softmax.largest = fmaxf(softmax.largest, x[p][i]);
    }
  }
  label.logit = warp_sum(label.logit);  // one lane has it, the others 0
  softmax.largest = reduce_warp(softmax.largest, Larger{});
  softmax.peak = peak_of(softmax.largest);

  float shifted = 0.0F;
  const auto exponentiate = [&](int column, auto& logits) {
    if (smoothing.every != 0.0F) add_shifted(softmax.largest, Weights(args, column), logits, shifted);
    for (float& logit : logits) {
      softmax.sum = probed(logit, softmax.sum);
      logit = exponential(logit, softmax.peak);
      softmax.sum += logit;
    }
  };
  if (edge_column >= 0) exponentiate(edge_column, edge);
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int v = p * kWarp + team.thread;
    if (v < layout.vectors) exponentiate(layout.column(v), x[p]);
  }
  softmax.sum = warp_sum(softmax.sum);
  if (smoothing.every != 0.0F) shifted = warp_sum(shifted);
  auto weight_total = static_cast<float>(classes);
  if constexpr (kWeighting == Weighting::by_class) weight_total = warp_sum(sum_weights(args, team));

  const RowResult result(softmax, label, smoothing, weight_total);
  if (team.thread == 0) args.loss[r] = result.loss(shifted);
  if (args.gradient == LogitsGradient::none) return;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int v = p * kWarp + team.thread;
    if (v < layout.vectors) {
      const int column = layout.column(v);
      result.make_gradients(column, Weights(args, column), x[p]);
      store(row + column, from_float<T>(x[p]));
    }
  }
  if (edge_column >= 0) {
    result.make_gradients(edge_column, Weights(args, edge_column), edge);
    row[edge_column] = from_float<T>(edge[0]);
  }
  clear_padding(args, row, team);
}

/// Where the second walk over a row finds its logits.
enum class Source : std::uint8_t { shared, global };

/// Source::shared is for LogitsGradient::in_place.
template <class T, int kThreads, Source kSource, Weighting kWeighting>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads)
    cross_entropy_block_kernel(const __grid_constant__ CrossEntropy<T> args, const Smoothing smoothing) {
  constexpr int kWidth = kWidest<T>;
  constexpr int kWarps = kThreads / kWarp;
  using Weights = ClassWeights<kWeighting, T>;
  __shared__ Label shared_label;
  __shared__ Softmax softmax_of_warp[kWarps];
  __shared__ float weights_of_warp[kWarps];
  __shared__ float shifted_of_warp[kWarps];

  const Team team{.thread = static_cast<int>(threadIdx.x), .threads = kThreads};
  const int lane = team.thread % kWarp;
  const int warp = team.thread / kWarp;
  const std::int64_t r = blockIdx.x;
  T* const row = args.logits + r * args.stride;
  T* const staged = kSource == Source::shared ? dynamic_shared<T>() : nullptr;
  const auto classes = static_cast<int>(args.classes);
  const RowLayout<T> layout(row, classes);
  const int edge_column = layout.edge_column(team.thread);

  Vector<T, kWidth> loaded[kAtOnce];
  const auto load_vectors = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int v = first + i * kThreads;
      if (v < layout.vectors) loaded[i] = load<kWidth, Reuse::once>(row + layout.column(v));
    }
  };
  // The row is asked for before it is known whether its label counts: labels that don't are few.
  load_vectors(team.thread);
  float edge[1] = {edge_column >= 0 ? to_float(row[edge_column]) : 0.0F};
  if (team.thread == 0) {
    Label mine = read_label(args, r);
    if (mine.index >= 0) mine.logit = to_float(row[mine.index]);
    shared_label = mine;
  }
  __syncthreads();
  const Label label = shared_label;
  if (label.index < 0) {
    if (args.gradient == LogitsGradient::in_place) clear_row(row, static_cast<int>(args.stride), team);
    if (team.thread == 0) args.loss[r] = 0.0F;
    return;
  }

  Softmax softmax;
  if (edge_column >= 0) include(softmax, edge);
#pragma unroll 1
  for (int first = team.thread; first < layout.vectors; first += kAtOnce * kThreads) {
    if (first != team.thread) load_vectors(first);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int v = first + i * kThreads;
      if (v < layout.vectors) {
        if constexpr (kSource == Source::shared) store(staged + v * kWidth, loaded[i]);
        float x[kWidth];
        to_float(loaded[i], x);
        include(softmax, x);
      }
    }
  }
  softmax = merge_lanes(softmax);
  if (lane == 0) softmax_of_warp[warp] = softmax;
  if constexpr (kWeighting == Weighting::by_class) {
    const float sum = warp_sum(sum_weights(args, team));
    if (lane == 0) weights_of_warp[warp] = sum;
  }
  __syncthreads();
  softmax = merge_lanes(lane < kWarps ? softmax_of_warp[lane] : Softmax{});
  auto weight_total = static_cast<float>(classes);
  if constexpr (kWeighting == Weighting::by_class) weight_total = warp_sum(lane < kWarps ? weights_of_warp[lane] : 0.0F);

  const RowResult result(softmax, label, smoothing, weight_total);
  const bool smoothed = smoothing.every != 0.0F;
  const bool writes = kSource == Source::shared || args.gradient == LogitsGradient::in_place;
  float shifted = 0.0F;
  if (writes || smoothed) {
    const auto walk = [&](int column, auto& values) {
      const Weights weights(args, column);
      if (smoothed) add_shifted(softmax.largest, weights, values, shifted);
      for (float& value : values) value = exponential(value, softmax.peak);
      result.make_gradients(column, weights, values);
    };
    if (edge_column >= 0) {
      walk(edge_column, edge);
      if (writes) row[edge_column] = from_float<T>(edge[0]);
    }
#pragma unroll 2
    for (int v = team.thread; v < layout.vectors; v += kThreads) {
      const int column = layout.column(v);
      float values[kWidth];
      if constexpr (kSource == Source::shared) {
        to_float(load<kWidth>(staged + v * kWidth), values);
      } else {
        to_float(load<kWidth, Reuse::once>(row + column), values);
      }
      walk(column, values);
      if (writes) store(row + column, from_float<T>(values));
    }
    if (writes) clear_padding(args, row, team);
    if (smoothed) {
      shifted = warp_sum(shifted);
      if (lane == 0) shifted_of_warp[warp] = shifted;
      __syncthreads();
      shifted = warp_sum(lane < kWarps ? shifted_of_warp[lane] : 0.0F);
    }
  }
  if (team.thread == 0) args.loss[r] = result.loss(shifted);
}

/// Bytes of shared memory that a block of this device can have.
std::size_t shared_bytes_at_most() {
  int device = 0;
  int bytes = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<std::size_t>(bytes);
}

template <Weighting kWeighting, int kThreads, class T>
void run_blocks(CudaStream stream, const CrossEntropy<T>& args, const Smoothing& smoothing) {
  constexpr std::size_t kStatic = 1024;  // at least what the kernel has besides
  const auto grid = static_cast<unsigned>(args.rows);
  const std::size_t row_bytes = (static_cast<std::size_t>(args.classes) * sizeof(T) + 15) / 16 * 16;
  if (args.gradient == LogitsGradient::in_place && row_bytes + kStatic <= shared_bytes_at_most()) {
    launch(cross_entropy_block_kernel<T, kThreads, Source::shared, kWeighting>,
           {.grid = grid, .block = kThreads, .shared_bytes = row_bytes}, stream, args, smoothing);
  } else {
    launch(cross_entropy_block_kernel<T, kThreads, Source::global, kWeighting>, {.grid = grid, .block = kThreads}, stream, args,
           smoothing);
  }
}

template <Weighting kWeighting, class T>
void run(CudaStream stream, const CrossEntropy<T>& args) {
  const Smoothing smoothing{.target = static_cast<float>(1.0 - args.label_smoothing),
                            .every = static_cast<float>(args.label_smoothing / static_cast<double>(args.classes))};
  // How many threads share a row is a function of its bytes alone, and so are the bits: two blocks fit a processor up to 72 KB a row.
  const auto row_bytes = args.classes * static_cast<std::int64_t>(sizeof(T));
  if (args.classes <= kWarpClasses) {
    launch(cross_entropy_warp_kernel<T, kWeighting>, {.grid = blocks_for(args.rows, kRowsOfBlock), .block = kRowsOfBlock * kWarp},
           stream, args, smoothing);
  } else if (row_bytes <= 16 << 10) {
    run_blocks<kWeighting, 128>(stream, args, smoothing);
  } else if (row_bytes <= 72 << 10) {
    run_blocks<kWeighting, 512>(stream, args, smoothing);
  } else {
    run_blocks<kWeighting, 1024>(stream, args, smoothing);
  }
}

}  // namespace

template <class T>
void cross_entropy(CudaStream stream, const CrossEntropy<T>& args) {
  const device::Range range("cross_entropy");
  if (args.class_weights != nullptr && args.label_smoothing != 0.0) {
    run<Weighting::by_class>(stream, args);
  } else {
    run<Weighting::equal>(stream, args);
  }
}

template void cross_entropy(CudaStream, const CrossEntropy<float>&);
template void cross_entropy(CudaStream, const CrossEntropy<Bf16>&);

}  // namespace lathe
