// SPDX-License-Identifier: Apache-2.0
// AdamW against its formula over ten steps.

#include "kernels/adamw.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/adamw.hpp"

namespace strata::test {
namespace {

using kernels::AdamW;
using kernels::ExecSpace;

template <class T>
class AdamWStep : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AdamWStep, Scalars);

constexpr int steps = 10;

/// Runs ten steps; gradients of step s are random_values(n, 100 + s).
template <class T>
void run(AdamW settings, OwnedVec<T> const& parameter, OwnedVec<T> const& first, OwnedVec<T> const& second,
         Index n) {
  for (settings.step = 1; settings.step <= steps; ++settings.step) {
    auto const gradient = OwnedVec<T>::random(n, static_cast<std::uint64_t>(100 + settings.step));
    auto const before = gradient.values();
    kernels::adamw_step<T>(ExecSpace(), settings, gradient.span(), parameter.span(), first.span(),
                           second.span());
    EXPECT_TRUE(same(gradient.values(), before));
  }
}

TYPED_TEST(AdamWStep, FollowsTheFormulaForTenSteps) {
  using T = TypeParam;
  for (Index const n : {0, 1, 13, 4096, 10007})
    for (double const decay : {0.0, 0.1})
      for (double const scale : {1.0, 0.01}) {
        AdamW settings;
        settings.learning_rate = 0.01;
        settings.weight_decay = decay;
        settings.gradient_scale = scale;
        auto const parameter = OwnedVec<T>::random(n, 1);
        OwnedVec<T> first(n), second(n);
        first.fill(0);
        second.fill(0);
        std::vector<reference::AdamWState> states;
        for (double const p : parameter.values()) states.push_back({p, 0, 0});
        run(settings, parameter, first, second, n);
        for (settings.step = 1; settings.step <= steps; ++settings.step) {
          auto const gradient =
              OwnedVec<T>::random(n, static_cast<std::uint64_t>(100 + settings.step)).values();
          for (std::size_t i = 0; i < states.size(); ++i)
            states[i] = reference::adamw_step(settings, states[i], gradient[i]);
        }
        std::vector<Scaled> parameters, firsts, seconds;
        for (auto const& s : states) {
          parameters.emplace_back(s.parameter, 1 + steps * settings.learning_rate);
          firsts.emplace_back(s.first_moment, scale);
          seconds.emplace_back(s.second_moment, scale * scale);
        }
        // Ten roundings of parameters below 1.1, of |m| < scale and of v < scale^2.
        EXPECT_TRUE(near(parameter, parameters, 5)) << n << " decay " << decay << " scale " << scale;
        EXPECT_TRUE(near(first, firsts, 3));
        EXPECT_TRUE(near(second, seconds, 3));
      }
}

TYPED_TEST(AdamWStep, TheFirstStepHasTheSizeOfTheLearningRate) {
  using T = TypeParam;
  OwnedVec<T> const gradient(2, {3, -0.5}), parameter(2, {0, 0}), first(2, {0, 0}), second(2, {0, 0});
  AdamW settings;
  kernels::adamw_step<T>(ExecSpace(), settings, gradient.span(), parameter.span(), first.span(),
                         second.span());
  EXPECT_TRUE(near(parameter, {Scaled(-1e-3, 2e-3), Scaled(1e-3, 2e-3)},
                   4 + 1e-7 / std::numeric_limits<T>::epsilon()));
}

TYPED_TEST(AdamWStep, RepeatsBitForBit) {
  using T = TypeParam;
  Index const n = 10007;
  std::vector<double> results[2];
  for (auto& result : results) {
    auto const parameter = OwnedVec<T>::random(n, 1);
    OwnedVec<T> first(n), second(n);
    first.fill(0);
    second.fill(0);
    run(AdamW(), parameter, first, second, n);
    result = parameter.values();
  }
  EXPECT_TRUE(same(results[0], results[1]));
}

TYPED_TEST(AdamWStep, AParameterWithoutGradientDoesNotMove) {
  using T = TypeParam;
  OwnedVec<T> const gradient(1, {0}), parameter(1, {0.7}), first(1, {0}), second(1, {0});
  auto const before = parameter.values();
  kernels::adamw_step<T>(ExecSpace(), AdamW(), gradient.span(), parameter.span(), first.span(),
                         second.span());
  EXPECT_TRUE(same(parameter.values(), before));
}

}  // namespace
}  // namespace strata::test
