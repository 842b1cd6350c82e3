// SPDX-License-Identifier: Apache-2.0
// The optimiser over a flat buffer against AdamW written out in double, parameter by parameter.

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "train/optimizer.hpp"

namespace strata::train {
namespace {

struct Naive {
  std::vector<double> p, m, v;
  void step(std::vector<double> const& g, double lr, OptimizerSettings const& s, double decay, int t) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      m[i] = s.beta1 * m[i] + (1 - s.beta1) * g[i];
      v[i] = s.beta2 * v[i] + (1 - s.beta2) * g[i] * g[i];
      double const mh = m[i] / (1 - std::pow(s.beta1, t));
      double const vh = v[i] / (1 - std::pow(s.beta2, t));
      p[i] -= lr * (mh / (std::sqrt(vh) + s.epsilon) + decay * p[i]);
    }
  }
};

class OptimizerTest : public testing::TestWithParam<double> {};  // the clipping norm

TEST_P(OptimizerTest, EqualsAdamWWrittenOut) {
  model::ParameterStore<float> store;
  using model::Initial;
  using model::Ready;
  store.declare("weight", {7, 5}, {Initial::Kind::normal, 0}, Ready::at_end);
  store.declare("bias", {5}, {Initial::Kind::uniform, 0.5}, Ready::at_end);
  store.declare("table", {9, 3}, {Initial::Kind::normal, 0}, Ready::before_outer_backward);
  store.allocate(true);
  store.initialise(3);
  OptimizerSettings settings;
  settings.weight_decay = 0.1;
  settings.gradient_clipping = GetParam();
  Optimizer optimizer(store, settings);
  kernels::ExecSpace const space;

  std::vector<Naive> naive;
  for (std::size_t p = 0; p < store.all().size(); ++p) {
    std::vector<float> values(static_cast<std::size_t>(store.place(p).size()));
    store.get(p, values.data());
    naive.push_back({std::vector<double>(values.begin(), values.end()), std::vector<double>(values.size(), 0),
                     std::vector<double>(values.size(), 0)});
  }
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int t = 1; t <= 5; ++t) {
    double const divisor = 10 + t;
    double const lr = 1e-2 / t;
    std::vector<std::vector<double>> gradients;
    double squares = 0;
    for (std::size_t p = 0; p < store.all().size(); ++p) {
      auto const host = Kokkos::create_mirror_view(store.gradient_vector(p));
      std::vector<double> g;
      for (std::size_t i = 0; i < host.extent(0); ++i) {
        host(i) = 20 * normal(random);
        g.push_back(static_cast<double>(host(i)) / divisor);
        squares += g.back() * g.back();
      }
      Kokkos::deep_copy(store.gradient_vector(p), host);
      gradients.push_back(g);
    }
    double const norm = optimizer.gradient_norm(space, divisor);
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
    double const clip = GetParam() > 0 && norm > GetParam() ? GetParam() / norm : 1.0;
    optimizer.step(space, t, lr, divisor, norm);
    space.fence();
    for (std::size_t p = 0; p < gradients.size(); ++p) {
      for (double& g : gradients[p]) g *= clip;
      naive[p].step(gradients[p], lr, settings, store.all()[p].decays() ? 0.1 : 0, t);
      std::vector<float> values(static_cast<std::size_t>(store.place(p).size())), left(values.size());
      store.get(p, values.data());
      store.get_gradient(p, left.data());
      for (std::size_t i = 0; i < values.size(); ++i) {
        // A few roundings of values around 1, and steps of at most lr.
        EXPECT_NEAR(values[i], naive[p].p[i], 4e-7 * t) << store.all()[p].name << " " << i;
        EXPECT_EQ(left[i], 0.0F);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clipping, OptimizerTest, testing::Values(0.0, 0.5, 1e6));

}  // namespace
}  // namespace strata::train
