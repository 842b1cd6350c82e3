// SPDX-License-Identifier: Apache-2.0
// The shifted RMS norm against its definition: forward, gradients, accumulation, splitting of sequences.

#include "kernels/norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/norm.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::RmsForm;
using kernels::Sequences;

/// One call, forward and backward, with random data.
template <class T>
struct ShiftNorm {
  Sequences shape;
  RmsForm form;
  Index width, shifted;
  bool carries;  // whether there is a row before and after the span
  OwnedMat<T> x, previous, y, dy, dnext, dx, dprevious;
  OwnedVec<T> gain, inverse, dgain, workspace;

  ShiftNorm(Sequences s, Index d, Index lent, RmsForm f, bool has_carries,
            Storage storage = Storage::contiguous)
      : shape(s),
        form(f),
        width(d),
        shifted(lent),
        carries(has_carries && lent > 0),
        x(OwnedMat<T>::random(s.rows(), d, 1, storage)),
        previous(OwnedMat<T>::random(s.count, lent, 2, storage)),
        y(s.rows(), d, storage),
        dy(OwnedMat<T>::random(s.rows(), d, 3, storage)),
        dnext(OwnedMat<T>::random(s.count, lent, 4, storage)),
        dx(s.rows(), d, storage),
        dprevious(s.count, lent, storage),
        gain(OwnedVec<T>::random(d, 5, 0.5, 1.5)),
        inverse(s.rows()),
        dgain(d),
        workspace(kernels::shift_rms_norm_workspace(s, d)) {
    dx.fill(0);
    dgain.fill(0);
  }
  auto optional(OwnedMat<T> const& m) const { return carries ? m.span() : kernels::Mat<T>(); }
  void forward() {
    kernels::shift_rms_norm_forward<T>(ExecSpace(), shape, form, shifted, x.span(), optional(previous),
                                       gain.span(), y.span(), inverse.span(), {}, {});
  }
  void backward() {
    kernels::shift_rms_norm_backward<T>(ExecSpace(), shape, form, shifted, dy.span(), x.span(),
                                        optional(previous), gain.span(), inverse.span(), optional(dnext),
                                        dx.span(), optional(dprevious), dgain.span(), workspace.span());
  }
  template <class S>
  std::vector<S> reference(std::vector<S> const& xs, std::vector<S> const& ps,
                           std::vector<S> const& gs) const {
    return reference::shift_rms_norm<S>(shape, form, shifted, xs, carries ? ps : std::vector<S>(), gs);
  }
};

template <class T>
class ShiftRmsNorm : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ShiftRmsNorm, Scalars);

TYPED_TEST(ShiftRmsNorm, ForwardFollowsItsDefinition) {
  for (Sequences const shape : {Sequences{0, 4}, {1, 1}, {3, 7}, {2, 67}, {1, 5}})
    for (Index const width : {1, 2, 13, 512, 5000})
      for (Index const shifted : {Index(0), width / 2, width})
        for (RmsForm const form : {RmsForm::clamped, RmsForm::epsilon})
          for (bool const carries : {false, true})
            for (Storage const storage : {Storage::contiguous, Storage::strided}) {
              if (width == 5000 && shape.length > 7) continue;
              ShiftNorm<TypeParam> norm(shape, width, shifted, form, carries, storage);
              norm.forward();
              auto const wanted =
                  norm.reference(lift<Scaled>(norm.x.values()), lift<Scaled>(norm.previous.values()),
                                 lift<Scaled>(norm.gain.values()));
              EXPECT_TRUE(near(norm.y, wanted, 8))
                  << shape.count << " x " << shape.length << " x " << width << " shifted " << shifted;
              EXPECT_TRUE(norm.inverse.guards_intact());
            }
}

TEST(ShiftRmsNormGradient, IsTheTransposeOfTheDerivative) {
  for (Sequences const shape : {Sequences{1, 1}, {3, 7}, {2, 67}, {1, 5}})
    for (Index const width : {2, 13, 512, 5000})
      for (Index const shifted : {Index(0), width / 2, width})
        for (RmsForm const form : {RmsForm::clamped, RmsForm::epsilon})
          for (bool const carries : {false, true}) {
            if (width == 5000 && shape.length > 7) continue;
            if (!carries && shifted == width && shape.length == 1) continue;  // y = 0 whatever x is
            ShiftNorm<double> norm(shape, width, shifted, form, carries, Storage::strided);
            norm.forward();
            norm.backward();
            auto const vx = random_values(norm.x.values().size(), 11),
                       vk = random_values(norm.gain.values().size(), 12),
                       vp = random_values(norm.previous.values().size(), 13);
            auto const reference = norm.reference(lift(norm.x.values(), vx), lift(norm.previous.values(), vp),
                                                  lift(norm.gain.values(), vk));
            GradientCheck check;
            check.output(reference, norm.dy.values());
            check.input(norm.dx.values(), vx);
            check.input(norm.dgain.values(), vk);
            if (carries) {
              check.input(norm.dprevious.values(), vp);
              // The last row of each sequence is an output too: what it lends to the next span.
              std::vector<Dual> lent;
              auto const x = norm.x.values();
              for (Index s = 0; s < shape.count; ++s)
                for (Index j = width - shifted; j < width; ++j) {
                  auto const at = static_cast<std::size_t>(((s + 1) * shape.length - 1) * width + j);
                  lent.push_back({x[at], vx[at]});
                }
              check.output(lent, norm.dnext.values());
            }
            EXPECT_TRUE(check.result()) << shape.count << " x " << shape.length << " x " << width
                                        << " shifted " << shifted << " carries " << carries;
            EXPECT_TRUE(norm.dx.guards_intact() && norm.dprevious.guards_intact() &&
                        norm.dgain.guards_intact());
          }
}

TEST(ShiftRmsNormGradient, InSinglePrecisionFollowsDouble) {
  for (Index const width : {13, 512, 5000}) {
    ShiftNorm<float> single({2, 37}, width, width / 2, RmsForm::clamped, true);
    ShiftNorm<double> twice({2, 37}, width, width / 2, RmsForm::clamped, true);
    for (auto const& [from, to] :
         {std::pair(&single.x, &twice.x), std::pair(&single.previous, &twice.previous),
          std::pair(&single.dy, &twice.dy), std::pair(&single.dnext, &twice.dnext)})
      to->fill(from->values());
    twice.gain.fill(single.gain.values());
    single.forward();
    single.backward();
    twice.forward();
    twice.backward();
    // Each element of dx has terms of the size of r * dy * gain <= 3 / 0.5, and dgain one such term for each
    // of 74 rows.
    auto const bounded = [](std::vector<double> const& values, double size) {
      std::vector<Scaled> result;
      for (double const v : values) result.emplace_back(v, size);
      return result;
    };
    EXPECT_TRUE(near(single.dx, bounded(twice.dx.values(), 6), 4));
    EXPECT_TRUE(near(single.dprevious, bounded(twice.dprevious.values(), 6), 4));
    EXPECT_TRUE(near(single.dgain, bounded(twice.dgain.values(), 74), 4));
  }
}

TYPED_TEST(ShiftRmsNorm, AddsToGradientsAndRepeatsBitForBit) {
  ShiftNorm<TypeParam> norm({2, 41}, 13, 6, RmsForm::clamped, true);
  norm.forward();
  norm.backward();
  auto const y = norm.y.values(), dx = norm.dx.values(), dgain = norm.dgain.values(),
             dprevious = norm.dprevious.values();
  norm.backward();
  auto twice = dgain;
  for (double& v : twice) v *= 2;
  EXPECT_TRUE(same(norm.dgain.values(), twice));
  EXPECT_TRUE(same(norm.dprevious.values(), dprevious));
  std::vector<Scaled> twice_dx;
  for (double const v : dx) twice_dx.emplace_back(2 * v, 12);
  EXPECT_TRUE(near(norm.dx, twice_dx, 2));

  norm.dx.fill(0);
  norm.dgain.fill(0);
  norm.forward();
  norm.backward();
  EXPECT_TRUE(same(norm.y.values(), y));
  EXPECT_TRUE(same(norm.dx.values(), dx));
  EXPECT_TRUE(same(norm.dgain.values(), dgain));
}

TYPED_TEST(ShiftRmsNorm, SplittingSequencesChangesNothing) {
  using T = TypeParam;
  constexpr Index count = 2, length = 9, width = 7, shifted = 3;
  ShiftNorm<T> whole({count, length}, width, shifted, RmsForm::clamped, true);
  whole.forward();
  whole.backward();
  auto const part_of = [&](std::vector<double> const& m, Index begin, Index end) {
    std::vector<double> part;
    for (Index s = 0; s < count; ++s)
      part.insert(part.end(), m.begin() + (s * length + begin) * width,
                  m.begin() + (s * length + end) * width);
    return part;
  };
  auto const scaled = [](std::vector<double> const& values, double size) {
    std::vector<Scaled> result;
    for (double const v : values) result.emplace_back(v, size);
    return result;
  };
  for (Index cut = 1; cut < length; ++cut) {
    ShiftNorm<T> first({count, cut}, width, shifted, RmsForm::clamped, true);
    ShiftNorm<T> second({count, length - cut}, width, shifted, RmsForm::clamped, true);
    first.x.fill(part_of(whole.x.values(), 0, cut));
    second.x.fill(part_of(whole.x.values(), cut, length));
    first.dy.fill(part_of(whole.dy.values(), 0, cut));
    second.dy.fill(part_of(whole.dy.values(), cut, length));
    second.dnext.fill(whole.dnext.values());
    first.forward();
    second.previous.fill_nan();
    kernels::last_rows<T>(ExecSpace(), first.shape, first.x.span(), second.previous.span());
    second.forward();
    EXPECT_TRUE(same(first.y.values(), part_of(whole.y.values(), 0, cut)));
    EXPECT_TRUE(same(second.y.values(), part_of(whole.y.values(), cut, length)));
    second.backward();
    first.dnext.fill(second.dprevious.values());
    first.dgain.fill(second.dgain.values());
    first.backward();
    EXPECT_TRUE(near(first.dx, scaled(part_of(whole.dx.values(), 0, cut), 6), 4)) << cut;
    EXPECT_TRUE(near(second.dx, scaled(part_of(whole.dx.values(), cut, length), 6), 4)) << cut;
    EXPECT_TRUE(near(first.dprevious, scaled(whole.dprevious.values(), 6), 4)) << cut;
    EXPECT_TRUE(near(first.dgain, scaled(whole.dgain.values(), 2 * length), 4)) << cut;
  }
}

TYPED_TEST(ShiftRmsNorm, CarriesTheResidualStream) {
  using T = TypeParam;
  for (Storage const storage : {Storage::contiguous, Storage::strided})
    for (bool const biased : {false, true}) {
      ShiftNorm<T> norm({3, 5}, 13, 6, RmsForm::clamped, false, storage);
      OwnedMat<T> residual(15, 13, storage);
      auto const bias = OwnedVec<T>::random(13, 8);
      kernels::shift_rms_norm_forward<T>(ExecSpace(), norm.shape, norm.form, norm.shifted, norm.x.span(), {},
                                         norm.gain.span(), norm.y.span(), norm.inverse.span(),
                                         residual.span(), biased ? bias.span() : kernels::Vec<T>());
      auto wanted = lift<Scaled>(norm.x.values());
      auto const added = bias.values();
      if (biased)
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += Scaled(added[i % 13]);
      EXPECT_TRUE(near(residual, wanted, biased ? 1 : 0));
    }
}

TYPED_TEST(ShiftRmsNorm, RowsOfZerosStayFinite) {
  using T = TypeParam;
  ShiftNorm<T> norm({1, 3}, 8, 4, RmsForm::clamped, false);
  norm.x.fill(0);
  norm.gain.fill(1);
  norm.dy.fill(1);
  norm.forward();
  norm.backward();
  for (double const v : norm.y.values()) EXPECT_EQ(v, 0);
  for (double const v : norm.dgain.values()) EXPECT_EQ(v, 0);
  // The clamped norm is a constant, 1e-8; the last row lends its second half to nobody.
  auto const dx = norm.dx.values();
  for (std::size_t i = 0; i < 20; ++i) EXPECT_NEAR(dx[i], 1e8, 20);
  for (std::size_t i = 20; i < 24; ++i) EXPECT_EQ(dx[i], 0);
}

}  // namespace
}  // namespace strata::test
