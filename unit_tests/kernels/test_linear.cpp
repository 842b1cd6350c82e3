// SPDX-License-Identifier: Apache-2.0
// kernels/linear.hpp against naive products.

#include "kernels/linear.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/linear.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;

/// Rows, inputs, outputs: empty ones, single ones, primes, the few rows that have a path of their own, and
/// large.
struct Shape {
  std::size_t m, k, n;
};
constexpr Shape shapes[] = {{0, 5, 3},    {4, 0, 3},      {3, 5, 0},      {1, 1, 1},     {1, 17, 13},
                            {2, 64, 32},  {5, 7, 11},     {6, 31, 5},     {7, 31, 5},    {13, 1, 9},
                            {9, 13, 1},   {1, 257, 129},  {3, 515, 260},  {37, 101, 53}, {64, 530, 35},
                            {65, 33, 19}, {129, 64, 257}, {300, 320, 310}};

template <class T>
class Linear : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Linear, Scalars);

template <class T>
struct Problem {
  Shape shape;
  Storage storage;
  std::vector<double> x, weight, bias, dy, y0, dweight0;

  explicit Problem(Shape s, Storage how = Storage::contiguous) : shape(s), storage(how) {
    auto const draw = [](std::size_t rows, std::size_t columns, std::uint64_t seed) {
      return OwnedMat<T>::random(Index(rows), Index(columns), seed).values();  // rounded to T
    };
    x = draw(s.m, s.k, 1);
    weight = draw(s.n, s.k, 2);
    bias = draw(1, s.n, 3);
    dy = draw(s.m, s.n, 4);
    y0 = draw(s.m, s.n, 5);
    dweight0 = draw(s.n, s.k, 6);
  }
  OwnedMat<T> mat(std::size_t rows, std::size_t columns, std::vector<double> const& values) const {
    return OwnedMat<T>(Index(rows), Index(columns), values, storage);
  }
  OwnedMat<T> nan(std::size_t rows, std::size_t columns) const {
    return OwnedMat<T>(Index(rows), Index(columns), storage);
  }
};

/// A sum of k products has at most k roundings of each partial sum; random signs and several partial sums
/// leave far less, so a bound of 4 + sqrt(k) of the sum of absolute values, in units of epsilon, already has
/// room.
double factor(std::size_t terms) { return 4 + std::sqrt(double(terms)); }

std::vector<Scaled> plus(std::vector<Scaled> a, std::vector<Scaled> const& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

TYPED_TEST(Linear, ForwardAgreesWithTheDefinition) {
  using T = TypeParam;
  for (Shape const s : shapes) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(testing::Message() << s.m << " x " << s.k << " -> " << s.n << " strided " << int(storage));
      Problem<T> const p(s, storage);
      auto const x = p.mat(s.m, s.k, p.x), weight = p.mat(s.n, s.k, p.weight);
      OwnedVec<T> const bias(Index(s.n), p.bias);
      for (bool const with_bias : {false, true}) {
        auto const y = p.nan(s.m, s.n);
        kernels::linear_forward<T>(ExecSpace(), x.span(), weight.span(),
                                   with_bias ? bias.const_span() : kernels::Vec<T const>(), y.span());
        auto const wanted =
            reference::linear<Scaled>(s.m, s.k, s.n, lift<Scaled>(p.x), lift<Scaled>(p.weight),
                                      lift<Scaled>(with_bias ? p.bias : std::vector<double>()));
        EXPECT_TRUE(near(y, wanted, factor(s.k)));
      }
    }
  }
}

TYPED_TEST(Linear, AccumulateAddsToTheOutput) {
  using T = TypeParam;
  for (Shape const s : shapes) {
    SCOPED_TRACE(testing::Message() << s.m << " x " << s.k << " -> " << s.n);
    Problem<T> const p(s, Storage::strided);
    auto const x = p.mat(s.m, s.k, p.x), weight = p.mat(s.n, s.k, p.weight), y = p.mat(s.m, s.n, p.y0);
    kernels::linear_forward_accumulate<T>(ExecSpace(), x.span(), weight.span(), y.span());
    auto const product =
        reference::linear<Scaled>(s.m, s.k, s.n, lift<Scaled>(p.x), lift<Scaled>(p.weight), {});
    EXPECT_TRUE(near(y, plus(lift<Scaled>(p.y0), product), factor(s.k)));
  }
}

TYPED_TEST(Linear, InputGradientIsOverwritten) {
  using T = TypeParam;
  for (Shape const s : shapes) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(testing::Message() << s.m << " x " << s.k << " -> " << s.n << " strided " << int(storage));
      Problem<T> const p(s, storage);
      auto const dy = p.mat(s.m, s.n, p.dy), weight = p.mat(s.n, s.k, p.weight), dx = p.nan(s.m, s.k);
      kernels::linear_backward_input<T>(ExecSpace(), dy.span(), weight.span(), dx.span());
      EXPECT_TRUE(near(
          dx,
          reference::linear_input_gradient<Scaled>(s.m, s.k, s.n, lift<Scaled>(p.dy), lift<Scaled>(p.weight)),
          factor(s.n)));
    }
  }
}

TYPED_TEST(Linear, WeightGradientIsAddedTo) {
  using T = TypeParam;
  for (Shape const s : shapes) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(testing::Message() << s.m << " x " << s.k << " -> " << s.n << " strided " << int(storage));
      Problem<T> const p(s, storage);
      auto const dy = p.mat(s.m, s.n, p.dy), x = p.mat(s.m, s.k, p.x), dweight = p.mat(s.n, s.k, p.dweight0);
      kernels::linear_backward_weight<T>(ExecSpace(), dy.span(), x.span(), dweight.span());
      auto const product =
          reference::linear_weight_gradient<Scaled>(s.m, s.k, s.n, lift<Scaled>(p.dy), lift<Scaled>(p.x));
      EXPECT_TRUE(near(dweight, plus(lift<Scaled>(p.dweight0), product), factor(s.m)));
    }
  }
}

TEST(LinearGradient, BackwardIsTheTransposeOfTheDerivative) {
  for (Shape const s : {Shape{3, 17, 12}, Shape{29, 31, 23}}) {
    Problem<double> const p(s);
    auto const vx = random_values(s.m * s.k, 11), vw = random_values(s.n * s.k, 12),
               vb = random_values(s.n, 13);
    auto const y =
        reference::linear<Dual>(s.m, s.k, s.n, lift(p.x, vx), lift(p.weight, vw), lift(p.bias, vb));
    auto const dy = p.mat(s.m, s.n, p.dy), weight = p.mat(s.n, s.k, p.weight), x = p.mat(s.m, s.k, p.x);
    auto const dx = p.nan(s.m, s.k), dweight = p.mat(s.n, s.k, std::vector<double>(s.n * s.k, 0.0));
    kernels::linear_backward_input<double>(ExecSpace(), dy.span(), weight.span(), dx.span());
    kernels::linear_backward_weight<double>(ExecSpace(), dy.span(), x.span(), dweight.span());
    std::vector<double> dbias(s.n);  // a column sum of dy, which kernels/reduce.hpp computes
    for (std::size_t i = 0; i < p.dy.size(); ++i) dbias[i % s.n] += p.dy[i];
    GradientCheck check;
    check.output(y, p.dy);
    check.input(dx.values(), vx);
    check.input(dweight.values(), vw);
    check.input(dbias, vb);
    EXPECT_TRUE(check.result());
  }
}

TYPED_TEST(Linear, RepeatsBitForBit) {
  using T = TypeParam;
  for (Shape const s : {Shape{1, 257, 129}, Shape{129, 64, 257}, Shape{700, 6, 5}}) {
    Problem<T> const p(s);
    auto const x = p.mat(s.m, s.k, p.x), weight = p.mat(s.n, s.k, p.weight), dy = p.mat(s.m, s.n, p.dy);
    auto const run = [&] {
      auto const y = p.nan(s.m, s.n), dx = p.nan(s.m, s.k), dweight = p.mat(s.n, s.k, p.dweight0);
      kernels::linear_forward<T>(ExecSpace(), x.span(), weight.span(), {}, y.span());
      kernels::linear_backward_input<T>(ExecSpace(), dy.span(), weight.span(), dx.span());
      kernels::linear_backward_weight<T>(ExecSpace(), dy.span(), x.span(), dweight.span());
      auto all = y.values();
      for (auto const& part : {dx.values(), dweight.values()})
        all.insert(all.end(), part.begin(), part.end());
      return all;
    };
    auto const first = run();
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(same(run(), first));
  }
}

std::vector<double> some_rows(std::vector<double> const& values, std::size_t width, std::size_t first,
                              std::size_t count) {
  auto const begin = values.begin() + std::ptrdiff_t(first * width);
  return std::vector<double>(begin, begin + std::ptrdiff_t(count * width));
}

/// Inputs and outputs: less than a register, whole and broken registers, tiles and blocks, several pieces of
/// the weights, products that wake other threads and products that do not.
constexpr Shape row_shapes[] = {{64, 1, 1},     {64, 3, 5},     {64, 8, 4},    {64, 16, 16},
                                {64, 257, 131}, {64, 1024, 24}, {64, 1537, 9}, {64, 530, 67}};

// Elements computed one by one, by products of one row and one output, which run on the calling thread: the
// order of the sums in larger products must not show, nor must their spreading over threads.
TYPED_TEST(Linear, FewRowsAddInTheOrderOfSingleElements) {
  using T = TypeParam;
  if (kernels::on_device) return;  // a promise of hosts
  for (Shape const s : row_shapes) {
    SCOPED_TRACE(testing::Message() << s.m << " x " << s.k << " -> " << s.n);
    Problem<T> const p(s, Storage::strided);
    auto const x = p.mat(s.m, s.k, p.x), weight = p.mat(s.n, s.k, p.weight), y = p.nan(s.m, s.n),
               added = p.mat(s.m, s.n, p.y0);
    OwnedVec<T> const bias(Index(s.n), p.bias);
    kernels::linear_forward<T>(ExecSpace(), x.span(), weight.span(), bias.const_span(), y.span());
    kernels::linear_forward_accumulate<T>(ExecSpace(), x.span(), weight.span(), added.span());
    OwnedMat<T> const single(Index(s.m), Index(s.n)), single_added = p.mat(s.m, s.n, p.y0);
    for (Index m = 0; m<Index(s.m); m += s.k> 1000 ? 9 : 1) {
      for (Index n = 0; n < Index(s.n); ++n) {
        auto const one = [&](kernels::Mat<T> const& matrix, Index row, Index column, Index width) {
          return kernels::columns<T>(kernels::rows<T>(matrix, row, row + 1), column, column + width);
        };
        auto const row = one(x.span(), m, 0, Index(s.k)), output = one(weight.span(), n, 0, Index(s.k));
        kernels::linear_forward<T>(ExecSpace(), row, output,
                                   kernels::Vec<T const>(bias.const_span().data() + n, 1),
                                   one(single.span(), m, n, 1));
        kernels::linear_forward_accumulate<T>(ExecSpace(), row, output, one(single_added.span(), m, n, 1));
      }
      EXPECT_TRUE(same(some_rows(y.values(), s.n, std::size_t(m), 1),
                       some_rows(single.values(), s.n, std::size_t(m), 1)));
      EXPECT_TRUE(same(some_rows(added.values(), s.n, std::size_t(m), 1),
                       some_rows(single_added.values(), s.n, std::size_t(m), 1)));
    }
    EXPECT_TRUE(y.guards_intact());
  }
}

TYPED_TEST(Linear, FewRowsDoNotTouchEachOther) {
  using T = TypeParam;
  if (kernels::on_device) return;  // a promise of hosts
  for (Shape const s : row_shapes) {
    Problem<T> const p(s);
    auto const weight = p.mat(s.n, s.k, p.weight);
    OwnedVec<T> const bias(Index(s.n), p.bias);
    auto const run = [&](std::vector<double> const& x, std::size_t m) {
      OwnedMat<T> const in(Index(m), Index(s.k), x), y(Index(m), Index(s.n));
      kernels::linear_forward<T>(ExecSpace(), in.span(), weight.span(), bias.const_span(), y.span());
      return y.values();
    };
    std::vector<double> alone;
    for (std::size_t m = 0; m < s.m; ++m) {
      auto const row = run(some_rows(p.x, s.k, m, 1), 1);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    for (std::size_t m = 1; m <= std::size_t(kernels::independent_rows); ++m) {
      SCOPED_TRACE(testing::Message() << m << " x " << s.k << " -> " << s.n);
      EXPECT_TRUE(same(run(some_rows(p.x, s.k, 0, m), m), some_rows(alone, s.n, 0, m)));
    }
    auto x = p.x;  // what the other rows hold is nobody's business
    std::fill(x.begin(), x.begin() + std::ptrdiff_t(s.k), std::numeric_limits<double>::quiet_NaN());
    EXPECT_TRUE(same(some_rows(run(x, s.m), s.n, 1, s.m - 1), some_rows(alone, s.n, 1, s.m - 1)));
  }
}

/// Shapes that do not fit are programming errors.
TEST(LinearChecks, WrongShapesThrow) {
  OwnedMat<float> const x(3, 4), weight(5, 4), wrong(5, 3), y(3, 5);
  OwnedVec<float> const bias(4);
  EXPECT_THROW(kernels::linear_forward<float>(ExecSpace(), x.span(), wrong.span(), {}, y.span()),
               std::logic_error);
  EXPECT_THROW(kernels::linear_forward<float>(ExecSpace(), x.span(), weight.span(), bias.span(), y.span()),
               std::logic_error);
  EXPECT_THROW(kernels::linear_backward_input<float>(ExecSpace(), x.span(), weight.span(), y.span()),
               std::logic_error);
  EXPECT_THROW(kernels::linear_backward_weight<float>(ExecSpace(), y.span(), x.span(), wrong.span()),
               std::logic_error);
}

TEST(LinearCost, CountsMultiplyAddsTwice) {
  auto const cost = kernels::linear_cost<float>(10, 20, 30);
  EXPECT_EQ(cost.flops, 2.0 * 10 * 20 * 30);
  EXPECT_EQ(cost.bytes_read, 4.0 * (10 * 20 + 20 * 30));
  EXPECT_EQ(cost.bytes_written, 4.0 * 10 * 30);
}

}  // namespace
}  // namespace strata::test
