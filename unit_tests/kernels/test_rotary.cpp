// SPDX-License-Identifier: Apache-2.0
// Rotary positions and the splitting of queries, keys and values.

#include "kernels/rotary.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/rotary.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::Sequences;

struct Layout {
  Sequences shape;
  Index start, capacity, heads, head_dim;
  Index width() const { return heads * head_dim; }
};

/// Angle p * f[c], multiplied in T as the kernel's contract says.
template <class T>
std::vector<double> angles_at(Index position, Index head_dim) {
  std::vector<double> angles;
  for (Index c = 0; c < head_dim / 2; ++c) {
    T const frequency =
        static_cast<T>(std::pow(10000.0, -2.0 * static_cast<double>(c) / static_cast<double>(head_dim)));
    angles.push_back(static_cast<double>(static_cast<T>(static_cast<T>(position) * frequency)));
  }
  return angles;
}

/// Queries (first `width` columns of the result's rows), keys and values after the rotation: rows of 3 *
/// width.
template <class S, class T>
std::vector<S> split_rotate(Layout const& l, bool rotates, std::vector<S> const& qkv) {
  std::vector<S> result;
  for (Index row = 0; row < l.shape.rows(); ++row) {
    auto const angles = angles_at<T>(l.start + row % l.shape.length, l.head_dim);
    for (Index head = 0; head < 3 * l.heads; ++head) {
      auto const begin = qkv.begin() + row * 3 * l.width() + head * l.head_dim;
      std::vector<S> v(begin, begin + l.head_dim);
      if (rotates && head < 2 * l.heads) v = reference::rotate_half_split(v, angles, 1);
      result.insert(result.end(), v.begin(), v.end());
    }
  }
  return result;
}

/// Puts q and the stored keys and values of the span's positions back together as rows of 3 * width.
template <class T>
std::vector<double> gather(Layout const& l, OwnedMat<T> const& q, OwnedMat<T> const& stored) {
  std::vector<double> const queries = q.values(), kv = stored.values();
  std::vector<double> result;
  for (Index row = 0; row < l.shape.rows(); ++row) {
    Index const at = row / l.shape.length * l.capacity + l.start + row % l.shape.length;
    result.insert(result.end(), queries.begin() + row * l.width(), queries.begin() + (row + 1) * l.width());
    result.insert(result.end(), kv.begin() + at * 2 * l.width(), kv.begin() + (at + 1) * 2 * l.width());
  }
  return result;
}

std::vector<Layout> layouts() {
  return {{{0, 5}, 0, 5, 2, 4}, {{1, 1}, 0, 1, 1, 2}, {{3, 7}, 2, 11, 3, 10}, {{2, 67}, 0, 67, 8, 64}};
}

template <class T>
class Rotary : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Rotary, Scalars);

TYPED_TEST(Rotary, TableHoldsCosinesAndSines) {
  using T = TypeParam;
  for (Index const first : {Index(0), Index(5), Index(1000003)})
    for (Index const head_dim : {2, 10, 64})
      for (Storage const storage : {Storage::contiguous, Storage::strided}) {
        Index const length = 67;
        OwnedMat<T> table(length, head_dim, storage);
        kernels::rotary_table<T>(ExecSpace(), first, table.span());
        std::vector<Scaled> wanted;
        for (Index row = 0; row < length; ++row) {
          auto const angles = angles_at<T>(first + row, head_dim);
          for (double const a : angles) wanted.emplace_back(std::cos(a), 1);
          for (double const a : angles) wanted.emplace_back(std::sin(a), 1);
        }
        // In float the frequency's own rounding may differ by an ulp between two double pow's; none does
        // here.
        EXPECT_TRUE(near(table, wanted, 2)) << "first " << first << " d " << head_dim;
      }
}

TYPED_TEST(Rotary, ForwardFollowsItsDefinition) {
  using T = TypeParam;
  for (Layout const& l : layouts())
    for (bool const rotates : {false, true})
      for (Storage const storage : {Storage::contiguous, Storage::strided}) {
        auto const qkv = OwnedMat<T>::random(l.shape.rows(), 3 * l.width(), 1, storage);
        OwnedMat<T> q(l.shape.rows(), l.width(), storage),
            stored(l.shape.count * l.capacity, 2 * l.width(), storage);
        OwnedMat<T> table(l.shape.length, l.head_dim);
        kernels::rotary_table<T>(ExecSpace(), l.start, table.span());
        kernels::split_rotate_forward<T>(ExecSpace(), l.shape, l.start, l.heads,
                                         rotates ? table.span() : kernels::Mat<T>(), qkv.span(), q.span(),
                                         {stored.span(), l.capacity});
        auto const wanted = split_rotate<Scaled, T>(l, rotates, lift<Scaled>(qkv.values()));
        EXPECT_TRUE(near<T>(gather(l, q, stored), wanted, rotates ? 3 : 0));
        EXPECT_TRUE(q.guards_intact() && stored.guards_intact());
        // Positions outside the span stay as they were: NaN.
        Index untouched = 0;
        for (double const v : stored.values()) untouched += std::isnan(v) ? 1 : 0;
        EXPECT_EQ(untouched, l.shape.count * (l.capacity - l.shape.length) * 2 * l.width());
      }
}

TEST(RotaryGradient, IsTheTransposeOfTheDerivative) {
  for (Layout const& l : layouts())
    for (bool const rotates : {false, true}) {
      if (l.shape.rows() == 0) continue;
      auto const dq = OwnedMat<double>::random(l.shape.rows(), l.width(), 2, Storage::strided);
      auto const dstored =
          OwnedMat<double>::random(l.shape.count * l.capacity, 2 * l.width(), 3, Storage::strided);
      OwnedMat<double> dqkv(l.shape.rows(), 3 * l.width(), Storage::strided);
      OwnedMat<double> table(l.shape.length, l.head_dim);
      kernels::rotary_table<double>(ExecSpace(), l.start, table.span());
      auto const backward = [&] {
        kernels::split_rotate_backward<double>(ExecSpace(), l.shape, l.start, l.heads,
                                               rotates ? table.span() : kernels::Mat<double>(), dq.span(),
                                               {dstored.span(), l.capacity}, dqkv.span());
      };
      backward();
      auto const n = dqkv.values().size();
      auto const x = random_values(n, 4), v = random_values(n, 5);
      GradientCheck check;
      check.output(split_rotate<Dual, double>(l, rotates, lift(x, v)), gather(l, dq, dstored));
      check.input(dqkv.values(), v);
      EXPECT_TRUE(check.result());
      EXPECT_TRUE(dqkv.guards_intact());
      auto const once = dqkv.values();
      backward();
      EXPECT_TRUE(same(dqkv.values(), once));
    }
}

TYPED_TEST(Rotary, BackwardUndoesForward) {
  using T = TypeParam;
  Layout const l{{2, 31}, 3, 40, 2, 16};
  auto const qkv = OwnedMat<T>::random(l.shape.rows(), 3 * l.width(), 1);
  OwnedMat<T> q(l.shape.rows(), l.width()), stored(l.shape.count * l.capacity, 2 * l.width());
  OwnedMat<T> table(l.shape.length, l.head_dim), back(l.shape.rows(), 3 * l.width());
  kernels::rotary_table<T>(ExecSpace(), l.start, table.span());
  kernels::split_rotate_forward<T>(ExecSpace(), l.shape, l.start, l.heads, table.span(), qkv.span(), q.span(),
                                   {stored.span(), l.capacity});
  kernels::split_rotate_backward<T>(ExecSpace(), l.shape, l.start, l.heads, table.span(), q.span(),
                                    {stored.span(), l.capacity}, back.span());
  std::vector<Scaled> wanted;
  for (double const v : qkv.values()) wanted.emplace_back(v, 2);
  EXPECT_TRUE(near(back, wanted, 3));
}

}  // namespace
}  // namespace strata::test
