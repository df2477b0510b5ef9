#pragma once
// Elementary functions as kernels want them: few instructions, errors that are stated, NaN comes through. What CUDA's own library has at
// the same price (expf, logf, tanhf: 1 to 2 units in the last place) is called by its name.
#include <bit>
#include <cmath>

#include "lathe/kernels/device/language.cuh"

namespace lathe::device {

inline constexpr float kLog2E = 1.44269504F;
inline constexpr float kLn2 = 0.693147182F;

/// 2^x within 2 units in the last place: one instruction. Results below 2^-126 are 0.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef LATHE_EMULATED
  const float power = std::exp2(x);
  return power < 0x1p-126F ? 0.0F : power;
#else
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#endif
}

/// 1 / x within 1 unit in the last place: one instruction. Results below 2^-126 are 0, and so is that of infinity.
__device__ __forceinline__ float fast_reciprocal(float x) {
#ifdef LATHE_EMULATED
  const float quotient = 1.0F / x;
  return std::abs(quotient) < 0x1p-126F ? std::copysign(0.0F, quotient) : quotient;
#else
  float quotient;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(quotient) : "f"(x));
  return quotient;
#endif
}

/// The smaller, and the larger; NaN if either is.
__device__ __forceinline__ float min_or_nan(float a, float b) {
#ifdef LATHE_EMULATED
  return a < b || a != a ? a : b;
#else
  float smaller;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(smaller) : "f"(a), "f"(b));
  return smaller;
#endif
}
__device__ __forceinline__ float max_or_nan(float a, float b) {
#ifdef LATHE_EMULATED
  return a > b || a != a ? a : b;
#else
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#endif
}

/// 1 / (1 + e^-x), accurate in both tails.
__device__ __forceinline__ float sigmoid(float x) { return fast_reciprocal(1.0F + expf(-x)); }

/// s = sigmoid(x) and its derivative s (1 - s), which does not cancel where s is close to 1.
struct Logistic {
  float value;
  float slope;
};

/// From e = e^-|x|.
__device__ __forceinline__ Logistic logistic(float x, float e) {
  const float larger = fast_reciprocal(1.0F + e);
  const float smaller = e * larger;
  return {x < 0.0F ? smaller : larger, smaller * larger};
}
__device__ __forceinline__ Logistic logistic(float x) { return logistic(x, expf(-fabsf(x))); }

/// What |x| of a normal distribution is clamped to: its tail beyond is 0 in fp32, and infinity times 0 is not.
inline constexpr float kNormalLimit = 13.3F;

/// The standard normal distribution beyond |x|: the probability Phi(-|x|) = erfc(|x| / sqrt 2) / 2, and the density.
struct NormalTail {
  float distance;  ///< |x|, at most kNormalLimit
  float probability;
  float density;
};

/// The tail is e^(-x^2/2) times half the scaled complementary error function of |x| / sqrt 2, which a quotient of polynomials with positive
/// coefficients follows to 5e-9 of its value on [0, 13.3] (kernels/cpu_math.h has the same one): accurate where 1 + erf has cancelled.
__device__ __forceinline__ NormalTail normal_tail(float x) {
  const float a = min_or_nan(fabsf(x), kNormalLimit);
  const float e = fast_exp2(fmaf(a * a, -0.5F * kLog2E, -1.0F));  // e^(-x^2/2) / 2; p and the density's factor have the 2
  float p = 8.04054e-3F;
  p = fmaf(p, a, 7.996936e-2F);
  p = fmaf(p, a, 3.6261650e-1F);
  p = fmaf(p, a, 8.7137660e-1F);
  p = fmaf(p, a, 1.0F);
  float q = 1.007717e-2F;
  q = fmaf(q, a, 1.0023411e-1F);
  q = fmaf(q, a, 4.6438426e-1F);
  q = fmaf(q, a, 1.19449036F);
  q = fmaf(q, a, 1.66926153F);
  q = fmaf(q, a, 1.0F);
  return {a, e * (p * fast_reciprocal(q)), e * 0.797884561F};
}

/// The tail's probability to 3.1e-5 of its value, a sixtieth of what rounding to bf16 may add, for two thirds of the instructions: a polynomial
/// in 1 / (1 + 3/8 |x|), of which the scaled complementary error function is nearly one (coefficients: a minimax fit of our own).
__device__ __forceinline__ float normal_tail_for_bf16(float distance) {
  const float t = fast_reciprocal(fmaf(distance, 0.375F, 1.0F));
  float p = -9.06427048e-2F;
  p = fmaf(p, t, 2.00281417e-1F);
  p = fmaf(p, t, 8.35642418e-2F);
  p = fmaf(p, t, 1.57733925e-1F);
  p = fmaf(p, t, 1.49061033e-1F);
  return fast_exp2(distance * distance * (-0.5F * kLog2E)) * (p * t);
}

}  // namespace lathe::device
