// SPDX-License-Identifier: Apache-2.0
#pragma once
// A backward pass is the transpose of the derivative: <g, J v> = <J^T g, v> for every cotangent g and
// direction v. The left side comes from the naive reference with dual numbers, the right side from the kernel
// in double.

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include "unit_tests/support/dual.hpp"

namespace strata::test {

class GradientCheck {
 public:
  /// An output of the reference, whose slopes are J v, and the cotangent given to the kernel for it.
  void output(std::vector<Dual> const& reference, std::vector<double> const& cotangent) {
    for (std::size_t i = 0; i < reference.size(); ++i) {
      double const term = cotangent.at(i) * reference[i].slope;
      forward_ += term;
      size_ += std::fabs(term);
    }
  }
  /// The gradient that the kernel returned for an input, and the direction in which the reference moved that
  /// input.
  void input(std::vector<double> const& gradient, std::vector<double> const& direction) {
    for (std::size_t i = 0; i < gradient.size(); ++i) backward_ += gradient[i] * direction.at(i);
  }
  /// Agreement to `tolerance` relative to the terms of <g, J v>. A product that is (nearly) zero proves
  /// nothing and fails.
  testing::AssertionResult result(double tolerance = 1e-12) const {
    if (!(std::fabs(forward_) > 1e-5 * size_) || !(size_ > 1e-8))
      return testing::AssertionFailure() << "vacuous: <g, J v> = " << forward_ << ", terms " << size_;
    if (std::fabs(forward_ - backward_) <= tolerance * size_) return testing::AssertionSuccess();
    return testing::AssertionFailure()
           << "<g, J v> = " << forward_ << ", <backward(g), v> = " << backward_ << ", difference "
           << forward_ - backward_ << ", bound " << tolerance * size_;
  }

 private:
  double forward_ = 0, backward_ = 0, size_ = 0;
};

}  // namespace strata::test
