// SPDX-License-Identifier: Apache-2.0
// The elementary functions of kernels/common/math.hpp over the whole range of their arguments.

#include "kernels/common/math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace strata::test {
namespace {

namespace math = kernels::math;
constexpr float infinity = std::numeric_limits<float>::infinity();

/// The largest of error(x) over evenly spaced floats in [low, high].
double worst(float low, float high, std::function<double(float)> const& error) {
  constexpr int points = 400000;
  double result = 0;
  for (int i = 0; i <= points; ++i) {
    double const at = low + (static_cast<double>(high) - low) * i / points;
    result = std::fmax(result, error(static_cast<float>(at)));
  }
  return result;
}

TEST(Math, ExpIsGoodToTwoUlp) {
  double const ulps = worst(-87.3F, 88.7F, [](float x) {
    double const exact = std::exp(static_cast<double>(x));
    return std::fabs(static_cast<double>(math::exp(x)) - exact) / std::ldexp(1.0, std::ilogb(exact) - 23);
  });
  EXPECT_LE(ulps, 2);
  EXPECT_GT(ulps, 0);
}

TEST(Math, ExpSaturates) {
  EXPECT_EQ(math::exp(-infinity), 0.0F);
  EXPECT_EQ(math::exp(-1000.0F), 0.0F);
  EXPECT_EQ(math::exp(0.0F), 1.0F);
  EXPECT_EQ(math::exp(89.0F), infinity);
  EXPECT_EQ(math::exp(infinity), infinity);
  EXPECT_TRUE(std::isnan(math::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, ErfIsGoodToAnUlpOfOne) {
  EXPECT_LE(worst(-5, 5,
                  [](float x) {
                    return std::fabs(static_cast<double>(math::erf(x)) - std::erf(static_cast<double>(x)));
                  }),
            1.5e-7);
  EXPECT_EQ(math::erf(infinity), 1.0F);
  EXPECT_EQ(math::erf(-infinity), -1.0F);
  EXPECT_EQ(math::erf(0.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::erf(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, GeluKeepsRelativeAccuracyInItsLeftTail) {
  auto const exact = [](double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0)); };
  EXPECT_LE(worst(-5, 30,
                  [&](float x) {
                    return x == 0 ? 0 : std::fabs(static_cast<double>(math::gelu(x)) / exact(x) - 1);
                  }),
            2e-6);
  EXPECT_EQ(math::gelu(0.0F), 0.0F);
  EXPECT_EQ(math::gelu(infinity), infinity);
  EXPECT_EQ(math::gelu(-100.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::gelu(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, GeluDerivativeIsGoodToAFewUlpOfOne) {
  EXPECT_LE(worst(-15, 15,
                  [](float at) {
                    double const x = at;
                    double const exact =
                        0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
                    return std::fabs(static_cast<double>(math::gelu_derivative(at)) - exact);
                  }),
            2.5e-7);
}

}  // namespace
}  // namespace strata::test
