// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sums that do not depend on the order of their terms, so that an evaluation gives the same bits on any
// number of ranks.

#include <cmath>

namespace strata::train {

/// Fixed-point in two doubles. A term is split into a multiple of 2^-12 and a remainder that is rounded to a
/// multiple of 2^-42; sums of either are exact as long as the total stays below 2^41. The rounding (1.2e-13
/// per term) is the only one.
struct ExactSum {
  double high = 0;
  double low = 0;

  void add(double x) {
    double const h = round_to(x, 0x1p12);
    high += h;
    low += round_to(x - h, 0x1p42);
    if (std::fabs(low) >= 1) {  // keep low small enough to be exact
      double const carry = round_to(low, 0x1p12);
      high += carry;
      low -= carry;
    }
  }
  double value() const { return high + low; }

 private:
  static double round_to(double x, double inverse_unit) {
    return std::nearbyint(x * inverse_unit) / inverse_unit;
  }
};

}  // namespace strata::train
