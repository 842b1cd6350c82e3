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

/// |got / exact - 1|.
double relative(float got, double exact) { return std::fabs(static_cast<double>(got) / exact - 1); }

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double exact_softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

TEST(Math, SigmoidIsGoodToAFewUlp) {
  auto const error = [](float x) { return relative(math::sigmoid(x), exact_sigmoid(x)); };
  EXPECT_LE(worst(-87, 0, error), 2e-7);
  EXPECT_LE(worst(0, 1000, error), 2e-7);
  EXPECT_LE(worst(-1, 1, error), 2e-7);
  EXPECT_EQ(math::sigmoid(0.0F), 0.5F);
  EXPECT_EQ(math::sigmoid(infinity), 1.0F);
  EXPECT_EQ(math::sigmoid(-infinity), 0.0F);
  EXPECT_LE(math::sigmoid(-88.0F), 1e-38F);
  EXPECT_EQ(math::sigmoid(-1000.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::sigmoid(nan)));
}

TEST(Math, SiluIsGoodToAFewUlp) {
  auto const error = [](float x) {
    return x == 0 ? 0 : relative(math::silu(x), static_cast<double>(x) * exact_sigmoid(x));
  };
  EXPECT_LE(worst(-87, 0, error), 2e-7);
  EXPECT_LE(worst(0, 1000, error), 2e-7);
  EXPECT_LE(worst(-1, 1, error), 2e-7);
  EXPECT_EQ(math::silu(0.0F), 0.0F);
  EXPECT_EQ(math::silu(infinity), infinity);
  EXPECT_EQ(math::silu(-1000.0F), 0.0F);
  EXPECT_LE(std::fabs(math::silu(-88.0F)), 1e-36F);
  EXPECT_TRUE(std::isnan(math::silu(-infinity)));
  EXPECT_TRUE(std::isnan(math::silu(nan)));
}

TEST(Math, SiluDerivativeIsGoodToAFewUlpOfItsTerms) {
  auto const error = [](float at) {
    double const x = at, s = exact_sigmoid(x);
    return std::fabs(static_cast<double>(math::silu_derivative(at)) - s * (1 + x * (1 - s)));
  };
  EXPECT_LE(worst(-100, 100, error), 1e-6);
  EXPECT_LE(worst(-5, 5, error), 4.5e-7);
  EXPECT_EQ(math::silu_derivative(0.0F), 0.5F);
  EXPECT_EQ(math::silu_derivative(1000.0F), 1.0F);
  EXPECT_EQ(math::silu_derivative(-1000.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::silu_derivative(nan)));
}

TEST(Math, Log1pIsGoodOnTheUnitInterval) {
  auto const error = [](float e) {
    return e == 0 ? 0 : relative(math::log1p_float(e), std::log1p(static_cast<double>(e)));
  };
  EXPECT_LE(worst(0, 1, error), 2e-7);
  EXPECT_LE(worst(0, 1e-6F, error), 2e-7);
  EXPECT_EQ(math::log1p_float(0.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::log1p_float(nan)));
}

TEST(Math, SoftplusIsGoodToAFewUlp) {
  auto const error = [](float x) { return relative(math::softplus(x), exact_softplus(x)); };
  EXPECT_LE(worst(-87, 0, error), 2.5e-7);
  EXPECT_LE(worst(-1, 1, error), 2.5e-7);
  EXPECT_LE(worst(0, 40, error), 2.5e-7);
  EXPECT_LE(worst(19.99F, 20.01F, error), 2.5e-7);
  EXPECT_EQ(math::softplus(std::nextafter(20.0F, 21.0F)), std::nextafter(20.0F, 21.0F));
  EXPECT_EQ(math::softplus(1e30F), 1e30F);
  EXPECT_EQ(math::softplus(infinity), infinity);
  EXPECT_EQ(math::softplus(-infinity), 0.0F);
  EXPECT_EQ(math::softplus(-1000.0F), 0.0F);
  EXPECT_TRUE(std::isnan(math::softplus(nan)));
}

TEST(Math, SoftplusDerivativeIsOneBeyondTheThreshold) {
  EXPECT_LE(worst(-87, 20, [](float x) { return relative(math::softplus_derivative(x), exact_sigmoid(x)); }),
            2e-7);
  EXPECT_EQ(math::softplus_derivative(std::nextafter(20.0F, 21.0F)), 1.0F);
  EXPECT_EQ(math::softplus_derivative(infinity), 1.0F);
  EXPECT_EQ(math::softplus_derivative(-infinity), 0.0F);
  EXPECT_TRUE(std::isnan(math::softplus_derivative(nan)));
}

TEST(Math, DoubleVersionsKeepDoublePrecision) {
  for (double x = -700; x <= 700; x += 0.37) {
    double const s = exact_sigmoid(x);
    EXPECT_NEAR(math::sigmoid(x) / s, 1, 1e-15);
    EXPECT_NEAR(math::silu(x), x * s, 1e-15 * std::fabs(x * s));
    EXPECT_NEAR(math::silu_derivative(x), s * (1 + x * (1 - s)), 1e-15);
    // The threshold leaves out exp(-20) = 2e-9.
    EXPECT_NEAR(math::softplus(x), exact_softplus(x), x > 20 ? 2.1e-9 : 1e-15 * exact_softplus(x));
    EXPECT_NEAR(math::softplus_derivative(x), s, x > 20 ? 2.1e-9 : 1e-15);
  }
  EXPECT_EQ(math::softplus(std::nextafter(20.0, 21.0)), std::nextafter(20.0, 21.0));
  EXPECT_GT(math::softplus(20.0), 20.0);
}

}  // namespace
}  // namespace strata::test
