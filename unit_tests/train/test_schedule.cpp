// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "train/exact_sum.hpp"
#include "train/schedule.hpp"

namespace strata::train {
namespace {

TEST(Schedule, WarmsUpThenFollowsHalfACosine) {
  Schedule const schedule{2e-3, 0.1, 105};  // w = 10, T = 95
  ASSERT_EQ(schedule.warmup_steps(), 10);
  for (Index i = 0; i < 105; ++i) {
    double const x = static_cast<double>(i);
    double const expected =
        i < 10 ? 2e-3 * (0.1 + 0.9 * x / 10) : 2e-3 * (1 + std::cos(M_PI * (x - 10) / 95)) / 2;
    EXPECT_NEAR(schedule.rate(i), expected, 1e-18) << i;
  }
  EXPECT_DOUBLE_EQ(schedule.rate(0), 2e-4);
  EXPECT_DOUBLE_EQ(schedule.rate(10), 2e-3);
  EXPECT_EQ(schedule.rate(105), 0);
}

TEST(Schedule, ShortRunsHaveNoWarmUp) {
  Schedule const schedule{1.0, 0.1, 9};
  EXPECT_EQ(schedule.warmup_steps(), 0);
  EXPECT_DOUBLE_EQ(schedule.rate(0), 1.0);
}

TEST(GlobalBatch, TargetIsALowerBound) {
  GlobalBatch const batch{6, 100};
  EXPECT_EQ(batch.steps(1200, true), 2);
  EXPECT_EQ(batch.steps(1201, true), 3);
  EXPECT_EQ(batch.steps(1, true), 1);
  EXPECT_EQ(batch.steps(12, false), 2);
  EXPECT_EQ(batch.steps(13, false), 3);
  EXPECT_EQ((GlobalBatch{1, 1}.steps(Index{1} << 40, true)), Index{1} << 40);
}

TEST(IsDue, SpreadsEvenlyAndEndsWithTheLastStep) {
  for (Index const total : {1, 7, 20, 101}) {
    for (Index const amount : {1, 3, 7, 20, 500}) {
      std::vector<Index> due;
      for (Index step = 1; step <= total; ++step) {
        if (is_due(step, total, amount)) due.push_back(step);
      }
      Index const parts = std::min(total, amount);
      ASSERT_EQ(static_cast<Index>(due.size()), parts);
      EXPECT_EQ(due.back(), total);
      for (std::size_t k = 1; k < due.size(); ++k) {
        EXPECT_GE(due[k] - due[k - 1], total / parts);
        EXPECT_LE(due[k] - due[k - 1], (total + parts - 1) / parts);
      }
    }
  }
  EXPECT_FALSE(is_due(5, 5, 0));
}

TEST(ExactSum, DoesNotDependOnTheOrder) {
  std::mt19937_64 random(1);
  std::vector<float> terms(100000);
  for (float& x : terms)
    x = std::ldexp(static_cast<float>(random() % 16777216), -20 - static_cast<int>(random() % 20));
  ExactSum forwards, left, right;
  long double direct = 0;
  for (float const x : terms) {
    forwards.add(static_cast<double>(x));
    direct += static_cast<long double>(x);
  }
  for (std::size_t i = terms.size(); i-- > 0;) (i % 3 == 0 ? left : right).add(static_cast<double>(terms[i]));
  ExactSum const both{left.high + right.high, left.low + right.low};
  EXPECT_EQ(forwards.value(), both.value());
  EXPECT_NEAR(forwards.value(), static_cast<double>(direct), 1e5 * 0x1p-42);
}

TEST(ExactSum, StaysExactForManyEqualTerms) {
  ExactSum sum;
  double const term = std::ldexp(std::nearbyint(std::ldexp(std::log(257.0), 42)), -42);
  Index const n = 1 << 20;
  for (Index i = 0; i < n; ++i) sum.add(term);
  EXPECT_EQ(sum.value(), static_cast<double>(n) * term);
  EXPECT_LT(std::fabs(sum.low), 1);
}

}  // namespace
}  // namespace strata::train
