#pragma once
// Rows [C] in registers. A team of warps owns a row; each of its threads holds the same few columns from the first load to the last store,
// so that a row is read once however often its numbers are used.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "lathe/kernels/device/convert.cuh"
#include "lathe/kernels/device/dropout.cuh"
#include "lathe/kernels/device/language.cuh"
#include "lathe/kernels/device/memory.cuh"
#include "lathe/kernels/device/warp.cuh"

namespace lathe::device {

/// Teams of kWarps_ warps, whose threads hold kPieces_ pieces of kWidth_ columns. Thread i of a team has columns
/// (p * kThreads + i) * kWidth + 0..kWidth of each piece p: neighbours read what lies side by side.
template <int kWarps_, int kWidth_, int kPieces_>
struct RowShape {
  static constexpr int kWarps = kWarps_;
  static constexpr int kWidth = kWidth_;
  static constexpr int kPieces = kPieces_;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kStride = kThreads * kWidth;  ///< columns from a thread's piece to its next
  static_assert(kWidth * kPieces <= 32 && kWidth * kPieces % 8 == 0);
};

/// The longest row that with_row_shape() knows a shape for.
inline constexpr std::int64_t kLongestRow = 8192;

/// Calls run<Shape>() with the shape for rows of `channels`, whose pieces are of 16 bytes where `wide`. A warp owns a row while 32 columns
/// a thread hold it. Throws std::invalid_argument, naming `what`, where no shape does.
template <class T, class Run>
void with_row_shape(const char* what, std::int64_t channels, bool wide, const Run& run) {
  constexpr int kWide = kWidest<T>;
  if (channels > kLongestRow) {
    throw std::invalid_argument(std::string(what) + ": rows of " + std::to_string(channels) +
                                " channels; CUDA kernels hold at most " + std::to_string(kLongestRow));
  }
  if (!wide) {
    if (channels <= 1024) return run.template operator()<RowShape<1, 1, 32>>();
    return run.template operator()<RowShape<8, 1, 32>>();
  }
  if (channels <= 512) return run.template operator()<RowShape<1, kWide, 16 / kWide>>();
  if (channels <= 768) return run.template operator()<RowShape<1, kWide, 24 / kWide>>();
  if (channels <= 1024) return run.template operator()<RowShape<1, kWide, 32 / kWide>>();
  if (channels <= 2048) return run.template operator()<RowShape<2, kWide, 32 / kWide>>();
  if (channels <= 4096) return run.template operator()<RowShape<4, kWide, 32 / kWide>>();
  return run.template operator()<RowShape<8, kWide, 32 / kWide>>();
}

/// kWidth columns as they are stored: whole words where they fill some. As elements of two bytes the compiler would keep each of them in a
/// register of its own.
template <class T, int kWidth>
struct StoredPiece {
  static constexpr bool kWords = sizeof(T) * kWidth % 4 == 0;
  using Unit = std::conditional_t<kWords, std::uint32_t, T>;
  static constexpr int kUnits = kWords ? static_cast<int>(sizeof(T)) * kWidth / 4 : kWidth;
  Unit unit[kUnits];
};

template <int kWidth, Reuse kReuse = Reuse::again, class T>
__device__ __forceinline__ StoredPiece<T, kWidth> load_piece(const T* from) {
  using Piece = StoredPiece<T, kWidth>;
  const auto units = load<Piece::kUnits, kReuse>(reinterpret_cast<const typename Piece::Unit*>(from));
  Piece result;
#pragma unroll
  for (int i = 0; i < Piece::kUnits; ++i) result.unit[i] = units[i];
  return result;
}

template <class T, int kWidth>
__device__ __forceinline__ void to_float(const StoredPiece<T, kWidth>& from, float (&to)[kWidth]) {
  if constexpr (!StoredPiece<T, kWidth>::kWords) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = to_float(from.unit[i]);
  } else if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) {
      to[i] = __uint_as_float(from.unit[i / 2] << 16U);
      to[i + 1] = __uint_as_float(from.unit[i / 2] & 0xFFFF0000U);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = __uint_as_float(from.unit[i]);
  }
}

template <class T, int kWidth>
__device__ __forceinline__ StoredPiece<T, kWidth> to_stored(const float (&values)[kWidth]) {
  StoredPiece<T, kWidth> result;
  if constexpr (!StoredPiece<T, kWidth>::kWords) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) result.unit[i] = from_float<T>(values[i]);
  } else if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) result.unit[i / 2] = pack_bf16(values[i], values[i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) result.unit[i] = __float_as_uint(values[i]);
  }
  return result;
}

template <class T, int kWidth>
__device__ __forceinline__ void store_piece(T* to, const StoredPiece<T, kWidth>& piece) {
  using Piece = StoredPiece<T, kWidth>;
  Vector<typename Piece::Unit, Piece::kUnits> units;
#pragma unroll
  for (int i = 0; i < Piece::kUnits; ++i) units[i] = piece.unit[i];
  store(reinterpret_cast<typename Piece::Unit*>(to), units);
}

/// A thread's columns as they are stored.
template <class T, class Shape>
struct StoredRow {
  StoredPiece<T, Shape::kWidth> piece[Shape::kPieces];
};

/// A thread's columns as they are computed with.
template <class Shape>
struct Row {
  float piece[Shape::kPieces][Shape::kWidth];
};

/// The team of the calling thread in its block, and the thread's first column.
template <class Shape>
__device__ __forceinline__ int team_number() {
  return static_cast<int>(threadIdx.x) / Shape::kThreads;
}
template <class Shape>
__device__ __forceinline__ int first_column() {
  return static_cast<int>(threadIdx.x) % Shape::kThreads * Shape::kWidth;
}

/// The thread's columns of the row at `row` (global or shared memory), those below `columns`; the others are 0.
template <class Shape, Reuse kReuse = Reuse::again, class T>
__device__ __forceinline__ StoredRow<T, Shape> load_row(const T* row, int columns) {
  const int first = first_column<Shape>();
  StoredRow<T, Shape> result;
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
    result.piece[p] = {};
    if (first + p * Shape::kStride < columns)
      result.piece[p] = load_piece<Shape::kWidth, kReuse>(row + first + p * Shape::kStride);
  }
  return result;
}

template <class T, class Shape>
__device__ __forceinline__ Row<Shape> to_float(const StoredRow<T, Shape>& stored) {
  Row<Shape> result;
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) to_float(stored.piece[p], result.piece[p]);
  return result;
}

/// Puts the thread's columns there, those below `columns`.
template <class T, class Shape>
__device__ __forceinline__ void store_row(T* row, const Row<Shape>& values, int columns) {
  const int first = first_column<Shape>();
  T* const place = row + first;
  StoredRow<T, Shape> stored;
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) stored.piece[p] = to_stored<T>(values.piece[p]);
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
    if (first + p * Shape::kStride < columns) store_piece(place + p * Shape::kStride, stored.piece[p]);
  }
}

/// The thread's columns of piece p of the row at `row`; 0 from `columns` on.
template <class Shape, class T>
__device__ __forceinline__ void load_columns(float (&values)[Shape::kWidth], const T* row, int p, int columns) {
  const int column = first_column<Shape>() + p * Shape::kStride;
  StoredPiece<T, Shape::kWidth> piece = {};
  if (column < columns) piece = load_piece<Shape::kWidth>(row + column);
  to_float(piece, values);
}

/// Calls update(value, other's value) for all of the thread's columns.
template <class Shape, class Update>
__device__ __forceinline__ void combine(Row<Shape>& values, const Row<Shape>& other, Update update) {
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
#pragma unroll
    for (int i = 0; i < Shape::kWidth; ++i) update(values.piece[p][i], other.piece[p][i]);
  }
}
template <class Shape>
__device__ __forceinline__ void add(Row<Shape>& values, const Row<Shape>& other) {
  combine(values, other, [](float& value, float more) { value += more; });
}

/// Which of the thread's columns are kept, counted from column `offset`, which 8 divides: bit p * kWidth + i for column i of piece p. All
/// lanes of a warp take part. One Philox call decides eight columns; where those belong to several lanes, a warp makes each of its calls
/// once, lane l those numbered l, l + 32 and so on, and passes on what they say. Made ahead of the row's arrival it costs no time.
template <class Shape>
__device__ __forceinline__ std::uint32_t kept_columns(const ElementDropout& dropout, ElementDropout::Row row,
                                                      std::int64_t offset = 0) {
  constexpr int kLanes = 8 / Shape::kWidth;  // that have a call's columns
  constexpr int kCalls = kWarp / kLanes;     // for one piece of a warp
  row = {.sample = from_first_lane(row.sample), .position = from_first_lane(row.position)};
  const auto lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_first = static_cast<int>(threadIdx.x) % Shape::kThreads / kWarp * kWarp * Shape::kWidth;
  std::uint32_t own = 0;
#pragma unroll 1
  for (int k = 0; k < Shape::kPieces * Shape::kWidth / 8; ++k) {
    const int call = k * kWarp + lane;
    const std::int64_t column = offset + call / kCalls * Shape::kStride + warp_first + call % kCalls * 8;
    own |= dropout.kept(row, static_cast<std::uint32_t>(column)) << 8 * k;
  }
  if constexpr (kLanes == 1) return own;
  std::uint32_t kept = 0;
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
    const std::uint32_t bits = __shfl_sync(kAllLanes, own, p * kCalls % kWarp + lane / kLanes) >>
                               (p * kCalls / kWarp * 8 + lane % kLanes * Shape::kWidth);
    kept |= (bits & ((1U << Shape::kWidth) - 1)) << p * Shape::kWidth;
  }
  return kept;
}

/// Multiplies kept columns by the scale and others by 0, so that NaN comes through.
template <class Shape>
__device__ __forceinline__ void multiply(Row<Shape>& values, std::uint32_t kept, float scale) {
#pragma unroll
  for (int p = 0; p < Shape::kPieces; ++p) {
#pragma unroll
    for (int i = 0; i < Shape::kWidth; ++i) values.piece[p][i] *= (kept >> (p * Shape::kWidth + i) & 1U) != 0 ? scale : 0.0F;
  }
}

/// Writes the row, adds it to what is there, or neither.
template <class T, class Shape>
__device__ __forceinline__ void put_row(Use use, T* row, const Row<Shape>& values, int columns) {
  if (use == Use::write) store_row(row, values, columns);
  if (use == Use::add) {
    Row<Shape> sum = to_float(load_row<Shape, Reuse::once>(row, columns));
    add(sum, values);
    store_row(row, sum, columns);
  }
}

/// values[i] becomes its sum over the team's threads, the same bits for each. `scratch` is shared memory of the team, kCount * kWarps
/// floats, which may be used again after the next barrier. Where a team has several warps, all threads of the block take part.
template <class Shape, int kCount>
__device__ __forceinline__ void sum_over_team(float (&values)[kCount], float* scratch) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] += __shfl_xor_sync(kAllLanes, values[i], distance);
  }
  if constexpr (Shape::kWarps > 1) {
    const int warp = static_cast<int>(threadIdx.x) % Shape::kThreads / kWarp;
    if (threadIdx.x % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) scratch[i * Shape::kWarps + warp] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = scratch[i * Shape::kWarps];
#pragma unroll
      for (int w = 1; w < Shape::kWarps; ++w) values[i] += scratch[i * Shape::kWarps + w];
    }
  }
}

/// The block copies a row of parameters to shared memory, zeros where there is none. It is seen after the next barrier.
template <int kWidth, class T>
__device__ __forceinline__ void stage_parameters(T* shared, const T* parameters, int channels) {
  for (int c = static_cast<int>(threadIdx.x) * kWidth; c < channels; c += static_cast<int>(blockDim.x) * kWidth) {
    Vector<T, kWidth> piece = {};
    if (parameters != nullptr) piece = load<kWidth>(parameters + c);
    store(shared + c, piece);
  }
}

}  // namespace lathe::device
