// SPDX-License-Identifier: Apache-2.0
// kernels/linear.hpp against naive products.

#include "kernels/linear.hpp"

#include <gtest/gtest.h>

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
constexpr Shape shapes[] = {{0, 5, 3},     {4, 0, 3},     {3, 5, 0},      {1, 1, 1},
                            {1, 17, 13},   {2, 64, 32},   {5, 7, 11},     {6, 31, 5},
                            {7, 31, 5},    {13, 1, 9},    {9, 13, 1},     {1, 257, 129},
                            {3, 515, 260}, {37, 101, 53}, {129, 64, 257}, {300, 320, 310}};

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
