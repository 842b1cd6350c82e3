// SPDX-License-Identifier: Apache-2.0
#pragma once
// Elementary functions for kernels. On a GPU they are the library's. On the host the float versions of exp,
// erf and GELU are written here without branches or calls, so that g++ vectorises the loops around them;
// double takes the library.
//
// Errors of the float versions, over all arguments (unit_tests/kernels/test_math.cpp):
//   exp        2 ulp; results below 2^-126 are flushed to 0; exp(-inf) = 0, exp(large) = inf, NaN stays NaN
//   sigmoid    2e-7 relative above -87, silu likewise; smaller results may be flushed to 0
//   softplus   2.5e-7 relative above -87
//   silu'      4.5e-7 absolute for |x| <= 5, 1e-6 beyond
//   erf        1.5e-7 absolute
//   normal     1.2e-7 absolute; relative to the result 2e-6 down to x = -5

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <type_traits>

#include "kernels/common/types.hpp"

namespace strata::kernels::math {

#if KOKKOS_VERSION < 40000
namespace library = Kokkos::Experimental;
#else
namespace library = Kokkos;
#endif

/// Whether the own float versions stand in for the library's.
template <class T>
inline constexpr bool own_version = !on_device && std::is_same_v<T, float>;

template <class T>
KOKKOS_FORCEINLINE_FUNCTION T fabs(T x) {
  return library::fabs(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T sqrt(T x) {
  return library::sqrt(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T log(T x) {
  return library::log(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T sin(T x) {
  return library::sin(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T cos(T x) {
  return library::cos(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T tanh(T x) {
  return library::tanh(x);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T pow(T x, T y) {
  return library::pow(x, y);
}
/// The larger of two numbers; b where either is NaN.
template <class T>
KOKKOS_FORCEINLINE_FUNCTION constexpr T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION constexpr T min(T a, T b) {
  return a < b ? a : b;
}

/// std::bit_cast, which nvcc refuses in device code; the builtin behind it is accepted by g++, clang and
/// nvcc.
template <class To, class From>
KOKKOS_FORCEINLINE_FUNCTION constexpr To bits_as(From from) {
  return __builtin_bit_cast(To, from);
}

/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2, where seven terms of the Taylor series
/// leave 5e-9.
KOKKOS_FORCEINLINE_FUNCTION float exp_float(float x) {
  constexpr float smallest = -87.33654F;  // ln 2^-126
  float const clamped = max(smallest, min(88.8F, x));
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits of the sum.
  float const shifted = clamped * 1.44269504F + 12582912.0F;
  float const n = shifted - 12582912.0F;
  std::int32_t const power = bits_as<std::int32_t>(shifted) - 0x4B400000;
  // ln 2 in two parts; the first has few enough bits for n * part to be exact.
  float const r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * (r * r) + r + 1.0F;
  // 2^128 is no float: scale in two steps. Unsigned shifts, since a NaN leaves any bits in `power`.
  std::int32_t const half = power >> 1;
  auto const scale1 = bits_as<float>(static_cast<std::uint32_t>(half + 127) << 23);
  auto const scale2 = bits_as<float>(static_cast<std::uint32_t>(power - half + 127) << 23);
  float const result = sum * scale1 * scale2;
  return x < smallest ? 0.0F : result;
}

template <class T>
KOKKOS_FORCEINLINE_FUNCTION T exp(T x) {
  if constexpr (own_version<T>) {
    return exp_float(x);
  } else {
    return library::exp(x);
  }
}

/// 1 / (1 + exp(-x)).
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}
/// silu(x) = x sigmoid(x) and its derivative.
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T silu(T x) {
  return x / (T(1) + exp(-x));
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T silu_derivative(T x) {
  T const s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

/// log(1 + e) for e in [0, 1] by the series of 2 artanh(e / (2 + e)), whose first term left out is 1.3e-9 of
/// the sum.
KOKKOS_FORCEINLINE_FUNCTION float log1p_float(float e) {
  float const s = e / (2.0F + e), square = s * s;
  float sum = 1.0F / 15;
  sum = sum * square + 1.0F / 13;
  sum = sum * square + 1.0F / 11;
  sum = sum * square + 1.0F / 9;
  sum = sum * square + 1.0F / 7;
  sum = sum * square + 1.0F / 5;
  sum = sum * square + 1.0F / 3;
  return 2.0F * s + 2.0F * s * (square * sum);
}

/// softplus(x) = log(1 + exp(x)); x itself beyond 20, as in PyTorch. Its derivative is softplus_derivative.
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T softplus(T x) {
  T const e = exp(-fabs(x)), positive = max(x, T(0));
  if constexpr (own_version<T>) {
    float const sum = positive + log1p_float(e);
    return x > 20.0F ? x : sum;
  } else {
    return x > T(20) ? x : positive + library::log1p(e);
  }
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T softplus_derivative(T x) {
  T const s = sigmoid(x);
  return x > T(20) ? T(1) : s;
}

/// Distribution function and density of the standard normal distribution, which share one exponential.
template <class T>
struct Normal {
  T cdf, pdf;
};

/// What exp_float and the polynomial below make of a normal variable's tail.
struct NormalTail {
  float probability;  ///< of exceeding |x|
  float exponential;  ///< exp(-x^2 / 2)
};

/// cdf(-a) = exp(-a^2 / 2) Q(s) with s = 0.32 a / (1 + 0.32 a), a = |x|: the scaled complementary error
/// function is smooth in s, and Q is its Chebyshev interpolant of degree 9 for 0 <= a <= 14 (1e-7 relative,
/// 4e-10 of the product). In s rather than 1 - s the leading term is exact near 0, where the tail is largest.
KOKKOS_FORCEINLINE_FUNCTION NormalTail normal_tail(float x) {
  float const scaled = min(4.5F, 0.32F * library::fabs(x));  // inf / inf would be NaN
  float const s = scaled / (1.0F + scaled);
  float const e = exp_float(-0.5F * x * x);
  float q = 0.0246768739F;
  q = q * s - 0.0695698059F;
  q = q * s + 0.0314689247F;
  q = q * s + 0.0354560759F;
  q = q * s + 0.0895219149F;
  q = q * s - 0.137484213F;
  q = q * s - 0.422066687F;
  q = q * s + 1.19470844F;
  q = q * s - 1.24669456F;
  q = q * s + 0.5F;
  return {q * e, e};
}

template <class T>
KOKKOS_FORCEINLINE_FUNCTION T erf(T x) {
  if constexpr (own_version<T>) {
    float const size = 1.0F - 2.0F * normal_tail(1.41421356F * x).probability;
    return x < 0.0F ? -size : size;
  } else {
    return library::erf(x);
  }
}

template <class T>
KOKKOS_FORCEINLINE_FUNCTION Normal<T> normal(T x) {
  if constexpr (own_version<T>) {
    NormalTail const tail = normal_tail(x);
    return {x < 0.0F ? tail.probability : 1.0F - tail.probability, 0.398942280F * tail.exponential};
  } else {
    constexpr T inverse_sqrt_2 = T(0.70710678118654752440);
    constexpr T inverse_sqrt_2pi = T(0.39894228040143267794);
    return {T(0.5) * library::erfc(-x * inverse_sqrt_2), inverse_sqrt_2pi * library::exp(T(-0.5) * x * x)};
  }
}

/// gelu(x) = x Phi(x), exact form (Hendrycks and Gimpel, arXiv 1606.08415).
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T gelu(T x) {
  return x * normal(x).cdf;
}
/// gelu'(x) = Phi(x) + x phi(x).
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T gelu_derivative(T x) {
  Normal<T> const at = normal(x);
  return at.cdf + x * at.pdf;
}

}  // namespace strata::kernels::math
