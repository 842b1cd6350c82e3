// SPDX-License-Identifier: Apache-2.0
#pragma once
// Scalars for naive references, which are templates over their scalar type S and call sqrt, exp, ...
// unqualified:
//   double  the value;
//   Dual    value and directional derivative, for gradient checks (gradient_check.hpp);
//   Scaled  value and the sum of the absolute values of the terms it was added up from, the natural unit of
//   its rounding
//           error (near.hpp).

#include <cmath>
#include <cstddef>
#include <vector>

namespace strata::test {

/// a + a' e with e^2 = 0.
struct Dual {
  double value = 0;
  double slope = 0;

  constexpr Dual() = default;
  constexpr Dual(double v, double s = 0) : value(v), slope(s) {}

  friend constexpr Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
  friend constexpr Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
  friend constexpr Dual operator-(Dual a) { return {-a.value, -a.slope}; }
  friend constexpr Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.slope * b.value + a.value * b.slope};
  }
  friend constexpr Dual operator/(Dual a, Dual b) {
    double const q = a.value / b.value;
    return {q, (a.slope - q * b.slope) / b.value};
  }
  constexpr Dual& operator+=(Dual b) { return *this = *this + b; }
  constexpr Dual& operator-=(Dual b) { return *this = *this - b; }
  constexpr Dual& operator*=(Dual b) { return *this = *this * b; }
  friend constexpr bool operator<(Dual a, Dual b) { return a.value < b.value; }
  friend constexpr bool operator>(Dual a, Dual b) { return a.value > b.value; }

  friend Dual sqrt(Dual a) {
    double const root = std::sqrt(a.value);
    return {root, a.slope / (2 * root)};
  }
  friend Dual exp(Dual a) { return {std::exp(a.value), std::exp(a.value) * a.slope}; }
  friend Dual log(Dual a) { return {std::log(a.value), a.slope / a.value}; }
  friend Dual erf(Dual a) {
    return {std::erf(a.value), 2 / std::sqrt(M_PI) * std::exp(-a.value * a.value) * a.slope};
  }
  friend Dual tanh(Dual a) {
    double const t = std::tanh(a.value);
    return {t, (1 - t * t) * a.slope};
  }
};

/// A value and the size of the terms behind it: sums add sizes, products multiply them, functions pass on
/// what their derivative makes of the argument's size. Rounding errors are then a small multiple of epsilon *
/// size.
struct Scaled {
  long double value = 0;
  double size = 0;

  constexpr Scaled() = default;
  constexpr Scaled(double v) : value(v), size(v < 0 ? -v : v) {}
  constexpr Scaled(long double v, long double s) : value(v), size(static_cast<double>(s)) {}

  friend constexpr Scaled operator+(Scaled a, Scaled b) { return {a.value + b.value, a.size + b.size}; }
  friend constexpr Scaled operator-(Scaled a, Scaled b) { return {a.value - b.value, a.size + b.size}; }
  friend constexpr Scaled operator-(Scaled a) { return {-a.value, a.size}; }
  friend constexpr Scaled operator*(Scaled a, Scaled b) { return {a.value * b.value, a.size * b.size}; }
  friend Scaled operator/(Scaled a, Scaled b) {
    return {a.value / b.value, a.size * b.size / (b.value * b.value)};
  }
  constexpr Scaled& operator+=(Scaled b) { return *this = *this + b; }
  constexpr Scaled& operator-=(Scaled b) { return *this = *this - b; }
  constexpr Scaled& operator*=(Scaled b) { return *this = *this * b; }
  friend constexpr bool operator<(Scaled a, Scaled b) { return a.value < b.value; }
  friend constexpr bool operator>(Scaled a, Scaled b) { return a.value > b.value; }

  friend Scaled sqrt(Scaled a) {
    long double const root = std::sqrt(a.value);
    return {root, root > 0 ? a.size / root : std::sqrt(a.size)};
  }
  friend Scaled exp(Scaled a) { return {std::exp(a.value), std::exp(a.value) * (1 + a.size)}; }
  friend Scaled log(Scaled a) { return {std::log(a.value), std::fabs(std::log(a.value)) + a.size / a.value}; }
  friend Scaled erf(Scaled a) {
    return {std::erf(a.value), 1 + 2 / std::sqrt(M_PI) * std::exp(-a.value * a.value) * a.size};
  }
  friend Scaled tanh(Scaled a) {
    long double const t = std::tanh(a.value);
    return {t, std::fabs(t) + (1 - t * t) * a.size};
  }
};

/// Numbers of the scalar type S from doubles, and back.
template <class S>
std::vector<S> lift(std::vector<double> const& values) {
  return std::vector<S>(values.begin(), values.end());
}
/// values + directions e.
inline std::vector<Dual> lift(std::vector<double> const& values, std::vector<double> const& directions) {
  std::vector<Dual> result;
  for (std::size_t i = 0; i < values.size(); ++i) result.emplace_back(values[i], directions.at(i));
  return result;
}
inline std::vector<double> values_of(std::vector<double> const& v) { return v; }
template <class S>
std::vector<double> values_of(std::vector<S> const& v) {
  std::vector<double> result;
  for (S const& x : v) result.push_back(static_cast<double>(x.value));
  return result;
}

}  // namespace strata::test
