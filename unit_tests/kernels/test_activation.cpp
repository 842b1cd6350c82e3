// SPDX-License-Identifier: Apache-2.0
// Bias + GELU + dropout against its definition.

#include "kernels/activation.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/activation.hpp"

namespace strata::test {
namespace {

using kernels::Dropout;
using kernels::ExecSpace;

Dropout some_dropout() {
  Dropout dropout;
  dropout.probability = 0.25;
  dropout.seed = 42;
  dropout.site = 7;
  dropout.base = 100;
  return dropout;
}

template <class T>
struct GeluCall {
  Index rows, width;
  Dropout dropout;
  OwnedMat<T> h, y, dy, dh;
  OwnedVec<T> bias, dbias, workspace;

  GeluCall(Index r, Index f, Dropout const& d, Storage storage = Storage::contiguous, double range = 4)
      : rows(r),
        width(f),
        dropout(d),
        h(OwnedMat<T>::random(r, f, 1, storage, -range, range)),
        y(r, f, storage),
        dy(OwnedMat<T>::random(r, f, 2, storage)),
        dh(r, f, storage),
        bias(OwnedVec<T>::random(f, 3)),
        dbias(f),
        workspace(kernels::bias_gelu_workspace(r, f)) {
    dbias.fill(0);
  }
  void forward(OwnedMat<T> const& out) {
    kernels::bias_gelu_forward<T>(ExecSpace(), h.span(), bias.span(), dropout, out.span());
  }
  void backward(OwnedMat<T> const& out) {
    kernels::bias_gelu_backward<T>(ExecSpace(), dy.span(), h.span(), bias.span(), dropout, out.span(),
                                   dbias.span(), workspace.span());
  }
  std::vector<double> scales() const {
    std::vector<double> result;
    if (dropout.active())
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < width; ++c) result.push_back(static_cast<double>(dropout.scale<T>(r, c)));
    return result;
  }
};

template <class T>
class BiasGelu : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(BiasGelu, Scalars);

struct Shape {
  Index rows, width;
};

TYPED_TEST(BiasGelu, ForwardFollowsItsDefinition) {
  for (auto const& [rows, width] : {Shape{0, 5}, {1, 1}, {67, 13}, {3, 512}, {2, 2049}})
    for (Storage const storage : {Storage::contiguous, Storage::strided})
      for (Dropout const& dropout : {Dropout(), some_dropout()})
        for (double const range : {0.1, 4.0, 40.0}) {
          GeluCall<TypeParam> call(rows, width, dropout, storage, range);
          call.forward(call.y);
          auto const wanted = reference::bias_gelu(lift<Scaled>(call.h.values()),
                                                   lift<Scaled>(call.bias.values()), call.scales());
          EXPECT_TRUE(near(call.y, wanted, 2)) << rows << " x " << width << " range " << range;
        }
}

TEST(BiasGeluGradient, IsTheTransposeOfTheDerivative) {
  for (auto const& [rows, width] : {Shape{1, 3}, {67, 13}, {33, 512}, {2, 2049}})
    for (Dropout const& dropout : {Dropout(), some_dropout()}) {
      GeluCall<double> call(rows, width, dropout, Storage::strided);
      call.backward(call.dh);
      auto const vh = random_values(call.h.values().size(), 11),
                 vb = random_values(call.bias.values().size(), 12);
      GradientCheck check;
      check.output(
          reference::bias_gelu(lift(call.h.values(), vh), lift(call.bias.values(), vb), call.scales()),
          call.dy.values());
      check.input(call.dh.values(), vh);
      check.input(call.dbias.values(), vb);
      EXPECT_TRUE(check.result()) << rows << " x " << width;
      EXPECT_TRUE(call.dh.guards_intact() && call.dbias.guards_intact());
    }
}

TEST(BiasGeluGradient, InSinglePrecisionFollowsDouble) {
  GeluCall<float> single(100, 77, Dropout());
  GeluCall<double> twice(100, 77, Dropout());
  twice.h.fill(single.h.values());
  twice.dy.fill(single.dy.values());
  twice.bias.fill(single.bias.values());
  single.backward(single.dh);
  twice.backward(twice.dh);
  // |gelu'| <= 1.13; rounding h + bias (|.| <= 5) moves gelu' by at most 5 eps / 2 times its slope of 0.8.
  auto const bounded = [](std::vector<double> const& values, double size) {
    std::vector<Scaled> result;
    for (double const v : values) result.emplace_back(v, size);
    return result;
  };
  EXPECT_TRUE(near(single.dh, bounded(twice.dh.values(), 1.13), 4));
  EXPECT_TRUE(near(single.dbias, bounded(twice.dbias.values(), 113), 1));
}

TYPED_TEST(BiasGelu, WorksInPlaceAccumulatesAndRepeats) {
  for (Dropout const& dropout : {Dropout(), some_dropout()}) {
    GeluCall<TypeParam> call(67, 530, dropout);
    call.forward(call.y);
    call.backward(call.dh);
    auto const dh = call.dh.values();
    auto dbias = call.dbias.values();
    call.backward(call.dy);
    EXPECT_TRUE(same(call.dy.values(), dh));
    for (double& v : dbias) v *= 2;
    EXPECT_TRUE(same(call.dbias.values(), dbias));
    call.forward(call.h);
    EXPECT_TRUE(same(call.h.values(), call.y.values()));
  }
}

}  // namespace
}  // namespace strata::test
