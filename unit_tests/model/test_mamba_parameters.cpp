// SPDX-License-Identifier: Apache-2.0
// Names, shapes and starting values of the parameters of Mamba stages: those of the packages' state_dict.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "model/block.hpp"

namespace strata::model {
namespace {

constexpr Index layers = 2;

/// Declared, allocated and filled; two layers of width 34 with 5 states and 3 inputs, 68 channels.
ParameterStore<double> stage(BlockType type) {
  BlockConfig block;
  block.block_type = type;
  block.d_state = 5;
  block.d_conv = 3;
  block.expand = 2;
  block.headdim = 17;
  ParameterStore<double> store;
  static_cast<void>(make_block<double>(block, 34, layers, "stage_models.1.", Ready::at_end, store));
  store.allocate(false);
  store.initialise(7);
  return store;
}

/// What the values of a parameter are, as a test of one element: (row-major index, value).
struct Expected {
  std::vector<Index> shape;
  std::function<bool(Index, double)> holds;
  bool decays;
};

std::function<bool(Index, double)> within(double bound) {
  return [bound](Index, double x) { return std::abs(x) <= bound && x != 0; };
}
bool is_one(Index, double x) { return x == 1; }
bool is_step(Index, double x) {
  double const step = std::log1p(std::exp(x));
  return step >= 1e-3 * (1 - 1e-12) && step <= 0.1 * (1 + 1e-12);
}

using Names = std::map<std::string, Expected>;

Names mamba1() {
  Names names;
  for (Index l = 0; l < layers; ++l) {
    std::string const layer = "stage_models.1.layers." + std::to_string(l) + ".", mixer = layer + "mixer.";
    names[mixer + "A_log"] = {
        {68, 5}, [](Index i, double x) { return x == std::log(static_cast<double>(i % 5 + 1)); }, false};
    names[mixer + "D"] = {{68}, is_one, false};
    names[mixer + "in_proj.weight"] = {{136, 34}, within(1 / std::sqrt(34.0)), true};
    names[mixer + "conv1d.weight"] = {{68, 1, 3}, within(1 / std::sqrt(3.0)), true};
    names[mixer + "conv1d.bias"] = {{68}, within(1 / std::sqrt(3.0)), false};
    names[mixer + "x_proj.weight"] = {{3 + 10, 68}, within(1 / std::sqrt(68.0)), true};
    names[mixer + "dt_proj.weight"] = {{68, 3}, within(1 / std::sqrt(3.0)), true};
    names[mixer + "dt_proj.bias"] = {{68}, is_step, false};
    names[mixer + "out_proj.weight"] = {{34, 68}, within(1 / std::sqrt(68.0)), true};
    names[layer + "norm.weight"] = {{34}, is_one, false};
  }
  return names;
}

Names mamba2() {
  Names names;
  for (Index l = 0; l < layers; ++l) {
    std::string const layer = "stage_models.1.layers." + std::to_string(l) + ".", mixer = layer + "mixer.";
    names[layer + "norm.weight"] = {{34}, is_one, false};
    names[mixer + "dt_bias"] = {{4}, is_step, false};
    names[mixer + "A_log"] = {
        {4}, [](Index, double x) { return x >= 0 && x <= std::log(16.0) * (1 + 1e-12); }, false};
    names[mixer + "D"] = {{4}, is_one, false};
    names[mixer + "in_proj.weight"] = {{2 * 68 + 10 + 4, 34}, within(1 / std::sqrt(34.0)), true};
    names[mixer + "conv1d.weight"] = {{78, 1, 3}, within(1 / std::sqrt(3.0)), true};
    names[mixer + "conv1d.bias"] = {{78}, within(1 / std::sqrt(3.0)), false};
    names[mixer + "norm.weight"] = {{68}, is_one, false};
    // Divided by the root of the number of layers.
    names[mixer + "out_proj.weight"] = {{34, 68}, within(1 / std::sqrt(68.0 * layers)), true};
  }
  names["stage_models.1.norm_f.weight"] = {{34}, is_one, false};
  return names;
}

void expect(ParameterStore<double> const& store, Names const& wanted) {
  std::map<std::string, std::vector<Index>> shapes, got;
  for (auto const& [name, e] : wanted) shapes[name] = e.shape;
  for (ParameterInfo const& info : store.all()) got[info.name] = info.shape;
  ASSERT_EQ(got, shapes);
  ASSERT_EQ(store.all().size(), wanted.size()) << "a name occurs twice";
  for (std::size_t p = 0; p < store.all().size(); ++p) {
    ParameterInfo const& info = store.all()[p];
    SCOPED_TRACE(info.name);
    Expected const& e = wanted.at(info.name);
    EXPECT_EQ(info.decays(), e.decays);
    std::vector<double> values(static_cast<std::size_t>(info.place.size()));
    store.get(p, values.data());
    double largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(e.holds(static_cast<Index>(i), values[i])) << values[i];
      largest = std::max(largest, std::abs(values[i]));
    }
    // Drawn up to the bound, not from a narrower range: at least 200 numbers, so this fails with 1e-9.
    if (e.decays) {
      EXPECT_FALSE(e.holds(0, 1.1 * largest)) << "the largest is " << largest;
    }
  }
}

TEST(MambaParameters, OfMamba1AreThePackages) { expect(stage(BlockType::mamba1), mamba1()); }
TEST(MambaParameters, OfMamba2AreThePackages) { expect(stage(BlockType::mamba2), mamba2()); }

}  // namespace
}  // namespace strata::model
