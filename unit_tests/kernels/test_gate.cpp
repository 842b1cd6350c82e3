// SPDX-License-Identifier: Apache-2.0
// The SiLU gate, the gated RMS norm and elementwise dropout against their definitions.

#include "kernels/gate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/gate.hpp"

namespace strata::test {
namespace {

using kernels::Dropout;
using kernels::ExecSpace;

/// One call, forward and backward, with random data.
template <class T>
struct GateCall {
  OwnedMat<T> y, z, o, dout, dy, dz;
  OwnedVec<T> gain, inverse, dgain, workspace;

  GateCall(Index rows, Index width, Storage storage = Storage::contiguous)
      : y(OwnedMat<T>::random(rows, width, 1, storage, -3, 3)),
        z(OwnedMat<T>::random(rows, width, 2, storage, -6, 6)),
        o(rows, width, storage),
        dout(OwnedMat<T>::random(rows, width, 3, storage)),
        dy(rows, width, storage),
        dz(rows, width, storage),
        gain(OwnedVec<T>::random(width, 4, 0.5, 1.5)),
        inverse(rows),
        dgain(width),
        workspace(kernels::gated_rms_norm_workspace(rows, width)) {
    dgain.fill(0);
  }
  void gate() { kernels::silu_gate_forward<T>(ExecSpace(), y.span(), z.span(), o.span()); }
  void gate_backward() {
    kernels::silu_gate_backward<T>(ExecSpace(), dout.span(), y.span(), z.span(), dy.span(), dz.span());
  }
  void norm() {
    kernels::gated_rms_norm_forward<T>(ExecSpace(), y.span(), z.span(), gain.span(), o.span(),
                                       inverse.span());
  }
  void norm_backward() { norm_backward_into(dy); }
  void norm_backward_into(OwnedMat<T> const& gradient_of_y) {
    kernels::gated_rms_norm_backward<T>(ExecSpace(), dout.span(), y.span(), z.span(), gain.span(),
                                        inverse.span(), gradient_of_y.span(), dz.span(), dgain.span(),
                                        workspace.span());
  }
  reference::GateGradients wanted_of_norm() const {
    return reference::gated_rms_norm_backward(dout.values(), y.values(), z.values(), gain.values());
  }
};

/// The values with a common size, the largest of them (1 at least).
std::vector<Scaled> sized(std::vector<double> const& values) {
  double largest = 1;
  for (double const v : values) largest = std::max(largest, std::fabs(v));
  std::vector<Scaled> result;
  for (double const v : values) result.emplace_back(v, largest);
  return result;
}

struct Shape {
  Index rows, width;
};
std::vector<Shape> const shapes = {{0, 5}, {1, 1}, {67, 13}, {3, 512}, {33, 517}, {2, 5000}};

template <class T>
class Gate : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Gate, Scalars);

TYPED_TEST(Gate, SiluGateFollowsItsDefinition) {
  for (auto const& [rows, width] : shapes)
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      GateCall<TypeParam> call(rows, width, storage);
      call.gate();
      EXPECT_TRUE(near(
          call.o, reference::silu_gate(lift<Scaled>(call.y.values()), lift<Scaled>(call.z.values())), 4));
      call.gate_backward();
      auto const wanted = reference::silu_gate_backward(call.dout.values(), call.y.values(), call.z.values());
      EXPECT_TRUE(near(call.dy, sized(wanted.dy), 4));
      EXPECT_TRUE(near(call.dz, sized(wanted.dz), 4));
    }
}

TYPED_TEST(Gate, SiluGateWorksInPlace) {
  using T = TypeParam;
  GateCall<T> call(37, 29, Storage::strided), in_place(37, 29, Storage::strided);
  call.gate();
  kernels::silu_gate_forward<T>(ExecSpace(), in_place.y.span(), in_place.z.span(), in_place.y.span());
  EXPECT_TRUE(same(in_place.y.values(), call.o.values()));
  call.gate_backward();
  kernels::silu_gate_backward<T>(ExecSpace(), in_place.dout.span(), call.y.span(), call.z.span(),
                                 in_place.dout.span(), in_place.dz.span());
  EXPECT_TRUE(same(in_place.dout.values(), call.dy.values()));
  EXPECT_TRUE(same(in_place.dz.values(), call.dz.values()));
}

TYPED_TEST(Gate, GatedRmsNormFollowsItsDefinition) {
  for (auto const& [rows, width] : shapes)
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      GateCall<TypeParam> call(rows, width, storage);
      call.norm();
      auto const wanted = reference::gated_rms_norm(
          lift<Scaled>(call.y.values()), lift<Scaled>(call.z.values()), lift<Scaled>(call.gain.values()));
      EXPECT_TRUE(near(call.o, wanted, 8)) << rows << " x " << width;
      EXPECT_TRUE(call.inverse.guards_intact());
    }
}

TYPED_TEST(Gate, GatedRmsNormBackwardFollowsItsDefinition) {
  for (auto const& [rows, width] : shapes)
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      GateCall<TypeParam> call(rows, width, storage);
      call.norm();
      call.norm_backward();
      auto const wanted = call.wanted_of_norm();
      EXPECT_TRUE(near(call.dy, sized(wanted.dy), 8)) << rows << " x " << width;
      EXPECT_TRUE(near(call.dz, sized(wanted.dz), 8)) << rows << " x " << width;
      EXPECT_TRUE(near(call.dgain, sized(wanted.dgain), 8)) << rows << " x " << width;
      EXPECT_TRUE(call.workspace.guards_intact());
    }
}

TEST(GateGradient, IsTheTransposeOfTheDerivative) {
  for (auto const& [rows, width] : {Shape{1, 2}, {67, 13}, {33, 517}, {2, 5000}}) {
    GateCall<double> call(rows, width, Storage::strided);
    auto const vy = random_values(call.y.values().size(), 11), vz = random_values(call.z.values().size(), 12),
               vk = random_values(call.gain.values().size(), 13);
    auto const y = lift(call.y.values(), vy), z = lift(call.z.values(), vz);
    call.gate_backward();
    GradientCheck gate;
    gate.output(reference::silu_gate(y, z), call.dout.values());
    gate.input(call.dy.values(), vy);
    gate.input(call.dz.values(), vz);
    EXPECT_TRUE(gate.result()) << rows << " x " << width;
    call.norm();
    call.norm_backward();
    GradientCheck norm;
    norm.output(reference::gated_rms_norm(y, z, lift(call.gain.values(), vk)), call.dout.values());
    norm.input(call.dy.values(), vy);
    norm.input(call.dz.values(), vz);
    norm.input(call.dgain.values(), vk);
    EXPECT_TRUE(norm.result()) << rows << " x " << width;
  }
}

TYPED_TEST(Gate, GatedRmsNormAddsToItsGainAndRepeatsBitForBit) {
  GateCall<TypeParam> call(71, 37);
  call.norm();
  call.norm_backward();
  auto const dy = call.dy.values(), dz = call.dz.values();
  auto twice = call.dgain.values();
  for (double& v : twice) v *= 2;
  call.workspace.fill_nan();
  call.norm_backward_into(call.dout);
  EXPECT_TRUE(same(call.dout.values(), dy));
  EXPECT_TRUE(same(call.dz.values(), dz));
  EXPECT_TRUE(same(call.dgain.values(), twice));
}

TYPED_TEST(Gate, RowsOfZerosStayFinite) {
  using T = TypeParam;
  GateCall<T> call(3, 8);
  call.y.fill(0);
  call.norm();
  call.norm_backward();
  for (double const v : call.o.values()) EXPECT_EQ(v, 0);
  for (double const v : call.dgain.values()) EXPECT_EQ(v, 0);
  EXPECT_TRUE(near(call.dy, sized(call.wanted_of_norm().dy), 4));
}

Dropout some_dropout(double probability) {
  Dropout dropout;
  dropout.probability = probability;
  dropout.seed = 42;
  dropout.site = 7;
  dropout.base = 100;
  dropout.length = 5;
  dropout.stride = 11;
  return dropout;
}

TYPED_TEST(Gate, DropoutMultipliesWithItsFactors) {
  using T = TypeParam;
  for (auto const& [rows, width] : shapes)
    for (double const probability : {0.0, 0.3}) {
      Dropout const dropout = some_dropout(probability);
      auto const x = OwnedMat<T>::random(rows, width, 1, Storage::strided);
      auto const before = OwnedMat<T>::random(rows, width, 2, Storage::strided);
      OwnedMat<T> sum(rows, width, before.values(), Storage::strided), kept(rows, width, Storage::strided);
      kernels::add_dropped<T>(ExecSpace(), dropout, x.span(), sum.span());
      kernels::drop<T>(ExecSpace(), dropout, x.span(), kept.span());
      auto const xs = lift<Scaled>(x.values()), old = lift<Scaled>(before.values());
      std::vector<Scaled> wanted_kept, wanted_sum;
      for (std::size_t i = 0; i < xs.size(); ++i) {
        auto const row = static_cast<Index>(i) / width, column = static_cast<Index>(i) % width;
        wanted_kept.push_back(xs[i] * Scaled(dropout.scale<double>(row, column)));
        wanted_sum.push_back(old[i] + wanted_kept.back());
      }
      EXPECT_TRUE(near(kept, wanted_kept, 1));
      EXPECT_TRUE(near(sum, wanted_sum, 1));
      // Onto zeros, adding is dropping.
      sum.fill(0);
      kernels::add_dropped<T>(ExecSpace(), dropout, x.span(), sum.span());
      auto const added = sum.values(), dropped = kept.values();
      for (std::size_t i = 0; i < added.size(); ++i) EXPECT_EQ(added[i], dropped[i]);
    }
}

TYPED_TEST(Gate, RefusesWrongShapes) {
  using T = TypeParam;
  GateCall<T> const call(3, 8), other(3, 9);
  EXPECT_THROW(kernels::silu_gate_forward<T>(ExecSpace(), call.y.span(), other.z.span(), call.o.span()),
               std::logic_error);
  EXPECT_THROW(kernels::gated_rms_norm_forward<T>(ExecSpace(), call.y.span(), call.z.span(),
                                                  other.gain.span(), call.o.span(), call.inverse.span()),
               std::logic_error);
  EXPECT_THROW(kernels::drop<T>(ExecSpace(), Dropout(), other.y.span(), call.o.span()), std::logic_error);
}

}  // namespace
}  // namespace strata::test
