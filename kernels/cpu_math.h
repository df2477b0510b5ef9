#pragma once
// Elementary functions that the compiler can put in vector loops: no branches, no calls, NaN comes through. Those for float are
// made here (coefficients: minimax fits of our own, by iteratively reweighted least squares against fp64); those for double are
// the C library's. Internal to the CPU kernels: every instruction set has its own copy, with internal linkage (cpu_dispatch.h).
#include <cstdint>

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// e^r = 1 + r + r^2 q(r) for |r| <= ln(2)/2, with 2^n taken out: x = n ln 2 + r.
struct ReducedExponent {
  float fraction;  ///< e^r - 1, to 2e-8 of its value
  float power;     ///< 2^n, for -126 < n + offset < 128
};

/// `offset` is added to n. x times log2(e), plus `offset`, must lie within [-126.5, 127.5]; NaN gives a fraction that is NaN.
[[gnu::always_inline]] inline ReducedExponent reduce_exponent(float x, float offset) {
  // Adding 3 * 2^22 rounds to an integer and leaves it in the low bits; 127 more make it an exponent field.
  const float magic = 12582912.0F + 127.0F + offset;
  const float shifted = __builtin_fmaf(x, 1.44269504F, magic);
  const float n = shifted - magic;
  float r = __builtin_fmaf(n, -0.693359375F, x);  // ln 2 in two parts: the first has 9 bits, so that its product is exact
  r = __builtin_fmaf(n, 2.12194440e-4F, r);
  float q = 1.388250e-3F;
  q = __builtin_fmaf(q, r, 8.366520e-3F);
  q = __builtin_fmaf(q, r, 4.1666720e-2F);
  q = __builtin_fmaf(q, r, 1.6666544e-1F);
  q = __builtin_fmaf(q, r, 4.9999998e-1F);
  return {__builtin_fmaf(r * r, q, r), __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, shifted) << 23U)};
}

/// e^x / 2 for -87.4 <= x <= 88.7; 0 below -86.99, where fp32 would begin to lose bits. Halved, since 2^127 is the largest power
/// of two that there is and x = 88.7 asks for half as much again.
[[gnu::always_inline]] inline float half_exp(float x) {
  const ReducedExponent e = reduce_exponent(x, -1.0F);
  return __builtin_fmaf(e.fraction, e.power, e.power);
}

/// e^x within 1.2 units in the last place; infinity from 88.73, 0 below -86.99.
[[gnu::always_inline]] inline float exp(float x) {
  x = x > 89.0F ? 89.0F : x;
  x = x < -87.4F ? -87.4F : x;
  const float half = half_exp(x);
  return half + half;
}
[[gnu::always_inline]] inline double exp(double x) { return __builtin_exp(x); }

[[gnu::always_inline]] inline float sqrt(float x) { return __builtin_sqrtf(x); }
[[gnu::always_inline]] inline double sqrt(double x) { return __builtin_sqrt(x); }

/// tanh x = sign(x) m / (m + 2) with m = e^(2|x|) - 1, within 2.5 units in the last place.
[[gnu::always_inline]] inline float tanh(float x) {
  float y = 2.0F * __builtin_fabsf(x);
  y = y > 20.0F ? 20.0F : y;
  const ReducedExponent e = reduce_exponent(y, 0.0F);
  const float m = __builtin_fmaf(e.fraction, e.power, e.power - 1.0F);
  return __builtin_copysignf(m / (m + 2.0F), x);
}
[[gnu::always_inline]] inline double tanh(double x) { return __builtin_tanh(x); }

/// 1 / (1 + e^-x), accurate in both tails.
template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  return T{1} / (T{1} + exp(-x));
}

/// s = sigmoid(x) and its derivative s (1 - s), which does not cancel where s is close to 1.
template <class T>
struct Logistic {
  T value;
  T slope;
};

template <class T>
[[gnu::always_inline]] inline Logistic<T> logistic(T x) {
  const T e = exp(x < T{0} ? x : -x);
  const T larger = T{1} / (T{1} + e);
  const T smaller = e * larger;
  return {x < T{0} ? smaller : larger, smaller * larger};
}

/// The standard normal distribution at x: Phi(x) = (1 + erf(x / sqrt 2)) / 2 and its density.
template <class T>
struct Normal {
  T cumulative;
  T density;
};

/// The tail beyond |x| is e^(-x^2/2) times half the scaled complementary error function of |x| / sqrt 2, which a quotient of
/// polynomials with positive coefficients follows to 5e-9 of its value on [0, 13.3]; so Phi(x) is accurate in the left tail too,
/// where 1 + erf has cancelled. Beyond 13.2 the tail is 0.
[[gnu::always_inline]] inline Normal<float> normal(float x) {
  float a = __builtin_fabsf(x);
  a = a > 13.21F ? 13.21F : a;
  const float e = half_exp(-0.5F * (a * a));  // the 2 that is missing here is in p and in the density's factor
  float p = 8.04054e-3F;
  p = __builtin_fmaf(p, a, 7.996936e-2F);
  p = __builtin_fmaf(p, a, 3.6261650e-1F);
  p = __builtin_fmaf(p, a, 8.7137660e-1F);
  p = __builtin_fmaf(p, a, 1.0F);
  float q = 1.007717e-2F;
  q = __builtin_fmaf(q, a, 1.0023411e-1F);
  q = __builtin_fmaf(q, a, 4.6438426e-1F);
  q = __builtin_fmaf(q, a, 1.19449036F);
  q = __builtin_fmaf(q, a, 1.66926153F);
  q = __builtin_fmaf(q, a, 1.0F);
  const float tail = e * (p / q);
  return {x < 0.0F ? tail : 1.0F - tail, e * 0.797884561F};
}
[[gnu::always_inline]] inline Normal<double> normal(double x) {
  return {0.5 * __builtin_erfc(-0.70710678118654752440 * x), 0.39894228040143267794 * __builtin_exp(-0.5 * x * x)};
}

}  // namespace
}  // namespace lathe::LATHE_CPU_TARGET
