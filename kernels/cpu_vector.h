#pragma once
// Vectors as wide as the instruction set's registers: loads and stores of whole vectors and of a row's tail, bits that choose
// lanes, transposition, and the elementary functions that softmax asks for. Internal to the CPU kernels: every instruction set
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
  typedef T Type __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
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
template <class T>
[[gnu::always_inline]] inline Vector<T> maximum(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

template <int kHalf, class V, std::size_t... kLane>
[[gnu::always_inline]] inline void swap_blocks(V& a, V& b, std::index_sequence<kLane...> /*lanes*/) {
  constexpr int kCount = sizeof...(kLane);
  const V even = __builtin_shufflevector(a, b, ((kLane & kHalf) != 0 ? kLane - kHalf + kCount : kLane)...);
  const V odd = __builtin_shufflevector(a, b, ((kLane & kHalf) != 0 ? kLane + kCount : kLane + kHalf)...);
  a = even;
  b = odd;
}

/// Transposes the square matrix whose rows these are, by swapping ever smaller blocks across the diagonal.
template <class T, int kHalf = kLanes<T> / 2>
[[gnu::always_inline]] inline void transpose(Vector<T> (&rows)[kLanes<T>]) {
  if constexpr (kHalf > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & kHalf) == 0) swap_blocks<kHalf>(rows[i], rows[i + kHalf], std::make_index_sequence<kLanes<T>>{});
    }
    transpose<T, kHalf / 2>(rows);
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
  x = maximum<T>(broadcast(kLeast), x);
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

/// ln x for normal positive x; what is not a number comes through.
template <class T>
[[gnu::always_inline]] inline Vector<T> log(Vector<T> x) {
  using Layout = FloatLayout<T>;
  using Bits = Vector<BitsOf<T>>;
  using SignedBits = Vector<typename VectorTypes<T>::SignedBits>;
  // x = 2^n m with m from sqrt(1/2) to sqrt(2); ln m = 2 atanh s, s = (m - 1) / (m + 1).
  constexpr auto kRootHalf = static_cast<T>(0.70710678118654752440);
  const auto root_bits = __builtin_bit_cast(BitsOf<T>, kRootHalf);
  const Bits above = reinterpret_cast<Bits>(x) - root_bits;
  const SignedBits n = reinterpret_cast<SignedBits>(above) >> Layout::kMantissaBits;
  const Vector<T> m = reinterpret_cast<Vector<T>>((above & ((BitsOf<T>{1} << Layout::kMantissaBits) - 1)) + root_bits);
  const Vector<T> s = (m - T{1}) / (m + T{1});
  const Vector<T> s2 = s * s;
  Vector<T> series = broadcast(T{1} / (2 * Layout::kLogTerms + 1));
#pragma GCC unroll 16
  for (int i = Layout::kLogTerms - 1; i > 0; --i) series = series * s2 + T{1} / static_cast<T>(2 * i + 1);
  const Vector<T> fraction = T{2} * (s + s * s2 * series);
  const Vector<T> log_x = __builtin_convertvector(n, Vector<T>) * static_cast<T>(0.69314718055994530942) + fraction;
  return x == x ? log_x : x;
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
