// SPDX-License-Identifier: Apache-2.0
// LayerNorm against its definition.

#include <gtest/gtest.h>

#include <vector>

#include "kernels/norm.hpp"
#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/norm.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;

template <class T>
struct LayerNormCall {
  Index rows, width;
  OwnedMat<T> x, y, dy, dx;
  OwnedVec<T> gain, bias, mean, inverse, dgain, dbias, workspace;

  LayerNormCall(Index r, Index d, Storage storage = Storage::contiguous)
      : rows(r),
        width(d),
        x(OwnedMat<T>::random(r, d, 1, storage)),
        y(r, d, storage),
        dy(OwnedMat<T>::random(r, d, 2, storage)),
        dx(r, d, storage),
        gain(OwnedVec<T>::random(d, 3, 0.5, 1.5)),
        bias(OwnedVec<T>::random(d, 4)),
        mean(r),
        inverse(r),
        dgain(d),
        dbias(d),
        workspace(kernels::layer_norm_workspace(r, d)) {
    dgain.fill(0);
    dbias.fill(0);
  }
  void forward() { forward(y); }
  void forward(OwnedMat<T> const& out) {
    kernels::layer_norm_forward<T>(ExecSpace(), x.span(), gain.span(), bias.span(), out.span(), mean.span(),
                                   inverse.span());
  }
  void backward() { backward(dx); }
  void backward(OwnedMat<T> const& out) {
    kernels::layer_norm_backward<T>(ExecSpace(), dy.span(), x.span(), gain.span(), mean.span(),
                                    inverse.span(), out.span(), dgain.span(), dbias.span(), workspace.span());
  }
};

template <class T>
class LayerNorm : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LayerNorm, Scalars);

struct Shape {
  Index rows, width;
};

TYPED_TEST(LayerNorm, ForwardFollowsItsDefinition) {
  for (auto const& [rows, width] : {Shape{0, 5}, {1, 1}, {67, 13}, {33, 512}, {3, 5000}, {2, 100003}})
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      LayerNormCall<TypeParam> call(rows, width, storage);
      call.forward();
      auto const wanted = reference::layer_norm(
          lift<Scaled>(call.x.values()), lift<Scaled>(call.gain.values()), lift<Scaled>(call.bias.values()));
      EXPECT_TRUE(near(call.y, wanted, 4)) << rows << " x " << width;
      EXPECT_TRUE(call.mean.guards_intact() && call.inverse.guards_intact());
    }
}

TEST(LayerNormGradient, IsTheTransposeOfTheDerivative) {
  for (auto const& [rows, width] : {Shape{1, 3}, {67, 13}, {33, 512}, {3, 5000}}) {
    LayerNormCall<double> call(rows, width, Storage::strided);
    call.forward();
    call.backward();
    auto const vx = random_values(call.x.values().size(), 11),
               vk = random_values(call.gain.values().size(), 12),
               vb = random_values(call.bias.values().size(), 13);
    GradientCheck check;
    check.output(reference::layer_norm(lift(call.x.values(), vx), lift(call.gain.values(), vk),
                                       lift(call.bias.values(), vb)),
                 call.dy.values());
    check.input(call.dx.values(), vx);
    check.input(call.dgain.values(), vk);
    check.input(call.dbias.values(), vb);
    EXPECT_TRUE(check.result()) << rows << " x " << width;
    EXPECT_TRUE(call.dx.guards_intact() && call.dgain.guards_intact() && call.dbias.guards_intact());
  }
}

TEST(LayerNormGradient, InSinglePrecisionFollowsDouble) {
  for (Index const width : {13, 512, 5000}) {
    LayerNormCall<float> single(41, width);
    LayerNormCall<double> twice(41, width);
    twice.x.fill(single.x.values());
    twice.dy.fill(single.dy.values());
    twice.gain.fill(single.gain.values());
    single.forward();
    single.backward();
    twice.forward();
    twice.backward();
    auto const bounded = [](std::vector<double> const& values, double size) {
      std::vector<Scaled> result;
      for (double const v : values) result.emplace_back(v, size);
      return result;
    };
    // dx: terms of at most 1 / std * dy * gain <= 6; dgain and dbias: a term of at most xhat * dy <= 2.5 per
    // row.
    EXPECT_TRUE(near(single.dx, bounded(twice.dx.values(), 6), 4));
    EXPECT_TRUE(near(single.dgain, bounded(twice.dgain.values(), 100), 2));
    EXPECT_TRUE(near(single.dbias, bounded(twice.dbias.values(), 41), 1));
  }
}

TYPED_TEST(LayerNorm, WorksInPlaceAccumulatesAndRepeats) {
  for (Index const width : {13, 5000}) {
    LayerNormCall<TypeParam> call(40, width);
    call.forward();
    call.backward();
    auto const y = call.y.values(), dx = call.dx.values(), x = call.x.values();
    auto dgain = call.dgain.values(), dbias = call.dbias.values();
    call.backward(call.dy);
    EXPECT_TRUE(same(call.dy.values(), dx));
    for (double& v : dgain) v *= 2;
    for (double& v : dbias) v *= 2;
    EXPECT_TRUE(same(call.dgain.values(), dgain));
    EXPECT_TRUE(same(call.dbias.values(), dbias));
    call.forward(call.x);
    EXPECT_TRUE(same(call.x.values(), y));
  }
}

}  // namespace
}  // namespace strata::test
