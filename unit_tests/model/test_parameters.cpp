// SPDX-License-Identifier: Apache-2.0
// Names, shapes, places and starting values of parameters.
#include "model/parameters.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "model/hierarchy.hpp"

namespace strata::model {
namespace {

/// The package's two-stage sample with small numbers: widths 40 and 24, 6 patches of 5 bytes.
ModelConfig two_stages() {
  ModelConfig c;
  c.num_tokens = 256;
  c.pad_token_id = 0;
  c.hidden_dims = {40, 24};
  c.num_layers = {2, 1};
  c.seq_lens = {6, 5};
  BlockConfig block;
  block.attn_head_dims = 8;
  block.attn_num_heads = 3;
  block.ff_multiplier = 3;
  c.block = {block, block};
  c.block[1].pos_emb_type = Position::fixed;
  return c;
}

struct Expected {
  std::vector<Index> shape;
  double bound;  // uniform on [-bound, bound]; 0: standard normal; -1: all ones; -2: all zeros
};
constexpr double normal = 0, ones = -1, zeros = -2;

/// The state_dict of that model in the package's order, without the buffers.
std::vector<std::pair<std::string, Expected>> expected_parameters() {
  auto const root = [](double n) { return 1 / std::sqrt(n); };
  std::vector<std::pair<std::string, Expected>> all{{"start_tokens.0", {{40}, normal}},
                                                    {"start_tokens.1", {{24}, normal}},
                                                    {"pos_embs.1.weight", {{5, 24}, normal}},
                                                    {"token_embs_rev.0.weight", {{256, 24}, normal}},
                                                    {"token_embs_rev.1.0.weight", {{256, 24}, normal}},
                                                    {"token_embs_rev.1.2.weight", {{120}, ones}},
                                                    {"token_embs_rev.1.2.bias", {{120}, zeros}},
                                                    {"token_embs_rev.1.3.weight", {{40, 120}, root(120)}},
                                                    {"token_embs_rev.1.3.bias", {{40}, root(120)}},
                                                    {"token_embs_rev.1.4.weight", {{40}, ones}},
                                                    {"token_embs_rev.1.4.bias", {{40}, zeros}},
                                                    {"to_next_stage_proj.0.1.weight", {{120, 40}, root(40)}},
                                                    {"to_next_stage_proj.0.1.bias", {{120}, root(40)}},
                                                    {"to_logits.weight", {{256, 24}, root(24)}},
                                                    {"to_logits.bias", {{256}, root(24)}}};
  for (auto const& [stage, width, layers] : {std::tuple<int, Index, int>{0, 40, 2}, {1, 24, 1}}) {
    std::string const prefix = "stage_models." + std::to_string(stage) + ".";
    for (int l = 0; l < layers; ++l) {
      std::string const layer = prefix + "layers." + std::to_string(l) + ".";
      double const a = root(static_cast<double>(width));
      double const b = root(3.0 * static_cast<double>(width));
      all.push_back({layer + "0.norm.g", {{width}, ones}});
      all.push_back({layer + "0.to_q.weight", {{24, width}, a}});
      all.push_back({layer + "0.to_kv.weight", {{48, width}, a}});
      all.push_back({layer + "0.to_out.weight", {{width, 24}, root(24)}});
      all.push_back({layer + "1.0.g", {{width}, ones}});
      all.push_back({layer + "1.1.weight", {{3 * width, width}, a}});
      all.push_back({layer + "1.1.bias", {{3 * width}, a}});
      all.push_back({layer + "1.4.weight", {{width, 3 * width}, b}});
      all.push_back({layer + "1.4.bias", {{width}, b}});
    }
    all.push_back({prefix + "norm.g", {{width}, ones}});
  }
  return all;
}

template <class T>
std::vector<T> values(ParameterStore<T> const& store, std::size_t p) {
  std::vector<T> v(static_cast<std::size_t>(store.place(p).size()));
  store.get(p, v.data());
  return v;
}

TEST(Parameters, HaveThePackagesNamesAndShapes) {
  Hierarchy<float> const model(two_stages(), {}, false);
  std::map<std::string, std::vector<Index>> wanted, got;
  Index count = 0;
  for (auto const& [name, e] : expected_parameters()) {
    wanted[name] = e.shape;
    Index size = 1;
    for (Index const n : e.shape) size *= n;
    count += size;
  }
  for (ParameterInfo const& info : model.parameters().all()) got[info.name] = info.shape;
  EXPECT_EQ(got, wanted);
  EXPECT_EQ(model.parameters().all().size(), wanted.size()) << "a name occurs twice";
  EXPECT_EQ(model.parameters().count(), count);
  EXPECT_THROW(model.parameters().find("token_embs_rev.2.0.weight"), std::out_of_range);
}

TEST(Parameters, StartWithinTheirBounds) {
  Hierarchy<double> model(two_stages(), {}, false);
  model.parameters().initialise(11);
  ParameterStore<double> const& store = model.parameters();
  for (auto const& [name, e] : expected_parameters()) {
    SCOPED_TRACE(name);
    std::vector<double> v = values(store, store.find(name));
    if (e.bound < 0) {
      EXPECT_EQ(std::count(v.begin(), v.end(), e.bound == ones ? 1.0 : 0.0), static_cast<long>(v.size()));
      continue;
    }
    if (v.size() == std::size_t(256 * 24) && e.bound == normal) {
      EXPECT_EQ(std::count(v.begin(), v.begin() + 24, 0.0), 24) << "the pad row";
      v.erase(v.begin(), v.begin() + 24);
    }
    double const n = static_cast<double>(v.size());
    double largest = 0, mean = 0, square = 0;
    for (double const x : v) {
      largest = std::max(largest, std::abs(x));
      mean += x / n;
      square += x * x / n;
      EXPECT_NE(x, 0);
    }
    double const variance = e.bound == normal ? 1 : e.bound * e.bound / 3;
    double const fourth = e.bound == normal ? 3 : 1.8;  // E x^4 / (E x^2)^2
    EXPECT_LE(std::abs(mean), 4 * std::sqrt(variance / n));
    EXPECT_LE(std::abs(square / variance - 1), 4 * std::sqrt((fourth - 1) / n));
    if (e.bound > 0) {
      EXPECT_LE(largest, e.bound);
      EXPECT_GE(largest, e.bound * (1 - 10 / n)) << "the chance to fail is exp(-10)";
    } else if (n > 1000) {
      EXPECT_GE(largest, 3);
      EXPECT_LE(largest, 6);
    }
  }
}

double softplus(double x) { return std::log1p(std::exp(x)); }

/// Steps are log-uniform, so equally many lie in equal ratios.
TEST(Parameters, StepBiasesAreInversesOfTheirSteps) {
  ParameterStore<double> store;
  std::size_t const p =
      store.declare("dt_bias", {20000}, {Initial::Kind::inverse_softplus_step}, Ready::at_end);
  store.allocate(false);
  store.initialise(5);
  std::array<double, 4> quarters{};
  double smallest = 1, largest = 0;
  for (double const bias : values(store, p)) {
    double const step = softplus(bias);
    smallest = std::min(smallest, step);
    largest = std::max(largest, step);
    double const place = std::log(step / 1e-3) / std::log(100.0);
    ++quarters[static_cast<std::size_t>(std::clamp(place * 4, 0.0, 3.0))];
  }
  EXPECT_GE(smallest, 1e-3 * (1 - 1e-12));
  EXPECT_LE(largest, 0.1 * (1 + 1e-12));
  EXPECT_LE(smallest, 1e-3 * std::pow(100.0, 1e-3)) << "the chance to fail is exp(-20)";
  EXPECT_GE(largest, 0.1 * std::pow(100.0, -1e-3));
  for (double const n : quarters) EXPECT_NEAR(n, 5000, 4 * std::sqrt(20000 * 0.25 * 0.75));
}

TEST(Parameters, Mamba2RatesAreUniformBetween1And16) {
  ParameterStore<double> store;
  std::size_t const p = store.declare("A_log", {20000}, {Initial::Kind::log_uniform_1_16}, Ready::at_end);
  store.allocate(false);
  store.initialise(5);
  std::array<double, 5> fifths{};
  double smallest = 100, largest = 0;
  for (double const a_log : values(store, p)) {
    double const rate = std::exp(a_log);
    smallest = std::min(smallest, rate);
    largest = std::max(largest, rate);
    ++fifths[static_cast<std::size_t>(std::clamp((rate - 1) / 3, 0.0, 4.0))];
  }
  EXPECT_GE(smallest, 1);
  EXPECT_LE(largest, 16 * (1 + 1e-12));
  EXPECT_LE(smallest, 1 + 15e-3) << "the chance to fail is exp(-20)";
  EXPECT_GE(largest, 16 - 15e-3);
  for (double const n : fifths) EXPECT_NEAR(n, 4000, 4 * std::sqrt(20000 * 0.2 * 0.8));
}

TEST(Parameters, Mamba1RatesCountTheColumns) {
  ParameterStore<float> store;
  std::size_t const p = store.declare("A_log", {3, 5}, {Initial::Kind::log_column}, Ready::at_end);
  store.allocate(false);
  for (std::uint64_t const seed : {1, 2}) {
    store.initialise(seed);
    std::vector<float> const v = values(store, p);
    for (std::size_t i = 0; i < v.size(); ++i)
      EXPECT_EQ(v[i], static_cast<float>(std::log(static_cast<double>(i % 5 + 1)))) << i;
  }
}

/// The parameters of a state-space layer: which of them decay, and in how many rows and columns they lie.
TEST(Parameters, RatesDoNotDecay) {
  ParameterStore<float> store;
  std::size_t const matrix = store.declare("A_log", {6, 5}, {Initial::Kind::log_column}, Ready::at_end);
  std::size_t const conv =
      store.declare("conv1d.weight", {6, 1, 4}, {Initial::Kind::uniform, 0.5}, Ready::at_end);
  std::size_t const vector = store.declare("2.A_log", {6}, {Initial::Kind::log_uniform_1_16}, Ready::at_end);
  std::size_t const bias =
      store.declare("dt_bias", {6}, {Initial::Kind::inverse_softplus_step}, Ready::at_end);
  store.allocate(false);
  EXPECT_TRUE(store.all()[conv].decays());
  for (std::size_t const p : {matrix, vector, bias})
    EXPECT_FALSE(store.all()[p].decays()) << store.all()[p].name;
  EXPECT_EQ(store.value(conv).extent(0), 6U);
  EXPECT_EQ(store.value(conv).extent(1), 4U);
  for (ParameterInfo const& info : store.all()) {
    bool found = false;
    for (auto const& r : store.decay_ranges())
      if (info.place.offset >= r.range.begin && info.place.offset + info.place.size() <= r.range.end) {
        EXPECT_EQ(r.decays, info.decays()) << info.name;
        found = true;
      }
    EXPECT_TRUE(found) << info.name;
  }
}

TEST(Parameters, PadRowFollowsThePadId) {
  for (Index const pad : {Index(0), Index(7), Index(255)}) {
    ModelConfig c = two_stages();
    c.pad_token_id = pad;
    Hierarchy<float> model(c, {}, false);
    model.parameters().initialise(3);
    for (char const* name : {"token_embs_rev.0.weight", "token_embs_rev.1.0.weight"}) {
      std::vector<float> const v = values(model.parameters(), model.parameters().find(name));
      for (Index row = 0; row < 256; ++row)
        EXPECT_EQ(std::count(v.begin() + row * 24, v.begin() + (row + 1) * 24, 0.0F), row == pad ? 24 : 0)
            << name << " row " << row;
    }
  }
}

TEST(Parameters, DependOnSeedAndNameOnly) {
  using Kind = Initial::Kind;
  auto const make = [&](std::vector<std::string> const& names, std::uint64_t seed,
                        Kind kind = Kind::uniform) {
    ParameterStore<double> store;
    for (std::string const& name : names)
      store.declare(name, {4, 9}, {kind, 0.5}, name == "b" ? Ready::at_end : Ready::before_outer_backward);
    store.allocate(false);
    store.initialise(seed);
    std::map<std::string, std::vector<double>> result;
    for (std::string const& name : names) result[name] = values(store, store.find(name));
    return result;
  };
  auto const first = make({"a", "b", "c"}, 5);
  EXPECT_EQ(make({"c", "a", "b"}, 5), first);
  EXPECT_EQ(make({"b"}, 5)["b"], first.at("b"));
  EXPECT_NE(make({"a", "b", "c"}, 6), first);
  EXPECT_NE(make({"a", "b", "c"}, 5 + (std::uint64_t(1) << 32)), first);
  EXPECT_NE(first.at("a"), first.at("b"));
  for (Kind const kind : {Kind::inverse_softplus_step, Kind::log_uniform_1_16}) {
    auto const drawn = make({"a", "b"}, 5, kind);
    EXPECT_EQ(make({"b", "a"}, 5, kind), drawn);
    EXPECT_NE(make({"a", "b"}, 6, kind), drawn);
    EXPECT_NE(drawn.at("a"), drawn.at("b"));
  }
}

TEST(Parameters, LieInOrderAndSideBySide) {
  Hierarchy<float> const model(two_stages(), {}, true);
  ParameterStore<float> const& store = model.parameters();
  FlatRange const before = store.ready_range(Ready::before_outer_backward),
                  end = store.ready_range(Ready::at_end);
  EXPECT_EQ(before.begin, 0);
  EXPECT_EQ(before.end, end.begin);
  EXPECT_EQ(end.end, store.flat_size());

  std::vector<int> owner(static_cast<std::size_t>(store.flat_size()), 0);
  std::vector<bool> decays(owner.size());
  Index at = 0;
  for (auto const& r : store.decay_ranges()) {
    EXPECT_EQ(r.range.begin, at);
    at = r.range.end;
    std::fill(decays.begin() + r.range.begin, decays.begin() + r.range.end, r.decays);
  }
  EXPECT_EQ(at, store.flat_size());
  for (std::size_t p = 0; p < store.all().size(); ++p) {
    ParameterInfo const& info = store.all()[p];
    FlatRange const& range = store.ready_range(info.ready);
    EXPECT_GE(info.place.offset, range.begin) << info.name;
    EXPECT_LE(info.place.offset + info.place.size(), range.end) << info.name;
    EXPECT_EQ(info.decays(), info.name.find("weight") != std::string::npos && info.shape.size() == 2)
        << info.name;
    for (Index i = info.place.offset; i < info.place.offset + info.place.size(); ++i) {
      EXPECT_EQ(++owner[static_cast<std::size_t>(i)], 1) << info.name << " overlaps another";
      ASSERT_EQ(decays[static_cast<std::size_t>(i)], info.decays()) << info.name;
    }
    // The outermost stage, but for its projection, is ready last.
    bool const outer = info.name == "start_tokens.0" || info.name.starts_with("token_embs_rev.1.") ||
                       info.name.starts_with("stage_models.0.");
    EXPECT_EQ(info.ready == Ready::at_end, outer) << info.name;
  }
  std::size_t const q = store.find("stage_models.0.layers.1.0.to_q.weight");
  std::size_t const kv = store.find("stage_models.0.layers.1.0.to_kv.weight");
  EXPECT_EQ(store.place(q).offset + 24 * 40, store.place(kv).offset);
  EXPECT_EQ(store.stacked_value(q, kv).extent(0), 72U);
  EXPECT_EQ(store.stacked_gradient(q, kv).data(), store.gradient(q).data());
  EXPECT_THROW(store.stacked_value(kv, q), std::logic_error);
}

TEST(Parameters, AreCopiedInAndOut) {
  ParameterStore<float> store;
  store.declare("first", {5}, {}, Ready::at_end);
  std::size_t const p = store.declare("second", {2, 3}, {Initial::Kind::constant, 4}, Ready::at_end);
  store.declare("third", {7}, {}, Ready::at_end);
  store.allocate(false);
  EXPECT_EQ(values(store, p), std::vector<float>(6, 0));
  std::vector<float> const wanted{1, 2, 3, 4, 5, 6};
  store.set(p, wanted.data());
  EXPECT_EQ(values(store, p), wanted);
  EXPECT_EQ(values(store, store.find("first")), std::vector<float>(5, 0));
  EXPECT_EQ(values(store, store.find("third")), std::vector<float>(7, 0));
  store.initialise(1);
  EXPECT_EQ(values(store, p), std::vector<float>(6, 4));
}

}  // namespace
}  // namespace strata::model
