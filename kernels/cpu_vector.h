#pragma once
// Vectors as wide as the instruction set's registers: loads and stores of whole vectors and of a row's tail, bits that choose
// lanes, transposition, sums across lanes, and the elementary functions that softmax asks for. Internal to the CPU kernels: every instruction set
// has its own copy, with internal linkage (cpu_dispatch.h).
#include <immintrin.h>

#include <cstdint>
#include <utility>

namespace lathe::LATHE_CPU_TARGET {
namespace {

#ifdef __AVX512F__
inline constexpr int kVectorBytes = 64;
#else
inline constexpr int kVectorBytes = 32;
#endif

/// Whether 32 registers are there, or 16.
inline constexpr bool kManyRegisters = kVectorBytes == 64;

/// Integers of an element's size.
template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  using Bits = std::uint32_t;
  using SignedBits = std::int32_t;
};
template <>
struct VectorTypes<double> {
  using Bits = std::uint64_t;
  using SignedBits = std::int64_t;
};

template <class T>
struct VectorOf {
  using Type [[gnu::vector_size(kVectorBytes)]] = T;
  using Unaligned [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T))]] = T;
};

/// A register of T; arithmetic and comparisons are lane by lane.
template <class T>
using Vector = typename VectorOf<T>::Type;
template <class T>
using BitsOf = typename VectorTypes<T>::Bits;

template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
[[gnu::always_inline]] inline Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}
template <class T>
[[gnu::always_inline]] inline Vector<T> load_vector(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::Unaligned*>(from);
}
template <class T>
[[gnu::always_inline]] inline void store_vector(T* to, Vector<T> x) {
  *reinterpret_cast<typename VectorOf<T>::Unaligned*>(to) = x;
}

/// The first lanes of a vector, where a row ends within it. Loads give 0 in the other lanes and touch no memory there.
#ifdef __AVX512F__
template <class T>
struct Tail {
  std::uint32_t lanes;
};
template <class T>
[[gnu::always_inline]] inline Tail<T> first_lanes(std::int64_t count) {
  return {(1U << static_cast<unsigned>(count)) - 1U};
}
[[gnu::always_inline]] inline Vector<float> load_vector(const float* from, Tail<float> tail) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(tail.lanes), from);
}
[[gnu::always_inline]] inline Vector<double> load_vector(const double* from, Tail<double> tail) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>(tail.lanes), from);
}
[[gnu::always_inline]] inline void store_vector(float* to, Vector<float> x, Tail<float> tail) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>(tail.lanes), x);
}
[[gnu::always_inline]] inline void store_vector(double* to, Vector<double> x, Tail<double> tail) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>(tail.lanes), x);
}
#else
template <class T>
struct Tail {
  __m256i lanes;
};
template <class T>
[[gnu::always_inline]] inline Tail<T> first_lanes(std::int64_t count);
template <>
[[gnu::always_inline]] inline Tail<float> first_lanes<float>(std::int64_t count) {
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}
template <>
[[gnu::always_inline]] inline Tail<double> first_lanes<double>(std::int64_t count) {
  return {_mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3))};
}
[[gnu::always_inline]] inline Vector<float> load_vector(const float* from, Tail<float> tail) {
  return _mm256_maskload_ps(from, tail.lanes);
}
[[gnu::always_inline]] inline Vector<double> load_vector(const double* from, Tail<double> tail) {
  return _mm256_maskload_pd(from, tail.lanes);
}
[[gnu::always_inline]] inline void store_vector(float* to, Vector<float> x, Tail<float> tail) {
  _mm256_maskstore_ps(to, tail.lanes, x);
}
[[gnu::always_inline]] inline void store_vector(double* to, Vector<double> x, Tail<double> tail) {
  _mm256_maskstore_pd(to, tail.lanes, x);
}
#endif

/// One bit a lane, the lowest for lane 0.
using LaneBits = std::uint16_t;

/// x where the lane's bit is set, else 0 (also where x is not a number).
#ifdef __AVX512F__
[[gnu::always_inline]] inline Vector<float> keep(LaneBits bits, Vector<float> x) { return _mm512_maskz_mov_ps(bits, x); }
[[gnu::always_inline]] inline Vector<double> keep(LaneBits bits, Vector<double> x) {
  return _mm512_maskz_mov_pd(static_cast<__mmask8>(bits), x);
}
#else
[[gnu::always_inline]] inline Vector<float> keep(LaneBits bits, Vector<float> x) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), lane), lane);
  return _mm256_and_ps(x, _mm256_castsi256_ps(set));
}
[[gnu::always_inline]] inline Vector<double> keep(LaneBits bits, Vector<double> x) {
  const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
  const __m256i set = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), lane), lane);
  return _mm256_and_pd(x, _mm256_castsi256_pd(set));
}
#endif

/// The larger of each pair of lanes; b where either is not a number.
#ifdef __AVX512F__
[[gnu::always_inline]] inline Vector<float> maximum(Vector<float> a, Vector<float> b) {
  return _mm512_maskz_max_ps(0xFFFF, a, b);
}
[[gnu::always_inline]] inline Vector<double> maximum(Vector<double> a, Vector<double> b) {
  return _mm512_maskz_max_pd(0xFF, a, b);
}
#else
[[gnu::always_inline]] inline Vector<float> maximum(Vector<float> a, Vector<float> b) { return _mm256_max_ps(a, b); }
[[gnu::always_inline]] inline Vector<double> maximum(Vector<double> a, Vector<double> b) { return _mm256_max_pd(a, b); }
#endif

/// Elements in 16 bytes, a quarter of the widest register and the unit within which shuffles are cheapest.
template <class T>
inline constexpr int kQuarter = 16 / static_cast<int>(sizeof(T));

/// The quarters at the given addresses, side by side.
#ifdef __AVX512F__
[[gnu::always_inline]] inline Vector<float> load_quarters(const float* const (&at)[4]) {
  const __m512 first = _mm512_castps128_ps512(_mm_loadu_ps(at[0]));
  const __m512 second = _mm512_maskz_insertf32x4(0xFFFF, first, _mm_loadu_ps(at[1]), 1);
  const __m512 third = _mm512_maskz_insertf32x4(0xFFFF, second, _mm_loadu_ps(at[2]), 2);
  return _mm512_maskz_insertf32x4(0xFFFF, third, _mm_loadu_ps(at[3]), 3);
}
[[gnu::always_inline]] inline Vector<double> load_quarters(const double* const (&at)[4]) {
  const __m512d first = _mm512_castpd128_pd512(_mm_loadu_pd(at[0]));
  const __m512d second = _mm512_maskz_insertf64x2(0xFF, first, _mm_loadu_pd(at[1]), 1);
  const __m512d third = _mm512_maskz_insertf64x2(0xFF, second, _mm_loadu_pd(at[2]), 2);
  return _mm512_maskz_insertf64x2(0xFF, third, _mm_loadu_pd(at[3]), 3);
}
#else
[[gnu::always_inline]] inline Vector<float> load_quarters(const float* const (&at)[2]) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at[0])), _mm_loadu_ps(at[1]), 1);
}
[[gnu::always_inline]] inline Vector<double> load_quarters(const double* const (&at)[2]) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(at[0])), _mm_loadu_pd(at[1]), 1);
}
#endif

enum class Half : std::uint8_t { low, high };

template <class T, Half kHalf, std::size_t... kLane>
[[gnu::always_inline]] inline Vector<T> interleave(Vector<T> a, Vector<T> b, std::index_sequence<kLane...> /*lanes*/) {
  constexpr std::size_t kStart = kHalf == Half::low ? 0 : kQuarter<T> / 2;
  return __builtin_shufflevector(
      a, b, (kLane / kQuarter<T> * kQuarter<T> + kLane % kQuarter<T> / 2 + kStart + (kLane % 2 == 0 ? 0 : sizeof...(kLane)))...);
}
/// a0 b0 a1 b1 ... from one half of each quarter.
template <class T, Half kHalf>
[[gnu::always_inline]] inline Vector<T> interleave(Vector<T> a, Vector<T> b) {
  return interleave<T, kHalf>(a, b, std::make_index_sequence<kLanes<T>>{});
}

/// Transposes each quarter of the rows, as a matrix of its own.
[[gnu::always_inline]] inline void transpose_quarters(Vector<double> (&rows)[2]) {
  const Vector<double> low = interleave<double, Half::low>(rows[0], rows[1]);
  rows[1] = interleave<double, Half::high>(rows[0], rows[1]);
  rows[0] = low;
}
[[gnu::always_inline]] inline void transpose_quarters(Vector<float> (&rows)[4]) {
  using Pairs = Vector<double>;
  const auto low01 = reinterpret_cast<Pairs>(interleave<float, Half::low>(rows[0], rows[1]));
  const auto low23 = reinterpret_cast<Pairs>(interleave<float, Half::low>(rows[2], rows[3]));
  const auto high01 = reinterpret_cast<Pairs>(interleave<float, Half::high>(rows[0], rows[1]));
  const auto high23 = reinterpret_cast<Pairs>(interleave<float, Half::high>(rows[2], rows[3]));
  rows[0] = reinterpret_cast<Vector<float>>(interleave<double, Half::low>(low01, low23));
  rows[1] = reinterpret_cast<Vector<float>>(interleave<double, Half::high>(low01, low23));
  rows[2] = reinterpret_cast<Vector<float>>(interleave<double, Half::low>(high01, high23));
  rows[3] = reinterpret_cast<Vector<float>>(interleave<double, Half::high>(high01, high23));
}

template <int kBlock, class V, std::size_t... kLane>
[[gnu::always_inline]] inline V add_blocks(V a, V b, std::index_sequence<kLane...> /*lanes*/) {
  constexpr int kCount = sizeof...(kLane);
  return __builtin_shufflevector(a, b, ((kLane & kBlock) != 0 ? kLane - kBlock + kCount : kLane)...) +
         __builtin_shufflevector(a, b, ((kLane & kBlock) != 0 ? kLane + kCount : kLane + kBlock)...);
}

/// The sum of each row's lanes, in the lane of the row's number: rows are added pair by pair until one is left.
template <class T, int kBlock = kLanes<T> / 2>
[[gnu::always_inline]] inline Vector<T> row_sums(Vector<T> (&rows)[kLanes<T>]) {
  if constexpr (kBlock == 0) {
    return rows[0];
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i)
      rows[i] = add_blocks<kBlock>(rows[i], rows[i + kBlock], std::make_index_sequence<kLanes<T>>{});
    return row_sums<T, kBlock / 2>(rows);
  }
}

/// What is known of a floating-point type's layout, and how many terms its series need.
template <class T>
struct FloatLayout;
template <>
struct FloatLayout<float> {
  static constexpr int kMantissaBits = 23;
  static constexpr std::uint32_t kBias = 127;
  static constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23
  static constexpr int kLogTerms = 5;
  static constexpr float kLog2ERest = 1.92596299e-8F;  // log2(e) less its nearest float
  // 2^f on [-1/2, 1/2]: a minimax polynomial of our own, lowest power first, to 2e-9.
  static constexpr float kExp2[] = {1.0F,           0.693147182F,   0.240226477F,  0.0555033237F,
                                    0.00961843692F, 0.00133988739F, 0.00015353362F};
};
template <>
struct FloatLayout<double> {
  static constexpr int kMantissaBits = 52;
  static constexpr std::uint64_t kBias = 1023;
  static constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kLogTerms = 12;
  static constexpr double kLog2ERest = 2.0355273740931033e-17;  // log2(e) less its nearest double
  // 2^f on [-1/2, 1/2]: the powers of ln 2 over factorials; the rest is below 2^-57.
  static constexpr double kExp2[] = {1.0,
                                     0.69314718055994530942,
                                     0.24022650695910071233,
                                     0.055504108664821579953,
                                     0.0096181291076284771620,
                                     0.0013333558146428443423,
                                     0.00015403530393381609954,
                                     0.000015252733804059840281,
                                     0.0000013215486790144309488,
                                     0.00000010178086009239699728,
                                     7.0549116208011233299e-9,
                                     4.4455382718708114976e-10,
                                     2.5678435993488205141e-11,
                                     1.3691488853904128881e-12};
};

/// e^x for x up to 88 (fp64: 709), within about one unit in the last place; 0 where that is below the smallest normal number; what
/// is not a number comes through.
template <class T>
[[gnu::always_inline]] inline Vector<T> exp(Vector<T> x) {
  using Layout = FloatLayout<T>;
  // log2(e) in two parts, so that x keeps its bits.
  constexpr T kLog2E = static_cast<T>(1.44269504088896340736);
  constexpr T kLog2ERest = Layout::kLog2ERest;
  constexpr T kLeast = -static_cast<T>(Layout::kBias) / kLog2E;
  x = maximum(broadcast(kLeast), x);
  // Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low bits; with the bias it is an exponent field.
  constexpr T kMagic = Layout::kRounder + static_cast<T>(Layout::kBias);
  const Vector<T> shifted = x * kLog2E + kMagic;
  const Vector<T> f = x * kLog2ERest + (x * kLog2E - (shifted - kMagic));
  constexpr int kTerms = sizeof(Layout::kExp2) / sizeof(T);
  Vector<T> p = broadcast(Layout::kExp2[kTerms - 1]);
#pragma GCC unroll 16
  for (int i = kTerms - 2; i >= 0; --i) p = p * f + Layout::kExp2[i];
  return p * reinterpret_cast<Vector<T>>(reinterpret_cast<Vector<BitsOf<T>>>(shifted) << Layout::kMantissaBits);
}

/// ln x for finite, normal, positive x; what is not a number comes through.
template <class T>
[[gnu::always_inline]] inline Vector<T> log(Vector<T> x) {
  using Layout = FloatLayout<T>;
  using Bits = Vector<BitsOf<T>>;
  using SignedBits = Vector<typename VectorTypes<T>::SignedBits>;
  // x = 2^n m with m from sqrt(1/2) to sqrt(2); ln m = 2 atanh s, s = (m - 1) / (m + 1).
  constexpr auto kRootHalf = static_cast<T>(0.70710678118654752440);
  const auto root_bits = __builtin_bit_cast(BitsOf<T>, kRootHalf);
  const Bits above = reinterpret_cast<Bits>(x) - root_bits;
  const auto n = reinterpret_cast<SignedBits>(above) >> Layout::kMantissaBits;
  const auto m = reinterpret_cast<Vector<T>>((above & ((BitsOf<T>{1} << Layout::kMantissaBits) - 1)) + root_bits);
  const Vector<T> s = (m - T{1}) / (m + T{1});
  const Vector<T> s2 = s * s;
  Vector<T> series = broadcast(T{1} / (2 * Layout::kLogTerms + 1));
#pragma GCC unroll 16
  for (int i = Layout::kLogTerms - 1; i > 0; --i) series = series * s2 + T{1} / static_cast<T>(2 * i + 1);
  // x times 0 carries over what is not a number, which its bits alone would hide.
  const Vector<T> fraction = T{2} * (s + s * s2 * series) + x * T{0};
  return __builtin_convertvector(n, Vector<T>) * static_cast<T>(0.69314718055994530942) + fraction;
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
