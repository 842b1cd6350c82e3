// SPDX-License-Identifier: Apache-2.0
// Sums in a fixed order.

#include "kernels/reduce.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;

template <class T>
class Reduce : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Reduce, Scalars);

struct Shape {
  Index rows, columns;
};

TYPED_TEST(Reduce, ColumnSumsAddUpEachColumn) {
  using T = TypeParam;
  for (auto const& [rows, columns] : {Shape{0, 3}, {1, 1}, {31, 13}, {67, 512}, {3, 5003}, {10007, 2}})
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      auto const m = OwnedMat<T>::random(rows, columns, 1, storage);
      auto const initial = OwnedVec<T>::random(columns, 2);
      OwnedVec<T> sums(columns, initial.values()), workspace(kernels::column_sums_workspace(rows, columns));
      auto const values = m.values();
      auto wanted = lift<Scaled>(initial.values());
      for (std::size_t i = 0; i < values.size(); ++i)
        wanted[i % static_cast<std::size_t>(columns)] += Scaled(values[i]);
      kernels::column_sums<T>(ExecSpace(), m.span(), sums.span(), workspace.span());
      // Up to 32 additions in T one after the other, then double.
      EXPECT_TRUE(near(sums, wanted, 4)) << rows << " x " << columns;
      EXPECT_TRUE(workspace.guards_intact());
      auto const once = sums.values();
      sums.fill(initial.values());
      kernels::column_sums<T>(ExecSpace(), m.span(), sums.span(), workspace.span());
      EXPECT_TRUE(same(sums.values(), once));
    }
}

TYPED_TEST(Reduce, SquaredNormIsInDouble) {
  using T = TypeParam;
  for (Index const n : {0, 1, 13, 8192, 8193, 100003}) {
    auto const v = OwnedVec<T>::random(n, 1);
    OwnedVec<double> result(1), workspace(kernels::squared_norm_workspace(n));
    kernels::squared_norm<T>(ExecSpace(), v.span(), result.span(), workspace.span());
    Scaled wanted = 0;
    for (double const x : v.values()) wanted += Scaled(x * x);
    EXPECT_TRUE(near(result, {wanted}, 8)) << n;  // epsilon of double whatever T is
    auto const once = result.values();
    kernels::squared_norm<T>(ExecSpace(), v.span(), result.span(), workspace.span());
    EXPECT_TRUE(same(result.values(), once));
  }
}

TYPED_TEST(Reduce, SquaredNormShowsNaNAndInfinity) {
  using T = TypeParam;
  for (double const bad : {std::nan(""), HUGE_VAL}) {
    auto values = random_values(9001, 1);
    values[8999] = bad;
    OwnedVec<T> const v(9001, values);
    OwnedVec<double> result(1), workspace(kernels::squared_norm_workspace(9001));
    kernels::squared_norm<T>(ExecSpace(), v.span(), result.span(), workspace.span());
    EXPECT_TRUE(same(result.values(), {std::fabs(bad)}) || std::isnan(bad));
    EXPECT_FALSE(std::isfinite(result.values()[0]));
  }
}

TYPED_TEST(Reduce, LossesLeaveOutRowsWithoutPrediction) {
  using T = TypeParam;
  for (Index const n : {0, 1, 13, 10007}) {
    auto values = random_values(static_cast<std::size_t>(n), 1, 0, 8);
    for (std::size_t i = 0; i < values.size(); i += 3) values[i] = -1;
    OwnedVec<T> const losses(n, values);
    OwnedVec<double> totals(2, {10, 20});
    kernels::add_losses<T>(ExecSpace(), losses.span(), totals.span());
    Scaled sum = 10;
    double counted = 20;
    for (double const v : losses.values()) {
      if (v < 0) continue;
      sum += Scaled(v);
      counted += 1;
    }
    EXPECT_TRUE(near(totals, {sum, Scaled(counted, 0)}, 8)) << n;
  }
}

TYPED_TEST(Reduce, ALossOfNaNShows) {
  OwnedVec<TypeParam> const losses(3, {1, std::nan(""), -1});
  OwnedVec<double> totals(2, {0, 0});
  kernels::add_losses<TypeParam>(ExecSpace(), losses.span(), totals.span());
  EXPECT_TRUE(std::isnan(totals.values()[0]));
  EXPECT_EQ(totals.values()[1], 2);
}

}  // namespace
}  // namespace strata::test
