// SPDX-License-Identifier: Apache-2.0
// Dropout masks: rate, independence of rows, columns, sites and seeds, and of how the rows are cut into
// calls.

#include "kernels/dropout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace strata::test {
namespace {

using kernels::Dropout;
using kernels::Index;

Dropout make(double probability, std::uint64_t seed = 1, std::uint32_t site = 2) {
  Dropout dropout;
  dropout.probability = probability;
  dropout.seed = seed;
  dropout.site = site;
  return dropout;
}

std::vector<bool> kept(Dropout const& dropout, Index rows, Index columns, std::uint32_t head = 0) {
  std::vector<bool> mask;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) mask.push_back(dropout.scale<double>(r, c, head) != 0);
  return mask;
}

double agreement(std::vector<bool> const& a, std::vector<bool> const& b) {
  double equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
  return equal / static_cast<double>(a.size());
}

TEST(Dropout, KeepsTheStatedFraction) {
  for (double const p : {0.0, 0.1, 0.5, 0.9}) {
    auto const mask = kept(make(p), 200, 500);
    double count = 0;
    for (bool const k : mask) count += k ? 1 : 0;
    // Five standard deviations of a binomial.
    EXPECT_NEAR(count, 1e5 * (1 - p), 5 * std::sqrt(1e5 * p * (1 - p))) << p;
    EXPECT_EQ(make(p).active(), p > 0);
  }
}

TEST(Dropout, ScalesWhatItKeeps) {
  Dropout const dropout = make(0.2);
  for (Index c = 0; c < 100; ++c) {
    float const scale = dropout.scale<float>(3, c);
    EXPECT_TRUE(scale == 0 || scale == 1.25F) << scale;
  }
}

TEST(Dropout, IsAFunctionOfItsArguments) { EXPECT_EQ(kept(make(0.5), 20, 50), kept(make(0.5), 20, 50)); }

TEST(Dropout, OtherSeedsSitesHeadsAndRowsDrawOtherNumbers) {
  auto const mask = kept(make(0.5), 100, 100);
  auto base = make(0.5);
  base.base = 100;
  auto far = make(0.5);
  far.base = Index(1) << 33;
  for (auto const& other : {kept(make(0.5, 9), 100, 100), kept(make(0.5, std::uint64_t(1) << 40), 100, 100),
                            kept(make(0.5, 1, 3), 100, 100), kept(make(0.5), 100, 100, 1),
                            kept(base, 100, 100), kept(far, 100, 100)})
    EXPECT_NEAR(agreement(mask, other), 0.5, 5 * 0.5 / 100);
}

TEST(Dropout, ColumnsAreIndependentOfTheirNeighbours) {
  auto const mask = kept(make(0.5), 1, 20000);
  for (std::size_t lag : {1U, 2U, 3U, 4U, 8U}) {
    double equal = 0;
    for (std::size_t i = 0; i + lag < mask.size(); ++i) equal += mask[i] == mask[i + lag] ? 1 : 0;
    EXPECT_NEAR(equal / static_cast<double>(mask.size() - lag), 0.5, 5 * 0.5 / std::sqrt(20000.0)) << lag;
  }
}

TEST(Dropout, DoesNotDependOnHowRowsAreCut) {
  // The training stream has sequences of 12 rows; calls see 3 sequences at once, whole or in two spans.
  constexpr Index sequences = 3, length = 12;
  auto whole = make(0.5);
  whole.base = 240;
  whole.length = length;
  whole.stride = length;
  for (Index cut = 1; cut < length; ++cut) {
    auto first = whole, second = whole;
    first.length = cut;
    second.length = length - cut;
    second.base += cut;
    for (Index s = 0; s < sequences; ++s)
      for (Index t = 0; t < length; ++t)
        for (Index c = 0; c < 17; ++c) {
          double const wanted = whole.scale<double>(s * length + t, c);
          double const got = t < cut ? first.scale<double>(s * cut + t, c)
                                     : second.scale<double>(s * (length - cut) + t - cut, c);
          EXPECT_EQ(got, wanted);
        }
  }
}

TEST(Dropout, FillsWhatScaleGivesAtAnyOffset) {
  auto const dropout = make(0.3);
  for (Index column = 0; column < 9; ++column)
    for (Index width = 0; width < 14; ++width) {
      std::vector<double> scales(static_cast<std::size_t>(width) + 1, -7);
      dropout.fill_scales(5, column, width, scales.data(), 3);
      for (Index i = 0; i < width; ++i)
        EXPECT_EQ(scales[static_cast<std::size_t>(i)], dropout.scale<double>(5, column + i, 3));
      EXPECT_EQ(scales.back(), -7);
    }
}

}  // namespace
}  // namespace strata::test
